"""One YAML is one whole training: what is accepted, what is refused, and that each refusal says where and how."""

import dataclasses

import pytest

from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.config import EngineConfig, PreferenceConfig, dump, fingerprint, load_curriculum

YAML = """\
name: tiny
output_dir: runs/tiny
model:
  vision: {hidden_size: 32, patch: [1, 8, 8]}
  projector: {kind: mlp}
  text: {config: {model_type: qwen3, hidden_size: 64}}
  tokenizer: {train: {vocab_size: 1024}}
data:
  root: data
  tokens_per_pack: 512
engine: {kind: deepspeed, zero_stage: 2, precision: bf16}
stages:
  - name: align
    mixture: [{manifest: reports.jsonl}]
    learning_rate: {projector: 1e-3}
    steps: 20
    warmup_steps: 2
  - name: tune
    mixture:
      - {manifest: questions.jsonl, weight: 3}
      - {manifest: reports.jsonl, weight: 1}
    learning_rate: {vision: 1e-5, projector: 1e-4}
    lora: {rank: 8, targets: [text.attention]}
    epochs: 2
  - name: prefer
    objective: preference
    mixture: [{manifest: pairs.jsonl}]
    lora: {}
    steps: 5
"""


@pytest.fixture
def write(tmp_path):
    def write(old: str = "", new: str = "") -> str:
        assert not old or YAML.count(old) == 1, f"{old!r} stands {YAML.count(old)} times in the example"
        path = tmp_path / "curriculum.yaml"
        path.write_text(YAML.replace(old, new) if old else YAML, encoding="utf-8")
        return str(path)

    return write


def test_a_whole_curriculum_is_read(write):
    curriculum = load_curriculum(write())
    align, tune, prefer = curriculum.stages
    assert align.learning_rate.of_components() == {"projector": 1e-3}
    assert align.peak_learning_rates() == {"projector": 1e-3}
    assert tune.peak_learning_rates() == {"vision": 1e-5, "projector": 1e-4, "lora": 1e-4}
    assert [source.weight for source in tune.mixture] == [3.0, 1.0]
    assert tune.lora is not None and tune.lora.components == ("text",)
    assert prefer.preference == PreferenceConfig()
    assert curriculum.engine == EngineConfig(kind="deepspeed", zero_stage=2, precision="bf16")
    assert curriculum.model.vision == {"hidden_size": 32, "patch": [1, 8, 8]}
    assert curriculum.evaluation is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        curriculum.seed = 1  # type: ignore[misc]


def test_overrides_reach_stages_by_name_free_mappings_and_absent_parts(write):
    curriculum = load_curriculum(
        write(),
        [
            "stages.align.steps=7",
            "stages.tune.mixture.1.weight=2.5",
            "stages.tune.learning_rate.vision=null",
            "model.vision.hidden_size=64",
            "model.text.config.rope.theta=1e4",
            "evaluation.manifests=[chest.jsonl, brain.jsonl]",
            "name=no",
        ],
    )
    align, tune, _ = curriculum.stages
    assert align.steps == 7
    assert tune.mixture[1].weight == 2.5
    assert tune.learning_rate.vision is None
    assert curriculum.model.vision["hidden_size"] == 64
    assert curriculum.model.text["config"]["rope"] == {"theta": 1e4}
    assert curriculum.evaluation is not None and curriculum.evaluation.manifests == ("chest.jsonl", "brain.jsonl")
    assert curriculum.name == "no"  # YAML 1.2: a word, not false


def test_dump_is_complete_and_reads_back_equal(write, tmp_path):
    curriculum = load_curriculum(
        write(), ["name='1e-4'", "output_dir='true'", "stages.align.min_learning_rate_ratio=1e-7"]
    )
    text = dump(curriculum)
    assert "gradient_clip: 1.0" in text
    again = tmp_path / "resolved.yaml"
    again.write_text(text, encoding="utf-8")
    assert load_curriculum(again) == curriculum


