"""Copies of test questions in the training are found, what is only alike is not, and the score is told without."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import a_sample, write_manifest

from medvlm.data_recipes.sample import Question, Turn
from medvlm.eval.contamination import main
from medvlm.eval.models import ConstantModel
from medvlm.eval.run import Settings, evaluate

YES = Question(kind="closed", answers=("yes",), choices=("yes", "no"), topic="presence")
NO = replace(YES, answers=("no",))
STEM = "A tiler from the coast notices that his third finger, now {} years old, goes white when he lifts wet slate, and"


def picture(seed: int) -> np.ndarray:
    """A smooth picture that is like no other."""
    generator = np.random.default_rng(seed)
    small = Pil.fromarray(generator.integers(0, 255, (6, 6), dtype=np.uint8))
    return np.asarray(small.resize((96, 96), Pil.Resampling.BICUBIC))


@pytest.fixture
def run(tmp_path) -> Path:
    """Six test questions: 0 to 3 about pictures, 4 and 5 text alone; "yes" is right for the even ones."""
    test = tmp_path / "test"
    test.mkdir()
    for number in range(4):
        Pil.fromarray(picture(number)).save(test / f"{number}.png")
    samples = [a_sample(n, "image", "q", "Is there a nodule?", YES if n % 2 == 0 else NO) for n in range(4)]
    samples += [
        a_sample(
            n,
            "text",
            "q",
            STEM.format(["ninety", "twenty"][n - 4]) + f" asks about job {n}, slate and rain?",
            YES,
            False,
        )
        for n in (4, 5)
    ]
    out = tmp_path / "run"
    evaluate(
        ConstantModel("yes"),
        [write_manifest(test / "m.jsonl", samples)],
        out,
        Settings(conditions=("image",)),
        gallery_size=1,
    )
    return out


def training(folder: Path, rows: list[tuple[np.ndarray | None, str, str]], quality: int | None = None) -> Path:
    folder.mkdir()
    samples = []
    for number, (pixels, asked, answer) in enumerate(rows):
        sample = a_sample(100 + number, "image" if pixels is not None else "text", "q", asked, YES, pixels is not None)
        if pixels is not None:
            Pil.fromarray(pixels).save(folder / f"{100 + number}.png")
        turns = (*sample.turns, Turn(role="assistant", content=(answer,)))
        samples.append(replace(sample, question=None, split="train", turns=turns))
    return write_manifest(folder / "train.jsonl", samples)


def found_in(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "contamination.jsonl").read_text().splitlines()]


def test_copies_are_found_and_the_score_is_told_without_them(run, tmp_path, capsys):
    darker = (picture(1) * 0.7 + 20).astype(np.uint8)
    copied = STEM.format("ninety") + " asks about job 4, slate and rain?"
    train = training(
        tmp_path / "train",
        [(picture(0), "Anything?", "no"), (darker, "Anything?", "no"), (picture(77), "Is there a nodule?", "yes"),
         (None, copied, "yes")],
    )  # fmt: skip
    assert main([str(run), "--train", str(train)]) == 0
    rows = found_in(run)
    assert [row["visual"] for row in rows] == ["same pixels", "near copy", "", "", "", ""]
    assert [row["contaminated"] for row in rows] == [True, True, False, False, True, False]
    assert rows[0]["where"].endswith("train.jsonl:1") and rows[1]["where"].endswith("train.jsonl:2")
    assert rows[4]["where"].endswith("train.jsonl:4") and rows[4]["text"] == 1.0 and 0 < rows[5]["text"] < 0.5
    result = json.loads((run / "contamination.json").read_text())
    accuracy = {row["part"]: (row["value"], row["n"]) for row in result["table"] if row["metric"] == "closed_accuracy"}
    assert accuracy["all"] == (pytest.approx(4 / 6), 6)
    assert accuracy["clean"] == (pytest.approx(2 / 3), 3) and accuracy["contaminated"] == (pytest.approx(2 / 3), 3)
    assert "3 of 6 seen" in capsys.readouterr().out


def test_phrases_of_many_rows_prove_nothing(run, tmp_path):
    copied = STEM.format("ninety") + " asks about job 4, slate and rain?"
    train = training(tmp_path / "train", [(None, copied, "yes")] * 11)
    assert main([str(run), "--train", str(train)]) == 0
    assert not any(row["contaminated"] for row in found_in(run))


def test_what_cannot_be_read_is_told(run, tmp_path, capsys):
    train = training(tmp_path / "train", [(picture(9), "Anything?", "no")])
    (tmp_path / "train" / "100.png").write_bytes(b"no picture")
    assert main([str(run), "--train", str(train)]) == 0
    assert "1 visuals could not be read" in capsys.readouterr().err
    assert main([str(run), "--train", str(tmp_path / "none.jsonl")]) == 2
    assert "is no manifest" in capsys.readouterr().err
