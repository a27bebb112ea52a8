"""Every preset takes two steps of each of its stages as a tiny copy, and trains exactly what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from external_families import make_checkpoint

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.loading import load_checkpoint
from medvlm.scripts import tiny_copy
from medvlm.scripts.stand_ins import kind_of
from medvlm.train.config import Curriculum, load_curriculum
from medvlm.train.distributed import connect, disconnect
from medvlm.train.run_stages import run_curriculum
from medvlm.train.stage import stage_folder

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"
FULL, ADAPTED = "full", "adapted"
TEXT_LORA = {"text": ADAPTED}
ALL = {"vision": FULL, "projector": FULL, "text": FULL}
EXPECTED: dict[str, dict[str, dict[str, str]]] = {
    "finetune-lingshu": {"lora": {"projector": FULL, "text": ADAPTED}, "dpo": TEXT_LORA},
    "finetune-medgemma": {"lora": {"projector": FULL, "text": ADAPTED}, "dpo": TEXT_LORA},
    "finetune-qwen-vl": {"lora": {"projector": FULL, "text": ADAPTED}, "dpo": TEXT_LORA},
    "hulu-med": {
        "align": {"vision": FULL, "projector": FULL}, "medical-2d": ALL, "medical-2d-3d-video": ALL, "instruct": ALL,
    },
    "lingshu": {
        "shallow-align": {"vision": FULL, "projector": FULL}, "deep-align": ALL, "instruct": ALL, "rlvr": TEXT_LORA,
    },
    "llava-med": {"align": {"projector": FULL}, "instruct": {"projector": FULL, "text": FULL}},
    "m3d": {
        "clip-3d": {"vision": FULL, "heads": FULL}, "project": {"projector": FULL},
        "lora": {"vision": FULL, "projector": FULL, "text": ADAPTED},
    },
    "meddr-lora": {"lora": TEXT_LORA},
    "mmed-rag-dpo": {"dpo": TEXT_LORA},
    "note": {"sft": TEXT_LORA, "dpo": TEXT_LORA},
    "unimedvl": {"foundation": ALL, "instruct": ALL, "unify": ALL},
}  # fmt: skip
"""Preset -> stage -> component -> how it is trained; what is not named is frozen."""
FAMILIES = {
    "finetune-lingshu": "qwen2_5_vl", "finetune-medgemma": "gemma3", "finetune-qwen-vl": "qwen3_vl",
    "lingshu": "qwen2_5_vl", "meddr-lora": "internvl",
}  # fmt: skip
"""Preset -> the family of its published checkpoint."""
DECODERS = {"hulu-med": "qwen2", "llava-med": "mistral", "m3d": "phi3", "note": "qwen3", "unimedvl": "qwen2"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("presets") / "phantoms"
    write_phantoms(folder, patients=16, seed=0)
    return folder


@pytest.fixture(scope="module")
def ranks():
    torch.set_num_threads(1)
    yield connect("cpu")
    disconnect()


@pytest.fixture(scope="module", params=sorted(EXPECTED))
def trained(request, phantoms, ranks, tmp_path_factory) -> tuple[str, Curriculum]:
    """(preset, its tiny copy after all stages)."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    family = FAMILIES.get(name)
    pretrained = None if family is None else str(make_checkpoint(family, folder / "start"))
    made = tiny_copy.tiny_copy(
        load_curriculum(PRESETS / f"{name}.yaml"), folder, pretrained=pretrained, phantoms=phantoms
    )
    run_curriculum(made.curriculum, ranks)
    return name, made.curriculum


def test_every_preset_is_here():
    assert sorted(EXPECTED) == sorted(path.stem for path in PRESETS.glob("*.yaml"))