REFUSED = [
    ("steps: 20", "stepz: 20", ":16", "unknown key 'stages.align.stepz' (did you mean 'steps'?)", "betas"),
    ("root: data", "rot: data", ":9", "unknown key 'data.rot' (did you mean 'root'?)", "tokens_per_pack"),
    ("steps: 20", "steps: 20\n    epochs: 1", ":13", "both 'steps' and 'epochs'", "exactly one"),
    ("steps: 20", "save_every: 3", ":13", "neither 'steps' nor 'epochs'", "exactly one"),
    ("steps: 20", "steps: 1", ":13", "warmup_steps is 2, but the stage has 1 steps", "at most 1"),
    ("steps: 20", "steps: 2.5", ":16", "'stages.align.steps' must be a whole number, got 2.5", "whole number"),
    ("steps: 20", "steps: true", ":16", "must be a whole number, got True", "whole number"),
    ("{projector: 1e-3}", "{}", ":13", "the stage trains nothing", "learning_rate.projector"),
    ("{projector: 1e-3}", "{projector: 3}", ":15", "learning rate of 'projector' is 3", "null freezes"),
    ("name: tune", "name: align", "", "2 stages are called 'align'", "its own name"),
    ("name: tune", "name: a b", ":18", "cannot name a folder", "letters"),
    ("vision: 1e-5", "text: 1e-5", ":18", "'text' is trained in full and by LoRA", "learning_rate.text: null"),
    ("[text.attention]", "[text.attentoin]", ":23", "did you mean 'text.attention'?", "text.mlp"),
    ("[{manifest: reports.jsonl}]", "[]", ":13", "the mixture is empty", "manifest"),
    ("weight: 3", "weight: 0", ":20", "weight of 'questions.jsonl' is 0", "above 0"),
    ("weight: 3", "weight: .nan", ":20", "weight of 'questions.jsonl' is nan", "above 0"),
    ("kind: deepspeed", "kind: deepsped", ":11", "is 'deepsped' (did you mean 'deepspeed'?)", "accelerate"),
    ("zero_stage: 2", "zero_stage: 0", ":11", "ZeRO stage 0 in bf16", "zero_stage: 1"),
    ("zero_stage: 2", "zero_stage: true", ":11", "'engine.zero_stage' is True", "0, 1, 2, 3"),
    ("kind: deepspeed", "kind: accelerate", ":11", "zero_stage is set", "kind: deepspeed"),
    ("  projector: {kind: mlp}", "  pretrained: x", ":3", "both 'pretrained' and 'vision'", "describe the parts"),
    ("{train: {vocab_size: 1024}}", "{}", ":3", "'tokenizer' must hold one of 'train'", "set 'pretrained'"),
    ("objective: preference", "preference: {beta: 0.1}", ":25", "objective is 'supervised'", "objective: preference"),
    ("objective: preference", "objective: preference\n    preference: {beta: 0}", ":27", "beta is 0", "above 0"),
    ("data:\n  root: data", "data:", ":8", "'data.root' is missing", "add 'root'"),
    ("name: tiny", "name: tiny\nname: other", ":2", "key 'name' is written twice", "keep one"),
    ("name: tiny", "name: [tiny", ":2", "broken YAML", "correct this line"),
    ("name: tiny", "name: 3", ":1", "'name' must be text", "quote"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "reason", "mend"), REFUSED, ids=[row[3][:40] for row in REFUSED])
def test_each_mistake_is_refused_with_place_reason_and_mend(write, old, new, line, reason, mend):
    path = write(old, new)
    with pytest.raises(BadConfig) as caught:
        load_curriculum(path)
    assert caught.value.where == path + line
    assert reason in caught.value.reason
    assert mend in caught.value.mend
    assert str(caught.value) == f"{caught.value.where}: {caught.value.reason}. Mend: {caught.value.mend}"


@pytest.mark.parametrize(
    ("override", "reason", "mend"),
    [
        ("stages.alig.steps=3", "'stages' has no item 'alig' (did you mean 'align'?)", "align, tune, prefer"),
        ("stages.align.stepz=3", "unknown key 'stages.align.stepz' (did you mean 'steps'?)", "steps"),
        ("stages.align.steps=many", "'stages.align.steps' must be a whole number, got 'many'", "whole number"),
        ("stages.align.steps", "must be key.key=value", "stages.align.steps=10"),
        ("name.first=x", "'name' holds 'tiny'", "override 'name' itself"),
        ("name=[x", "is not YAML", "quote"),
    ],
)
def test_a_bad_override_is_named(write, override, reason, mend):
    with pytest.raises(BadConfig) as caught:
        load_curriculum(write(), [override])
    assert caught.value.where == f"override {override!r}"
    assert reason in caught.value.reason
    assert mend in caught.value.mend


def test_a_preference_stage_trains_adapters_only(write):
    with pytest.raises(BadConfig, match=r"stages\.prefer.*has no 'lora', so that it has no reference.*add 'lora'"):
        load_curriculum(write(), ["stages.prefer.lora=null", "stages.prefer.learning_rate.text=1e-5"])
    with pytest.raises(BadConfig, match=r"stages\.prefer.*more than adapters.*leave every learning_rate null"):
        load_curriculum(write(), ["stages.prefer.learning_rate.projector=1e-4"])


def test_no_file_is_said(tmp_path):
    with pytest.raises(BadConfig, match="no such file"):
        load_curriculum(tmp_path / "nowhere.yaml")


def test_fingerprint_covers_what_changes_weights_and_nothing_else(write):
    def of(*overrides: str, stage: str | None = None) -> str:
        return fingerprint(load_curriculum(write(), overrides), stage)

    assert of() == of("output_dir=x", "data.root=y", "data.cache=true", "stages.align.save_every=2")
    assert of() == of("stages.align.keep_checkpoints=7", "evaluation.manifests=[chest.jsonl]")
    assert of() == of("stages.align.keep_every=7", "stages.align.nonfinite_limit=0")
    assert of() == of("engine.save_async=false", "engine.hang_minutes=5")
    for change in ("seed=1", "data.tokens_per_pack=64", "stages.tune.weight_decay=0.1", "engine.zero_stage=3"):
        assert of() != of(change), change
    assert of(stage="align") == of("stages.tune.weight_decay=0.1", stage="align")
    assert of(stage="tune") != of("stages.tune.weight_decay=0.1", stage="tune")
    assert of(stage="tune") != of("stages.align.steps=21", stage="tune")
    with pytest.raises(BadConfig, match="no stage 'alig'"):
        of(stage="alig")
    # With half as many processes and twice as many packs it is the same training.
    doubled = load_curriculum(write(), ["stages.align.packs_per_step=2"])
    assert fingerprint(doubled) != of() == fingerprint(doubled, packs_per_step={"align": 1})
