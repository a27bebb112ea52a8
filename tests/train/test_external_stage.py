"""Existing vision-language families through the real stages: 2D and 3D under LoRA, preference pairs, evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import a_chat, a_volume
from external_families import FAMILY_NAMES, make_checkpoint
from transformers import AutoModelForImageTextToText

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.eval import pairs
from medvlm.eval.batch_decoding import end_ids
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.model import load_checkpoint
from medvlm.scripts import chat
from medvlm.train import plan, run

YAML = """\
name: tiny
output_dir: OUTPUT
seed: 5
model: {pretrained: FOLDER, processor: {max_depth: {volume: 3, video: 2}, volumes: VOLUMES}}
data: {root: ROOT, tokens_per_pack: 2048, patches_per_pack: 4096}
engine: {kind: accelerate, device: cpu, activation_checkpointing: true}
stages:
  - name: instruct
    mixture: [{manifest: two.jsonl}, {manifest: three.jsonl}]
    learning_rate: {projector: 1e-3}
    lora: {rank: 2, targets: [vision.attention, text.attention, text.mlp], learning_rate: 1e-2}
    steps: 1
  - name: full
    mixture: [{manifest: three.jsonl}, {manifest: text.jsonl}]
    learning_rate: {vision: 1e-3, text: 1e-3}
    steps: 1
  - name: dpo
    objective: preference
    mixture: [{manifest: pairs.jsonl}]
    lora: {rank: 2, targets: [text.attention], learning_rate: 1e-2}
    steps: 1
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("external") / "data"
    write_phantoms(folder, patients=12, seed=3)
    for short, long, rows in (("two", "2d", 3), ("three", "3d", 3), ("text", "text", 2), ("pairs", "pairs", 2)):
        lines = (folder / f"train_{long}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
        (folder / f"{short}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def volumes_of(family: str) -> str:
    return "video" if family in ("internvl", "qwen3_vl") else "slices"


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def trained(request, phantoms, tmp_path_factory) -> tuple[str, Path, Path, Path]:
    """(family, its checkpoint, the YAML, the run folder) of three stages of one step each."""
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    start = make_checkpoint(family, folder / "start")
    text = YAML.replace("FOLDER", str(start)).replace("ROOT", str(phantoms)).replace("OUTPUT", str(folder / "run"))
    config = folder / "tiny.yaml"
    config.write_text(text.replace("VOLUMES", volumes_of(family)), encoding="utf-8")
    assert run.main([str(config)]) == 0
    return family, start, config, folder / "run"


def checkpoint(folder: Path, number: int) -> Path:
    return next(folder.glob(f"stages/{number:02d}-*")) / "checkpoint"


def test_each_stage_moves_the_components_that_it_names(trained):
    _, _, _, folder = trained
    moved = []
    for number in range(1, 4):
        before, model = (load_checkpoint(checkpoint(folder, n))[0] for n in (number - 1, number))
        old = dict(before.named_parameters())
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, old[n])}
        moved.append({model.component_of(name) for name in changed})
        done = json.loads((checkpoint(folder, number).parent / "done.json").read_text())
        assert done["quarantined"] == 0
    assert moved == [{"vision", "projector", "text"}, {"vision", "text"}, {"text"}]


def test_a_trained_folder_loads_without_medvlm_and_gives_equal_logits(trained):
    family, start, _, folder = trained
    last = checkpoint(folder, 3)
    plain, report = AutoModelForImageTextToText.from_pretrained(last, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(plain) is type(AutoModelForImageTextToText.from_pretrained(start))
    model, processor = load_checkpoint(last)
    assert processor.settings.volumes == volumes_of(family) and processor.settings.max_depth["volume"] == 3
    batch = processor(messages=[a_chat(["volume"], "Which side?")], visuals=[[a_volume(1)]])
    inputs = model.family.library_inputs(batch["input_ids"], None)
    mask = torch.ones_like(batch["input_ids"])
    with torch.no_grad():
        ours, theirs = model.model(**inputs, attention_mask=mask), plain.eval()(**inputs, attention_mask=mask)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-5, rtol=1e-5)


def test_evaluation_chat_and_pairs_take_it_as_they_take_ours(trained, phantoms, capsys):
    _, _, _, folder = trained
    last = checkpoint(folder, 3)
    scores, quarantine = pairs.score_pairs(last, phantoms / "pairs.jsonl")
    assert len(scores) == 2 and not quarantine and all(s.chosen < 0 and s.rejected < 0 for s in scores)
    scan = next(iter(sorted(phantoms.rglob("*.nii.gz"))))
    assert chat.main(["--model", str(last), str(scan), "--question", "Which side?", "--max-new-tokens", "3"]) == 0
    answerer = CheckpointModel(last, device="cpu", batch_size=2)
    assert answerer.name == str(last) and end_ids(answerer.model, answerer.processor) >= answerer.processor.end_ids


def test_a_plan_counts_tokens_without_weights(trained, capsys):
    _, _, config, _ = trained
    assert plan.main([str(config)]) == 0
    shown = capsys.readouterr().out
    assert "instruct" in shown and "dpo" in shown and "⟦" in shown


def test_gemma_says_that_it_pads(phantoms, tmp_path, capfd):
    start = make_checkpoint("gemma3", tmp_path / "start")
    text = YAML.split("  - name: full")[0]
    text = text.replace("FOLDER", str(start)).replace("ROOT", str(phantoms)).replace("OUTPUT", str(tmp_path / "run"))
    (tmp_path / "tiny.yaml").write_text(text.replace("VOLUMES", "slices"), encoding="utf-8")
    assert run.main([str(tmp_path / "tiny.yaml")]) == 0
    said = capfd.readouterr().err
    assert said.count("Gemma 3: its images are attended to in both directions") == 1