def test_two_steps_of_each_stage_move_exactly_what_the_stage_trains(trained):
    name, curriculum = trained
    assert [stage.name for stage in curriculum.stages] == list(EXPECTED[name])
    before = load_checkpoint(Path(curriculum.output_dir) / "stages" / "00-start" / "checkpoint")[0]
    for stage in curriculum.stages:
        folder, expected = stage_folder(curriculum, stage.name), EXPECTED[name][stage.name]
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert len(rows) == 2 and all(math.isfinite(row["loss"]) for row in rows), stage.name
        done = json.loads((folder / "done.json").read_text())
        assert done["quarantined"] == 0, (folder / "quarantine.jsonl").read_text()
        full = {component for component, how in expected.items() if how == FULL}
        adapters = {"lora"} if ADAPTED in expected.values() else set()
        assert set(done["trained"]) == full | adapters
        after = load_checkpoint(folder / "checkpoint")[0]
        old = dict(before.named_parameters())
        moved = {n for n, p in after.named_parameters() if n not in old or not torch.equal(p, old[n])}
        if stage.objective == "reinforcement":
            # The answers of a random model are all worth nothing, so that none is better than the others.
            assert {after.component_of(n) for n in moved} <= set(expected), stage.name
        else:
            assert {after.component_of(n) for n in moved} == set(expected), stage.name
        if adapters:
            adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
            check_adapted(after, stage, set(adapter["target_modules"]), moved)
        before = after


def check_adapted(model: Any, stage: Any, modules: set[str], moved: set[str]) -> None:
    """The adapted layers are all linear layers of the decoder but its output layer, and nothing else in it moved."""
    head = model.get_output_embeddings()
    layers = {
        n for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and m is not head and model.component_of(n) == "text"
    }  # fmt: skip
    found = {n for n in layers if any(n == name or n.endswith(f".{name}") for name in modules)}
    assert found == layers, f"{stage.name} adapts {sorted(modules)}"
    plain = {n.rpartition(".")[0] for n in moved if model.component_of(n) == "text"}
    assert plain <= layers, f"{stage.name} moved more of the decoder than its adapters: {sorted(plain - layers)[:3]}"


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_the_decoder_of_a_tiny_copy_is_of_the_family_of_the_original(name):
    notes: list[str] = []
    text = load_curriculum(PRESETS / f"{name}.yaml").model.text
    assert tiny_copy.decoder_type(text, notes) == DECODERS[name]


def test_every_preset_says_where_it_is_from_and_what_was_changed():
    for path in PRESETS.glob("*.yaml"):
        header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
        assert "# Source: " in header and "What its authors did" in header, path.name
        assert "# Changed, and why:" in header or "our recipe, not theirs" in header, path.name


def test_kinds_are_told_from_rows_then_from_names(phantoms, tmp_path):
    curriculum = load_curriculum(PRESETS / "m3d.yaml", [f"data.root={phantoms}"])
    assert kind_of(phantoms, "train_video.jsonl") == "video"
    assert kind_of(phantoms, "train_sft.jsonl") == "mixed"
    names = {"ct-rate/train.jsonl": "3d", "mine/CT-volumes.jsonl": "3d", "medqa/train.jsonl": "text", "a.jsonl": "2d"}
    assert {name: kind_of(phantoms, name) for name in names} == names
    with pytest.raises(BadConfig, match=r"no stage has the manifest 'b\.jsonl'"):
        tiny_copy.tiny_copy(curriculum, tmp_path, kinds={"b.jsonl": "3d"})


def test_the_command_writes_a_curriculum_that_parses(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(PRESETS / "finetune-medgemma.yaml"), "--out", str(out), "--patients", "6", "--kind"]
    assert tiny_copy.main([*arguments, "mine/train.jsonl=3d"]) == 0
    said = capsys.readouterr().out
    assert "mine/train.jsonl: virtual patients, 3d" in said
    assert "our own architecture stands in the place of google/medgemma-4b-it" in said
    small = load_curriculum(out / "curriculum.yaml")
    assert [stage.steps for stage in small.stages] == [2, 2]
    assert all((Path(small.data.root) / s.manifest).is_file() for stage in small.stages for s in stage.mixture)
