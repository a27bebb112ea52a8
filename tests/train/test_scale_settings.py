"""Settings of scale: what is refused before anything is loaded, and that older trainings keep their fingerprint."""

from __future__ import annotations

import pytest
import torch

from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.config import fingerprint, load_curriculum
from medvlm.train.deepspeed_engine import deepspeed_config
from medvlm.train.sequence_parallel import SequenceGroup, sequence_group
from medvlm.train.settings.engine import EngineConfig

YAML = """\
name: tiny
output_dir: runs/tiny
model: {pretrained: start}
data: {root: data}
engine: {kind: deepspeed, zero_stage: 3, offload: OFFLOAD}
stages:
  - {name: tune, mixture: [{manifest: a.jsonl}], learning_rate: {text: 1e-5}, steps: 2}
"""


def read(tmp_path, offload: str, *overrides: str):
    path = tmp_path / "tiny.yaml"
    path.write_text(YAML.replace("OFFLOAD", offload), encoding="utf-8")
    return load_curriculum(path, overrides)


def test_the_words_of_offload_are_the_boolean_that_came_before(tmp_path):
    for word, boolean in (("none", "false"), ("optimizer", "true")):
        one, other = read(tmp_path, word), read(tmp_path, boolean)
        assert one.engine == other.engine and fingerprint(one) == fingerprint(other)
    assert fingerprint(read(tmp_path, "all")) != fingerprint(read(tmp_path, "true"))
    with pytest.raises(BadConfig, match=r"'engine\.offload' is 'al'"):
        read(tmp_path, "al")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "deepspeed", "zero_stage": 2, "offload": "all"}, "ZeRO 2 keeps them whole"),
        ({"kind": "fsdp", "offload": "optimizer"}, "the engine is 'fsdp'"),
        ({"kind": "deepspeed", "zero_stage": 3, "offload": "all", "offload_to": "nvme"}, "need each other"),
        ({"kind": "deepspeed", "zero_stage": 3, "nvme_path": "/disk"}, "need each other"),
        (
            {"kind": "deepspeed", "zero_stage": 2, "offload": True, "offload_to": "nvme", "nvme_path": "/disk"},
            "ZeRO-3 alone",
        ),
        ({"sequence_parallel": 0}, "sequence_parallel is 0"),
    ],
)
def test_what_cannot_be_is_refused(settings, reason):
    with pytest.raises(BadConfig, match=reason):
        EngineConfig(**settings)


def test_deepspeed_is_told_where_weights_and_optimizer_go():
    config = EngineConfig(kind="deepspeed", zero_stage=3, offload="all", offload_to="nvme", nvme_path="/disk")
    zero = deepspeed_config(config, gradient_clip=1.0, micro_batches_per_step=1, world_size=2)["zero_optimization"]
    for part in ("offload_param", "offload_optimizer"):
        assert (zero[part]["device"], zero[part]["nvme_path"]) == ("nvme", "/disk")
    config = EngineConfig(kind="deepspeed", zero_stage=3, offload="optimizer")
    zero = deepspeed_config(config, gradient_clip=1.0, micro_batches_per_step=1, world_size=2)["zero_optimization"]
    assert "offload_param" not in zero and zero["offload_optimizer"]["device"] == "cpu"


def test_parts_of_packs_are_for_sums_over_tokens(tmp_path):
    shared = read(tmp_path, "none", "engine.sequence_parallel=2")
    assert fingerprint(shared) != fingerprint(read(tmp_path, "none"))
    lora = ["stages.tune.learning_rate.text=null", "stages.tune.lora={}", "stages.tune.objective=preference"]
    with pytest.raises(BadConfig, match="only sums over tokens can be put together"):
        read(tmp_path, "none", "engine.sequence_parallel=2", *lora)


def test_weights_that_are_divided_cannot_be_in_4_bits(tmp_path):
    lora = ["stages.tune.learning_rate.text=null", "stages.tune.lora={quantize: nf4}"]
    with pytest.raises(BadConfig, match="FSDP partitions them"):
        read(tmp_path, "none", "engine={kind: fsdp}", *lora)


def test_a_group_must_divide_the_processes_and_the_heads():
    assert sequence_group(1, 0, 6) is None
    with pytest.raises(ValueError, match="6 processes cannot be cut into groups of 4"):
        sequence_group(4, 0, 6)

    with pytest.raises(ValueError, match="does not divide the 6 attention heads"):
        SequenceGroup(group=None, rank=0, size=4).to_heads(torch.zeros(1, 6, 3, 2), 6)


@pytest.mark.parametrize("length", [0, 1, 5, 8, 9])
def test_every_token_is_held_once(length):
    bounds = [SequenceGroup(group=None, rank=rank, size=4).bounds(length) for rank in range(4)]
    held = [place for start, stop in bounds for place in range(start, stop)]
    assert held == list(range(length))
