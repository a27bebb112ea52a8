"""Adapter stages through medvlm.train.run: experts of a mixture, 4-bit frozen layers, resume, and what is refused."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from decoder_families import FAMILIES, family_tokenizer
from launching import run_group
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.model import load_checkpoint
from medvlm.train import run, stage

YAML = """\
name: adapters
output_dir: OUTPUT
model:
  vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,
           patch_size: [2, 16, 16]}
  projector: {hidden_size: 48, merge: [1, 2, 2]}
  text:
    config: {model_type: qwen3_moe, hidden_size: 64, num_hidden_layers: 1, num_attention_heads: 2,
             num_key_value_heads: 1, head_dim: 32, intermediate_size: 64, moe_intermediate_size: 32, num_experts: 4,
             num_experts_per_tok: 2, max_position_embeddings: 1024}
  tokenizer: {train: {vocab_size: 400}}
  processor: {max_patches: {image: 36, volume: 64, video: 64}, max_depth: {volume: 8, video: 4}}
data: {root: ROOT, tokens_per_pack: 512, patches_per_pack: 512}
engine: {kind: accelerate, device: cpu}
stages:
  - name: tune
    mixture: [{manifest: train_sft.jsonl}]
    learning_rate: {projector: 1e-3}
    lora: {rank: 2, targets: [text.all, vision.mlp], learning_rate: 1e-2}
    steps: 2
    save_every: 1
  - name: prefer
    objective: preference
    mixture: [{manifest: train_pairs.jsonl}]
    lora: {rank: 2, targets: [text.attention], learning_rate: 1e-2}
    steps: 1
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "data"
    write_phantoms(folder, patients=10, seed=4)
    return folder


def config(folder: Path, phantoms: Path, name: str = "run") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(YAML.replace("OUTPUT", str(folder / name)).replace("ROOT", str(phantoms)), encoding="utf-8")
    return str(path)


def dense(text: str) -> str:
    """The same curriculum with a dense decoder in 4 bits."""
    text = text.replace("qwen3_moe", "qwen3").replace(
        " moe_intermediate_size: 32, num_experts: 4,\n             num_experts_per_tok: 2,", ""
    )
    text = text.replace("targets: [text.all, vision.mlp]", "targets: [text.all], quantize: nf4")
    return text.replace("targets: [text.attention]", "targets: [text.attention], quantize: nf4, dora: true")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_experts_of_a_mixture_through_both_stages(phantoms, tmp_path):
    assert run.main([config(tmp_path, phantoms)]) == 0
    stages = tmp_path / "run" / "stages"
    start, tuned = (
        load_file(stages / part / "model.safetensors") for part in ("00-start/checkpoint", "01-tune/checkpoint")
    )
    assert start.keys() == tuned.keys()
    moved = {name for name in start if not torch.equal(start[name], tuned[name])}
    assert {name for name in moved if name.startswith("text.")} == {
        name for name in start if name.startswith("text.") and ("experts" in name or "_proj" in name)
    }, "experts and attention moved; routers, norms, embedding and output layer did not"
    adapter = load_file(stages / "01-tune" / "adapter" / "adapter_model.safetensors")
    assert any("experts" in name for name in adapter)
    assert all(name.startswith("base_model.model.") for name in adapter)
    load_checkpoint(stages / "02-prefer" / "checkpoint")


