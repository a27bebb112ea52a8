"""The console script: help, version, unknown words, and each command that needs no training, as a user types them."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image as Pil

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.model import save_checkpoint
from medvlm.scripts import cli

YAML = """\
name: small
output_dir: {root}/runs
model:
  vision: {{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}}
  projector: {{hidden_size: 48}}
  text: {{config: {{model_type: qwen3, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
                    num_key_value_heads: 1, head_dim: 16, intermediate_size: 64}}}}
  tokenizer: {{train: {{vocab_size: 400}}}}
  processor: {{max_patches: {{image: 36, volume: 64, video: 64}}, max_depth: {{volume: 8, video: 4}}}}
data: {{root: {root}, tokens_per_pack: 512, patches_per_pack: 512}}
stages:
  - name: align
    mixture: [{{manifest: train_captions_2d.jsonl}}]
    learning_rate: {{projector: 1e-3}}
    epochs: 2
  - name: dpo
    objective: preference
    mixture: [{{manifest: train_pairs.jsonl}}]
    lora: {{rank: 2}}
    steps: 3
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(folder, patients=12, seed=3)
    return folder


@pytest.fixture(scope="module")
def checkpoint(processor, tmp_path_factory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", tiny_model(processor), processor)


def test_help_names_every_command(capsys):
    for asked in ([], ["--help"], ["-h"], ["help"], ["data", "--help"], ["data", "-h"]):
        assert cli.main(asked) == 0
        said = capsys.readouterr().out
        for words in cli.COMMANDS:
            assert f"medvlm {' '.join(words)}" in said


@pytest.mark.parametrize("words", list(cli.COMMANDS))
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    assert stopped.value.code == 0
    assert f"usage: medvlm {' '.join(words)} " in capsys.readouterr().out


def test_ctrl_c_leaves_no_traceback(monkeypatch, tmp_path, capsys):
    from medvlm.data_recipes.phantoms import write

    def pressed(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "write_phantoms", pressed)
    assert cli.main(["data", "phantoms", "--out", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err == "medvlm data phantoms: stopped\n"


def test_phantoms_overwrite_nothing(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "phantoms", "--out", str(tmp_path), "--patients", "1"])
    assert stopped.value.code == 2 and "not an empty folder" in capsys.readouterr().err


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("medvlm")


@pytest.mark.parametrize("words", [["trian"], ["data"], ["data", "phantom"], ["evaluate", "x"]])
def test_unknown_commands_are_refused_with_the_known_ones(words, capsys):
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert (
        repr(" ".join(words)) in said
        and "data phantoms, data walk, data init" in said
        and "train, plan, report, tiny, eval" in said
        and "--help" in said
    )


def test_plan_says_what_a_training_would_do(phantoms, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "small.yaml"
    config.write_text(YAML.format(root=phantoms))
    before = sorted(phantoms.rglob("*"))
    assert cli.main(["plan", str(config), "--processes", "2"]) == 0
    said = capsys.readouterr().out
    samples = len((phantoms / "train_captions_2d.jsonl").read_text().splitlines())
    pairs = len((phantoms / "train_pairs.jsonl").read_text().splitlines())
    for words in (
        "align (supervised):", "dpo (preference): 3 steps", f"train_captions_2d.jsonl {samples:,}; 0 quarantined",
        f"train_pairs.jsonl {pairs:,}; 0 quarantined", "trains   projector ", "trains   lora ", "the rest is frozen",
        "2 packs (2 processes x 1), accelerate", "GiB a process: weights", "patches, spacing", "<|im_end|>",
    ):  # fmt: skip
        assert words in said, words
    assert sorted(phantoms.rglob("*")) == before, "a plan writes nothing"
    assert cli.main(["plan", str(config), "stages.align.step=3"]) == 2
    assert "unknown key 'stages.align.step'" in capsys.readouterr().err


def test_chat_answers_one_question_about_a_picture(checkpoint, tmp_path, capsys):
    picture = tmp_path / "chest.png"
    Pil.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)).save(picture)
    arguments = ["chat", "--model", str(checkpoint), str(picture), "--question", "Is there a nodule?"]
    assert cli.main([*arguments, "--max-new-tokens", "6"]) == 0
    first = capsys.readouterr().out
    assert first.strip(), "the model says something"
    assert cli.main([*arguments, "--max-new-tokens", "6"]) == 0
    assert capsys.readouterr().out == first, "greedy: the same question has the same answer"
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    assert cli.main(["chat", "--model", str(checkpoint), str(text), "--question", "x"]) == 2
    said = capsys.readouterr().err
    assert "notes.txt: not a picture, volume or clip" in said and "give a PNG" in said
    assert cli.main(["chat", "--model", str(tmp_path), str(picture), "--question", "x"]) == 2
    assert "holds no config.json" in capsys.readouterr().err


def test_pairs_are_scored(phantoms, checkpoint, tmp_path, capsys):
    manifest = phantoms / "test_pairs.jsonl"
    rows = len(manifest.read_text().splitlines())
    arguments = ["eval", "pairs", "--model", str(checkpoint), "--data", str(manifest), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    scores = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert result["n"] == len(scores) == rows and result["quarantined"] == 0
    assert result["value"] == pytest.approx(sum(s["chosen"] > s["rejected"] for s in scores) / rows)
    assert json.loads((tmp_path / "out" / "pairs.json").read_text()) == result
    assert sum(kind["n"] for kind in result["by"].values()) == rows
    # A manifest without pairs has nothing to score.
    assert cli.main([*arguments[:5], str(phantoms / "test_questions.jsonl")]) == 2
    assert "no pair could be scored" in capsys.readouterr().err
