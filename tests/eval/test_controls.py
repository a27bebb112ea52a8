"""The same question otherwise asked keeps its right answer, and what a request is named after."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import a_video, a_volume, an_image
from evaluation_fixtures import samples_of, write_manifest, write_visuals

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.sample import Question, Turn
from medvlm.eval.extract import extract
from medvlm.eval.media_hashes import name_by_content
from medvlm.eval.models import ConstantModel, OracleModel
from medvlm.eval.noise import STRENGTH, noisy
from medvlm.eval.plan import make_plan, read_items
from medvlm.eval.rewording import WRAPPED, paraphrase, rotations
from medvlm.eval.run import Settings, evaluate
from medvlm.eval.scorers.choice import is_correct

ORGANS = ("liver", "spleen", "kidney")


def organ() -> tuple[tuple[Turn, ...], Question]:
    sample = ask(
        sample_id="1", patient_id="1", source="s", licence="CC0-1.0", split="test", prompt="Which organ?",
        answers=["B"], kind="choice", choices=ORGANS, where="here",
    )  # fmt: skip
    assert sample.question is not None
    return sample.turns, sample.question


def test_every_rotation_has_its_answer_under_another_letter():
    turns, question = organ()
    found = rotations(turns, question)
    assert not isinstance(found, str) and len(found) == 2
    letters = set()
    for asked, other in found:
        text = asked[-1].text
        letters.add(other.answers[0])
        assert text.startswith("Which organ?\nA. ") and text.endswith("\nAnswer with the letter.")
        assert sorted(line[3:] for line in text.splitlines()[1:4]) == sorted(ORGANS)
        for written in (other.answers[0], "spleen"):
            assert is_correct(other, extract(other, written, text).value, text), (written, text)
        assert not is_correct(other, extract(other, question.answers[0], text).value, text)
    assert letters == {"A", "C"}


@pytest.mark.parametrize(
    ("choices", "why"),
    [(("liver", "spleen", "none of the above"), "by their place"), (("liver", "liver", "kidney"), "read the same")],
)
def test_choices_that_cannot_move_are_not_moved(choices, why):
    turns, question = organ()
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABC", choices, strict=True))
    moved = (replace(turns[-1], content=(f"Which organ?\n{lines}",)),)
    found = rotations(moved, replace(question, choices=choices, answers=("A",)))
    assert isinstance(found, str) and why in found
    assert isinstance(rotations(turns, Question(kind="open", answers=("x",))), str)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("Is there a pleural effusion? Answer yes or no.", "Can a pleural effusion be seen? Answer yes or no."),
        ("Which organ is shown?", WRAPPED.format("Which organ is shown?")),
    ],
)
def test_paraphrases_keep_what_is_asked(asked, said):
    question = Question(kind="closed", answers=("no",), choices=("yes", "no"))
    turns, same = paraphrase((Turn(role="user", content=(asked,)),), question)
    assert turns[-1].text == said and same == question


def test_a_denial_answers_the_paraphrase_too():
    question = Question(kind="closed", answers=("no",), choices=("yes", "no"))
    turns, _ = paraphrase((Turn(role="user", content=("Is there a pleural effusion? Answer yes or no.",)),), question)
    assert extract(question, "There is no pleural effusion.", turns[-1].text).value == "no"


@pytest.mark.parametrize("visual", [an_image(), a_volume(), a_video()], ids=["image", "volume", "video"])
def test_noise_is_small_seeded_and_keeps_the_geometry(visual):
    once, again, other = noisy(visual, "ab12"), noisy(visual, "ab12"), noisy(visual, "ab13")
    name = {"Image": "pixels", "Volume": "voxels", "Video": "frames"}[type(visual).__name__]
    before, first, second, third = (getattr(v, name) for v in (visual, once, again, other))
    assert (first == second).all() and (first != third).any() and first.dtype == before.dtype
    low, high = np.percentile(before, [1, 99])
    assert 0.5 * STRENGTH < np.std(first - before) / (high - low) < 1.1 * STRENGTH
    assert replace(once, **{name: before}) == visual or once.spacing_mm == visual.spacing_mm


def test_all_controls_are_asked_and_the_oracle_is_right_under_each(tmp_path):
    write_visuals(tmp_path, 4)
    manifest = write_manifest(tmp_path / "m.jsonl", [s for p in range(4) for s in samples_of(p, ("image",))])
    metrics = evaluate(OracleModel(), [manifest], tmp_path / "run", gallery_size=1)
    by = {
        (row["condition"], row["metric"]): row for row in metrics["table"] if row["topic"] == row["dimension"] == "all"
    }
    for condition in ("image", "no_image", "swapped", "paraphrase", "noise"):
        assert by[condition, "closed_accuracy"]["value"] == 1.0 and by[condition, "closed_accuracy"]["n"] == 8
    assert by["choices_shuffled", "choice_accuracy"]["n"] == 4 * 2
    assert by["choices_shuffled", "choice_accuracy"]["value"] == 1.0
    always_a = evaluate(ConstantModel("A"), [manifest], tmp_path / "a", gallery_size=1)
    by = {
        (row["condition"], row["metric"]): row for row in always_a["table"] if row["topic"] == row["dimension"] == "all"
    }
    assert by["image", "choice_accuracy"]["value"] == 1.0, "every reference of the fixture is A"
    assert by["choices_shuffled", "choice_accuracy"]["value"] == 0.0, "and never under another order"


def test_controls_are_limited_by_samples_and_say_so(tmp_path):
    write_visuals(tmp_path, 4)
    manifest = write_manifest(tmp_path / "m.jsonl", [s for p in range(4) for s in samples_of(p, ("image",))])
    items, _ = read_items([manifest])
    plan = make_plan(items, conditions=Settings().conditions, control_limit=6)
    assert len([one for one in plan.asks if one.condition == "image"]) == 20
    assert len([one for one in plan.asks if one.condition == "noise"]) == 6
    assert plan.not_asked["noise"]["beyond the limit of controls"] == 14


def test_requests_are_named_by_content_not_by_place(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    write_visuals(first, 2)
    write_manifest(first / "m.jsonl", [s for p in range(2) for s in samples_of(p, ("image",))])
    shutil.copytree(first, second)

    def names(folder: Path) -> list[str]:
        items, _ = read_items([folder / "m.jsonl"])
        return [one.request_id for one in name_by_content(make_plan(items, conditions=["image"])).asks]

    before = names(first)
    assert names(second) == before
    (second / "0.png").write_bytes((second / "1.png").read_bytes())
    assert [one == other for one, other in zip(names(second), before, strict=True)] == [False] * 5 + [True] * 5
