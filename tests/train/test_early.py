"""What is wrong with a configuration and its files is told without importing torch, in the words of what is needed."""

import json
import subprocess
import sys

import pytest
from survival import write_config, write_data

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.early import load_checked

HEAVY = ("torch", "transformers", "deepspeed", "accelerate", "peft", "pydicom", "nibabel")


@pytest.fixture
def config(tmp_path) -> str:
    return write_config(tmp_path / "run.yaml", write_data(tmp_path / "data", 3))


def rewrite(tmp_path, change) -> None:
    path = tmp_path / "data" / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_is_right_passes(config):
    assert load_checked(config).stages[0].name == "align"


@pytest.mark.parametrize("command", ["train.run", "plan_command"])
def test_a_refusal_imports_nothing_heavy(config, command):
    module = "medvlm.train." + command.removeprefix("train.")
    code = f"""
import sys, importlib
code = importlib.import_module({module!r}).main([{config!r}, "data.root=nowhere"])
print(code, [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2 []\n", done.stderr
    assert "data.root is 'nowhere', and there is no such folder" in done.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.align.mixture.0.manifest=row.jsonl", "no such manifest.*there are rows.jsonl"),
        ("model.tokenizer={pretrained: ./nowhere}", "model.tokenizer.pretrained is './nowhere'"),
        ("model.vision.patch_size=[16, 16]", r"model.vision.patch_size is \[16, 16\].*three numbers"),
        ("stages.align.step=4", "did you mean 'steps'"),
    ],
)
def test_settings_are_told(config, override, words):
    with pytest.raises((BadConfig, BadSample), match=words):
        load_checked(config, [override])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(preference={"chosen": [], "rejected": []}), "has a preference, but stage 'align'"),
        (lambda row: row.update(split="test"), "a test sample must not be trained on"),
        (lambda row: row["messages"].pop(), "no assistant speaks in the first 3 rows"),
        (lambda row: row["messages"][0]["content"][0].update(path="a.png"), "none of the first 3 images"),
    ],
)
def test_rows_are_told_when_none_can_be_used(config, tmp_path, change, words):
    rewrite(tmp_path, change)
    with pytest.raises(BadSample, match=words):
        load_checked(config)


def test_one_bad_row_among_others_is_left_to_the_quarantine(config, tmp_path):
    path = tmp_path / "data" / "rows.jsonl"
    path.write_text("no JSON\n" + path.read_text())
    load_checked(config)


def test_stages_that_are_done_or_not_asked_for_need_no_files(config, tmp_path):
    (tmp_path / "data" / "rows.jsonl").unlink()
    with pytest.raises(BadSample):
        load_checked(config)
    done = tmp_path / "run" / "stages" / "01-align" / "done.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    load_checked(config)


def test_questions_that_a_stage_asks_while_it_trains_are_there(config, tmp_path):
    asks = "evaluation={manifests: [asked.jsonl]}"
    load_checked(config, [asks])  # asked after the training, by another command
    with pytest.raises(BadSample, match=r"asked.jsonl: .*stage 'align' asks its questions.*evaluation.manifests"):
        load_checked(config, [asks, "stages.align.evaluate_every=2"])
    (tmp_path / "data" / "asked.jsonl").touch()
    load_checked(config, [asks, "stages.align.evaluate_every=2"])
