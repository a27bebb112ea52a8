"""Features of a frozen encoder on disk: the same losses, nothing read or encoded twice, and never those of another."""

import importlib.util
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from conftest import a_volume, tiny_model
from launching import torchrun
from tiny_curriculum import write_config

from medvlm.data_recipes import rendering
from medvlm.data_recipes.feature_cache import FeatureCache, NamedVisual
from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.train import run
from medvlm.train.assemble import set_trainable
from medvlm.train.config import LearningRates, Lora, Source, Stage, load_curriculum
from medvlm.train.feature_cache import encoder_fingerprint, no_cache_because

STEPS = 5
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "data"
    write_phantoms(folder, patients=12, seed=3)
    return folder


def losses(config: str, output: Path, *, cache: bool) -> list[float]:
    text = [f"data.feature_cache={str(cache).lower()}", f"stages.align.steps={STEPS}", f"output_dir={output}"]
    mixture = "stages.align.mixture=[{manifest: train_captions_2d.jsonl}, {manifest: train_text.jsonl}]"
    assert run.main([config, "--stage", "align", mixture, *text]) == 0
    rows = (output / "stages" / "01-align" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["loss"] for row in rows]


def test_losses_are_the_same_and_what_is_known_is_neither_read_nor_encoded(phantoms, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "tiny.yaml", phantoms)
    read: list[str] = []
    really = rendering.read_for

    def spy(ref, *arguments):
        if threading.current_thread().name == "medvlm-loader":
            read.append(ref.path)
        return really(ref, *arguments)

    monkeypatch.setattr(rendering, "read_for", spy)
    without = losses(config, tmp_path / "without", cache=False)
    filling = losses(config, tmp_path / "first", cache=True)
    assert "keeps what the frozen encoder makes" in capsys.readouterr().err
    assert without == pytest.approx(filling, rel=2e-6)
    entries = {path.name for path in (tmp_path / "first" / "features").glob("*.safetensors")}
    assert len(entries) >= 3 and read
    # Another training with the same start and data finds all of them.
    shutil.copytree(tmp_path / "first" / "features", tmp_path / "second" / "features")
    read.clear()
    assert losses(config, tmp_path / "second", cache=True) == filling, "to the bit"
    assert read == []
    assert {path.name for path in (tmp_path / "second" / "features").glob("*.safetensors")} == entries


def test_another_encoder_or_arithmetic_has_another_name(processor):
    model = tiny_model(processor)
    before = encoder_fingerprint(model, "accelerate fp32", CPU)
    assert encoder_fingerprint(tiny_model(processor), "accelerate fp32", CPU) == before
    assert encoder_fingerprint(model, "accelerate bf16", CPU) != before
    with torch.no_grad():
        model.projector.up.weight.zero_()
    assert encoder_fingerprint(model, "accelerate fp32", CPU) == before, "the projector is behind the features"
    with torch.no_grad():
        model.vision.layers[1].mlp.down.bias[3] += 1e-7
    assert encoder_fingerprint(model, "accelerate fp32", CPU) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_come_back_to_the_bit(tmp_path, processor, dtype):
    visual = NamedVisual(key="k", **vars(processor.patch(a_volume(1))))
    features = torch.randn(len(visual.patches), 24).to(dtype)
    cache = FeatureCache(tmp_path, "encoder")
    assert cache.get("k") is None
    cache.put(visual, features)
    found = FeatureCache(tmp_path, "encoder").get("k")
    assert found.features.dtype == dtype and torch.equal(found.features, features)
    assert (found.grid, found.axis_kind, found.key) == (visual.grid, visual.axis_kind, "k")
    assert found.spacing == visual.spacing and (found.kept == visual.kept).all()
    assert len(found.patches) == len(visual.patches), "what a sample costs is the same"
    assert FeatureCache(tmp_path, "another").get("k") is None


def test_a_stage_that_must_encode_says_why(phantoms, tmp_path, processor):
    curriculum = load_curriculum(write_config(tmp_path / "tiny.yaml", phantoms), ["data.feature_cache=true"])
    source = (Source(manifest="none"),)
    for settings, reason in (
        ({"learning_rate": LearningRates(vision=1e-3)}, "trains"),
        ({"lora": Lora(rank=2, targets=("vision.mlp",))}, "trains"),
        ({"lora": Lora(rank=2, targets=("text.mlp",))}, ""),
        ({"objective": "reinforcement", "lora": Lora(rank=2)}, "patches"),
    ):
        model = tiny_model(processor)
        stage = Stage(name="s", mixture=source, steps=1, **settings)
        set_trainable(model, stage)
        found = no_cache_because(model, curriculum, stage)
        assert reason in found and bool(reason) == bool(found)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_ranks_that_know_different_features_stay_together_where_weights_are_divided(phantoms, tmp_path):
    """One rank has a pack of text while the other must encode: each pass of a divided encoder is a collective."""
    config = write_config(tmp_path / "tiny.yaml", phantoms)
    text = "stages.align.mixture=[{manifest: train_captions_2d.jsonl}, {manifest: train_text.jsonl}]"
    found = []
    for engine, cache in (("accelerate", "false"), ("deepspeed, zero_stage: 3", "true"), ("fsdp", "true")):
        alone = engine == "accelerate"
        output = tmp_path / f"{engine[:4]}-{cache}"
        settings = [
            f"engine={{kind: {engine}, device: cpu}}", f"stages.align.packs_per_step={4 if alone else 2}",
            "stages.align.steps=3", "data.tokens_per_pack=256", f"data.feature_cache={cache}",
            f"output_dir={output}", text,
        ]  # fmt: skip
        command = [config, "--stage", "align", *settings]
        if alone:
            assert run.main(command) == 0
        else:
            done = torchrun(Path(run.__file__), command, timeout=200)
            assert done.returncode == 0, done.stderr[-3000:]
        rows = (output / "stages" / "01-align" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found.append([json.loads(row)["loss"] for row in rows])
    assert found[1] == pytest.approx(found[0], rel=2e-6)
    assert found[2] == pytest.approx(found[0], rel=2e-6)
