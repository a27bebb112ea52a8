"""Whole curricula on real phantoms through medvlm.train.run: what is trained, frozen, repeated, resumed and refused."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launching import launch_environment, torchrun
from safetensors.torch import load_file
from tiny_curriculum import NAMES, YAML, write_config

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.model import load_checkpoint
from medvlm.train import run

WORKER = Path(__file__).parent / "curriculum_worker.py"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curriculum") / "data"
    write_phantoms(folder, patients=12, seed=3)
    return folder


def weights_of(output: Path, name: str) -> dict[str, torch.Tensor]:
    number = ["start", *NAMES].index(name)
    return load_file(output / "stages" / f"{number:02d}-{name}" / "checkpoint" / "model.safetensors")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory) -> Path:
    """The run folder of the whole curriculum, trained once."""
    folder = tmp_path_factory.mktemp("runs")
    assert run.main([write_config(folder / "whole.yaml", phantoms)]) == 0
    return folder / "whole"


def test_every_stage_trains_what_it_declares_and_nothing_else(trained):
    declared = {
        "align": {"projector"},
        "instruct-2d": {"projector", "text"},
        "instruct-3d": {"vision", "projector", "text"},
        "lora-sft": {"projector", "vision.mlp", "text.attention"},
        "lora-dpo": {"text.attention", "text.mlp"},
    }
    adapted_weights = {
        "vision.mlp": r"vision\.layers\.\d+\.mlp\.\w+\.weight",
        "text.attention": r"text\.model\.layers\.\d+\.self_attn\.\w_proj\.weight",
        "text.mlp": r"text\.model\.layers\.\d+\.mlp\.\w+_proj\.weight",
    }
    for before_name, name in zip(["start", *NAMES], NAMES, strict=False):
        before, after = weights_of(trained, before_name), weights_of(trained, name)
        assert before.keys() == after.keys(), "adapters were merged, and nothing was added or lost"
        for key, tensor in after.items():
            whole = key.split(".")[0] in declared[name]
            adapted = any(re.fullmatch(adapted_weights.get(role, ""), key) for role in declared[name])
            assert torch.equal(tensor, before[key]) == (not (whole or adapted)), (name, key)


def test_every_checkpoint_loads_and_says_what_was_done(trained):
    for number, name in enumerate(NAMES, start=1):
        folder = trained / "stages" / f"{number:02d}-{name}"
        model, processor = load_checkpoint(folder / "checkpoint")
        assert all(tensor.isfinite().all() for tensor in model.parameters())
        assert processor.visual_token_id == model.config.visual_token_id
        done = json.loads((folder / "done.json").read_text())
        assert done["stage"] == name and done["steps"] == (4 if name == "instruct-2d" else 2)
        assert done["world_size"] == 1 and done["quarantined"] == 0 and len(done["fingerprint"]) == 64
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, done["steps"] + 1))
        assert ("reward_accuracy" in rows[0]) == (name == "lora-dpo")
        assert (folder / "adapter" / "adapter_model.safetensors").is_file() == name.startswith("lora")
    sizes = {n: sum(p.numel() for p in getattr(model, n).parameters()) for n in ("vision", "projector", "text")}
    done = json.loads((trained / "stages" / "03-instruct-3d" / "done.json").read_text())
    assert done["trained"] == sizes
    adapter = load_file(trained / "stages" / "04-lora-sft" / "adapter" / "adapter_model.safetensors")
    done = json.loads((trained / "stages" / "04-lora-sft" / "done.json").read_text())
    assert done["trained"] == {"projector": sizes["projector"], "lora": sum(t.numel() for t in adapter.values())}


def test_done_stages_are_passed_over_and_other_settings_refused(trained, capsys):
    config = str(trained.with_suffix(".yaml"))
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("model.safetensors")}
    assert run.main([config]) == 0
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("model.safetensors")} == before
    capsys.readouterr()
    assert run.main([config, "stages.lora-dpo.weight_decay=0.5"]) == 2
    assert "'lora-dpo'" in (said := capsys.readouterr().err) and "choose another output_dir" in said


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(trained, phantoms, tmp_path):
    config = write_config(tmp_path / "again.yaml", phantoms)
    assert run.main([config]) == 0
    for number, name in enumerate(NAMES, start=1):
        file = Path("stages") / f"{number:02d}-{name}" / "checkpoint" / "model.safetensors"
        assert sha256(trained / file) == sha256(tmp_path / "again" / file), name
    assert run.main([config, "--stage", "align", "seed=6", f"output_dir={tmp_path / 'other'}"]) == 0
    file = Path("stages") / "01-align" / "checkpoint" / "model.safetensors"
    assert sha256(trained / file) != sha256(tmp_path / "other" / file)


def test_worker_processes_and_a_cache_with_a_limit_give_the_same_bytes(trained, phantoms, tmp_path):
    config = write_config(tmp_path / "workers.yaml", phantoms)
    overrides = ["data.workers=2", "data.cache=true", "data.cache_gib=0.0006"]
    assert run.main([config, "--stage", "align", *overrides]) == 0
    file = Path("stages") / "01-align" / "checkpoint" / "model.safetensors"
    assert sha256(tmp_path / "workers" / file) == sha256(trained / file)
    cached = list((tmp_path / "workers" / "cache").glob("*.safetensors"))
    assert cached and sum(path.stat().st_size for path in cached) <= 0.0006 * 2**30


def test_a_stage_of_so_many_tokens_takes_the_steps_that_hold_them(phantoms, tmp_path):
    old, new = "    steps: 2\n  - name: instruct-2d\n", "    tokens: 3000\n  - name: instruct-2d\n"
    assert run.main([write_config(tmp_path / "tokens.yaml", phantoms, old, new), "--stage", "align"]) == 0
    folder = tmp_path / "tokens" / "stages" / "01-align"
    tokens = [json.loads(line)["tokens"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(tokens[:-1]) < 3000 <= sum(tokens)
    assert json.loads((folder / "done.json").read_text())["steps"] == len(tokens) > 2


def test_killed_and_resumed_is_uninterrupted_to_the_bit(trained, phantoms, tmp_path):
    config = write_config(tmp_path / "killed.yaml", phantoms)
    assert run.main([config, "--stage", "align"]) == 0
    folder = tmp_path / "killed" / "stages" / "02-instruct-2d"
    process = subprocess.Popen(
        [sys.executable, "-m", "medvlm.train.run", config, "--stage", "instruct-2d"],
        env=launch_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    stop = time.monotonic() + 600
    while not list(folder.glob("state/step-*")) and process.poll() is None and time.monotonic() < stop:
        time.sleep(0.005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (folder / "done.json").exists() and not (folder / "checkpoint").exists()
    assert run.main([config, "--stage", "instruct-2d"]) == 0
    file = Path("stages") / "02-instruct-2d" / "checkpoint" / "model.safetensors"
    assert sha256(tmp_path / "killed" / file) == sha256(trained / file)
    rows = [root / "stages" / "02-instruct-2d" / "metrics.jsonl" for root in (tmp_path / "killed", trained)]
    losses = [[json.loads(line)["loss"] for line in path.read_text().splitlines()] for path in rows]
    assert losses[0] == losses[1]


def test_one_stage_alone_needs_its_predecessor(phantoms, tmp_path, capsys):
    config = write_config(tmp_path / "one.yaml", phantoms)
    assert run.main([config, "--stage", "instruct-2d"]) == 2
    said = capsys.readouterr().err
    assert "'instruct-2d' starts from" in said and "01-align" in said and "run the stages before it" in said
    assert run.main([config, "--stage", "alig"]) == 2
    assert "no stage 'alig' (did you mean 'align'?)" in capsys.readouterr().err
    assert run.main([config, "--stage", "align", "stages.align.steps=1"]) == 0
    assert sorted(p.name for p in (tmp_path / "one" / "stages").iterdir()) == ["00-start", "01-align"]


@pytest.mark.slow
def test_ranks_with_different_overrides_all_stop(phantoms, tmp_path):
    config = write_config(tmp_path / "ranks.yaml", phantoms)
    done = torchrun(WORKER, [config, "stages.align.steps=1", "stages.align.weight_decay=0.5"])
    assert done.returncode != 0
    assert "the configuration of rank 1 is not that of rank 0; start all ranks from the same" in done.stderr
    assert not list(tmp_path.rglob("done.json"))


# --- refusals: exit code 2, and a message that says what, where and how to mend it ------------------------------


def refusal(capsys, arguments: list[str]) -> str:
    capsys.readouterr()
    assert run.main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("medvlm train: ")
    return said


CAPTIONS = "[{manifest: train_captions_2d.jsonl}]"
ALIGN = "    learning_rate: {projector: 1e-3}\n    steps: 2\n  - name: instruct-2d"
REFUSED = {
    "unknown key": (
        "    packs_per_step: 2",
        "    packs_per_steps: 2",
        [".yaml:", "'stages.instruct-2d.packs_per_steps'", "did you mean 'packs_per_step'"],
    ),
    "trains nothing": (
        ALIGN,
        ALIGN.partition("\n")[2],
        ["'stages.align'", "trains nothing", "set learning_rate.projector"],
    ),
    "unknown target": (
        ALIGN,
        ALIGN.replace("    steps: 2", "    lora: {targets: [text.atention]}\n    steps: 2"),
        ["unknown LoRA target 'text.atention'", "did you mean 'text.attention'"],
    ),
    "no manifest": (
        CAPTIONS,
        "[{manifest: nowhere.jsonl}]",
        ["nowhere.jsonl", "no such manifest", "check its path", "data.root"],
    ),
    "pairs in a supervised stage": (
        CAPTIONS,
        "[{manifest: train_pairs.jsonl}]",
        ["train_pairs.jsonl, sample ", "has a preference, but stage 'align' is supervised", "Mend: name a manifest of"],
    ),
    "test rows": (
        CAPTIONS,
        "[{manifest: test_questions.jsonl}]",
        ["test_questions.jsonl, sample ", "a test sample with a question must not be trained on", "Mend: name a train"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configurations_that_cannot_train_are_refused(phantoms, tmp_path, capsys, case):
    old, new, expected = REFUSED[case]
    said = refusal(capsys, [write_config(tmp_path / "bad.yaml", phantoms, old, new)])
    for words in expected:
        assert words in said, said


def test_a_lora_target_that_matches_nothing_names_the_layers(phantoms, tmp_path, capsys):
    # GPT-2 has no linear layers inside its blocks: they are Conv1D.
    text = YAML[YAML.index("    config:") : YAML.index("  tokenizer:")]
    gpt2 = "    config: {model_type: gpt2, n_embd: 32, n_layer: 1, n_head: 2, n_positions: 1024}\n"
    config = write_config(tmp_path / "gpt2.yaml", phantoms, text, gpt2)
    lora = ["stages.align.learning_rate={}", "stages.align.lora={targets: [text.mlp]}"]
    said = refusal(capsys, [config, *lora])
    assert "'text.mlp' matches no linear layer of the model" in said and "train the component in full" in said


def test_a_checkpoint_of_another_architecture_is_refused(phantoms, tmp_path, capsys):
    from transformers import LlamaConfig

    LlamaConfig(hidden_size=64, num_attention_heads=2).save_pretrained(tmp_path / "llama")
    part = YAML[YAML.index("  vision: {hidden") : YAML.index("data: {root")]
    config = write_config(tmp_path / "other.yaml", phantoms, part, f"  pretrained: {tmp_path / 'llama'}\n")
    said = refusal(capsys, [config])
    assert "is a 'llama' checkpoint, expected 'medvlm'" in said and "model.text.pretrained" in said


def with_rows(phantoms: Path, folder: Path, change) -> str:
    """A data root whose only manifest has three text rows, after ``change`` of the last."""
    rows = [json.loads(line) for line in (phantoms / "train_text.jsonl").read_text().splitlines()[:3]]
    change(rows[-1])
    root = folder / "rows"
    root.mkdir()
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


def test_an_empty_answer_is_quarantined_by_row_and_key(phantoms, tmp_path, capsys):
    def empty(row):
        row["messages"][-1]["content"] = [{"type": "text", "text": " "}]

    root = with_rows(phantoms, tmp_path, empty)
    only = ["stages.align.mixture=[{manifest: rows.jsonl}]", f"data.root={root}", "stages.align.steps=1"]
    config = write_config(tmp_path / "empty.yaml", phantoms, YAML[YAML.index("  - name: instruct-2d") :], "")
    assert run.main([config, *only]) == 0
    stage = tmp_path / "empty" / "stages" / "01-align"
    (row,) = [json.loads(line) for line in (stage / "quarantine.jsonl").read_text().splitlines()]
    assert row["where"].endswith("rows.jsonl:3") and "non-empty string" in row["reason"] and row["mend"]
    assert json.loads((stage / "done.json").read_text())["quarantined"] == 1
    assert "1 samples quarantined" in capsys.readouterr().err
    # When nothing is left, the run stops with the row.
    lines = (Path(root) / "rows.jsonl").read_text().splitlines(keepends=True)
    (Path(root) / "rows.jsonl").write_text(lines[-1])
    said = refusal(capsys, [config, *only, f"output_dir={tmp_path / 'none'}"])
    assert "rows.jsonl:1" in said and "non-empty string" in said and "fill in" in said


def test_a_loss_that_is_no_number_names_the_samples(trained, phantoms, tmp_path, capsys):
    model, processor = load_checkpoint(trained / "stages" / "01-align" / "checkpoint")
    word = "\u03a9"
    damaged = processor.tokenizer(word)["input_ids"]

    def strange(row):
        row["messages"][0]["content"] = [{"type": "text", "text": f"{word} Is there a nodule?"}]

    root = with_rows(phantoms, tmp_path, strange)
    culprit = json.loads((Path(root) / "rows.jsonl").read_text().splitlines()[-1])["sample_id"]
    # Untied, so that the damaged row spoils the samples that read it and no others.
    for config in (model.config, model.config.text_config, model.text.config):
        config.tie_word_embeddings = False
    model.text.lm_head.weight = torch.nn.Parameter(model.text.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.get_input_embeddings().weight[damaged[0]] = float("nan")
    model.save_pretrained(tmp_path / "damaged")
    processor.save_pretrained(tmp_path / "damaged")
    part = YAML[YAML.index("  vision: {hidden") : YAML.index("data: {root")]
    config = write_config(tmp_path / "nan.yaml", phantoms, part, f"  pretrained: {tmp_path / 'damaged'}\n")
    only = ["stages.align.mixture=[{manifest: rows.jsonl}]", f"data.root={root}", "data.tokens_per_pack=150"]
    said = refusal(capsys, [config, "--stage", "align", *only, "stages.align.steps=50"])
    assert "gradient norm is nan" in said and "of stage 'align'" in said and culprit in said