@pytest.mark.parametrize(
    "engine", ["accelerate", pytest.param("deepspeed", marks=pytest.mark.slow)], ids=["accelerate", "zero2-bf16"]
)
def test_four_bits_train_resume_to_the_bit_and_end_plain(phantoms, tmp_path, engine):
    pytest.importorskip(
        "bitsandbytes", reason="bitsandbytes is not installed; bash scripts/test_extras.sh runs these tests"
    )
    more = [] if engine == "accelerate" else ["engine.kind=deepspeed", "engine.zero_stage=2", "engine.precision=bf16"]
    path = Path(config(tmp_path, phantoms))
    path.write_text(dense(path.read_text()), encoding="utf-8")

    def train(*arguments):
        if engine == "accelerate":
            assert run.main([str(path), *arguments]) == 0
        else:  # DeepSpeed's process group is one of a process
            done = run_group([sys.executable, "-m", "medvlm.train.run", str(path), *more, *arguments], timeout=300)
            assert done.returncode == 0, done.stderr

    train()
    stages = tmp_path / "run" / "stages"
    start, tuned = (
        load_file(stages / part / "model.safetensors") for part in ("00-start/checkpoint", "01-tune/checkpoint")
    )
    assert start.keys() == tuned.keys() and all(t.dtype == torch.float32 for t in tuned.values())
    kept = [name for name in start if name.startswith("text.") and "_proj" not in name]
    for name in kept:
        bound = 0.0 if engine == "accelerate" else 0.01  # bf16 rounds what is frozen
        torch.testing.assert_close(tuned[name], start[name], atol=bound, rtol=bound)
    file = stages / "01-tune" / "checkpoint" / "model.safetensors"
    finished = sha256(file)
    folder = stages / "01-tune"
    shutil.rmtree(folder / "checkpoint")
    (folder / "done.json").unlink()
    shutil.rmtree(folder / "state" / "step-00000002")
    assert [p.name for p in (folder / "state").iterdir()] == ["step-00000001"]
    train("--stage", "tune")
    assert sha256(file) == finished, "resumed from step 1"


def test_a_wrong_merge_writes_no_checkpoint(phantoms, tmp_path, monkeypatch, capsys):
    """A fault planted into the real merge: one merged weight is three times what it should be."""
    whole = stage.merge_lora

    def faulty(model, probe, **options):
        merged = next(m for name, m in model.named_modules() if name.endswith("q_proj"))
        merge = merged.merge

        def damaging(**arguments):
            merge(**arguments)
            with torch.no_grad():
                merged.get_base_layer().weight.mul_(3)

        merged.merge = damaging
        return whole(model, probe, **options)

    monkeypatch.setattr(stage, "merge_lora", faulty)
    assert run.main([config(tmp_path, phantoms), "--stage", "tune"]) == 2
    assert "merging the adapters moved the output of text.model.layers.0.self_attn.q_proj by" in capsys.readouterr().err
    folder = tmp_path / "run" / "stages" / "01-tune"
    assert not (folder / "checkpoint").exists() and not (folder / "done.json").exists()
    assert list((folder / "state").iterdir()), "the trained state is kept"


def test_four_bits_under_zero_3_are_refused(phantoms, tmp_path, capsys):
    path = Path(config(tmp_path, phantoms))
    path.write_text(dense(path.read_text()), encoding="utf-8")
    assert run.main([str(path), "engine.kind=deepspeed", "engine.zero_stage=3"]) == 2
    said = capsys.readouterr().err
    assert "ZeRO-3 partitions them" in said and "use kind: deepspeed and zero_stage: 2" in said


def test_a_decoder_without_a_chat_template_is_refused_until_one_is_named(phantoms, tmp_path, capsys):
    family = FAMILIES["llama3"]
    tokenizer = family_tokenizer(family)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    decoder = AutoModelForCausalLM.from_config(AutoConfig.for_model(**family.config, vocab_size=len(tokenizer)))
    decoder.save_pretrained(tmp_path / "base")
    text = YAML[: YAML.index("  text:")] + f"  text: {{pretrained: {tmp_path / 'base'}}}\n"
    text += f"  tokenizer: {{pretrained: {tmp_path / 'base'}}}\n" + YAML[YAML.index("  processor:") :]
    path = tmp_path / "run.yaml"
    path.write_text(text.replace("OUTPUT", str(tmp_path / "run")).replace("ROOT", str(phantoms)), encoding="utf-8")
    assert run.main([str(path), "--stage", "tune"]) == 2
    assert "has no chat template" in (said := capsys.readouterr().err) and "chat_template: chatml" in said
    assert run.main([str(path), "--stage", "tune", "model.tokenizer.chat_template=chatml"]) == 0
    model, processor = load_checkpoint(tmp_path / "run" / "stages" / "00-start" / "checkpoint")
    rows = model.get_input_embeddings().weight
    old = decoder.get_input_embeddings().weight
    assert torch.equal(rows[: len(old)], old) and len(rows) == len(old) + 3
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id
