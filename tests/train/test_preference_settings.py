"""Settings of preference stages as they are written in YAML: one loss or a mixture, and which may train what."""

import pytest

from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.config import dump, fingerprint, load_curriculum

YAML = """\
name: tiny
output_dir: runs/tiny
model:
  pretrained: start
data: {root: data}
stages:
  - name: prefer
    objective: preference
    mixture: [{manifest: pairs.jsonl}]
    steps: 5
"""


def load(tmp_path, *lines: str):
    path = tmp_path / "curriculum.yaml"
    path.write_text(YAML + "".join(f"    {line}\n" for line in lines), encoding="utf-8")
    return load_curriculum(path)


def test_a_mixture_of_losses_is_read_and_written(tmp_path):
    curriculum = load(tmp_path, "lora: {}", "preference: {loss: {sigmoid: 0.8, bco: 0.2}, supervised_weight: 1}")
    settings = curriculum.stages[0].preference
    assert settings.weights == {"sigmoid": 0.8, "bco": 0.2} and settings.needs_reference
    (tmp_path / "again.yaml").write_text(dump(curriculum), encoding="utf-8")
    again = load_curriculum(tmp_path / "again.yaml")
    assert again == curriculum and fingerprint(again) == fingerprint(curriculum)
    assert fingerprint(again) != fingerprint(load(tmp_path, "lora: {}"))


def test_a_mixture_of_one_loss_says_where_its_name_is_wrong(tmp_path):
    with pytest.raises(BadConfig, match="did you mean 'simpo'") as refused:
        load(tmp_path, "lora: {}", "preference: {loss: {sinpo: 1.0}}")
    assert "curriculum.yaml" in str(refused.value)
    with pytest.raises(BadConfig, match=r"'stages\.prefer\.preference\.loss' is 'dpo'"):
        load(tmp_path, "lora: {}", "preference: {loss: dpo}")
    with pytest.raises(BadConfig, match=r"preference\.loss\.sigmoid' must be a number"):
        load(tmp_path, "lora: {}", "preference: {loss: {sigmoid: much}}")


@pytest.mark.parametrize("loss", ["orpo", "simpo", "{orpo: 1, simpo: 0.5}"])
@pytest.mark.parametrize(
    "trained",
    [["learning_rate: {text: 1e-5, projector: 1e-4}"], ["lora: {}"], ["lora: {}", "learning_rate: {projector: 1e-4}"]],
    ids=["in full", "adapters", "both"],
)
def test_losses_without_a_reference_train_any_component(tmp_path, loss, trained):
    stage = load(tmp_path, *trained, f"preference: {{loss: {loss}}}").stages[0]
    assert not stage.preference.needs_reference


@pytest.mark.parametrize("loss", ["sigmoid", "kto", "{simpo: 1, bco: 0.1}"])
def test_losses_with_a_reference_train_adapters_only(tmp_path, loss):
    preference = f"preference: {{loss: {loss}}}"
    with pytest.raises(BadConfig, match="no 'lora', so that it has no reference") as refused:
        load(tmp_path, "learning_rate: {text: 1e-5}", preference)
    assert "orpo or simpo" in str(refused.value)
    with pytest.raises(BadConfig, match="trains more than adapters"):
        load(tmp_path, "lora: {}", "learning_rate: {projector: 1e-4}", preference)
    assert load(tmp_path, "lora: {}", preference).stages[0].preference.needs_reference
