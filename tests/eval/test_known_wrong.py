"""The faults of published scorers, one by one: each is a test that we get right (MedEvalKit, VLMEvalKit, M3D, MMMU)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import a_sample

from medvlm.data_recipes.sample import Question
from medvlm.eval import answer_rules
from medvlm.eval.aggregate import aggregate, look_up
from medvlm.eval.extract import extract, extract_rows
from medvlm.eval.known_wrong import CASES, misread
from medvlm.eval.plan import Item
from medvlm.eval.score import score_rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.written[:24]!r}")
def test_reading(case):
    assert case.read() == case.value, case.why


def test_a_rule_that_guesses_is_seen(monkeypatch):
    monkeypatch.setattr(answer_rules, "_yes_no", lambda texts, answer: {1} if "no" in answer.lower() else set())
    assert len(misread()) >= 5  # the substring rule of MedEvalKit


def scored(questions: list[tuple[Question, str]], tmp_path, empty_condition: str = "image") -> dict:
    """metrics.json of (question, what was written) pairs, each of another patient."""
    samples = [
        a_sample(number, "image", "q", "Which?", question, False) for number, (question, _) in enumerate(questions)
    ]
    items = {sample.sample_id: Item(sample=sample, manifest=tmp_path / "m.jsonl") for sample in samples}
    responses = [
        {"request_id": sample.sample_id, "sample_id": sample.sample_id, "condition": empty_condition, "text": text,
         "finish_reason": "stop"}
        for sample, (_, text) in zip(samples, questions, strict=True)
    ]  # fmt: skip
    asked = {sample.sample_id: (sample.question, "Which?") for sample in samples}
    rows = score_rows(responses, extract_rows(responses, asked, tmp_path), items, tmp_path, asked=asked)
    return aggregate(rows, tmp_path, not_asked={}, run={"model": "x"}, seed=0)


def value(metrics: dict, metric: str) -> float:
    row = look_up(metrics["table"], metric, "image", "all")
    assert row is not None, metric
    return row["value"]


def test_three_perfect_answers_score_one(tmp_path):
    """MedEvalKit at 9b12e3b with its judge on gives SLAKE 1.667 (closed 2.0), PathVQA 0.333 (closed 0.0)."""
    closed = Question(kind="closed", answers=("yes",), choices=("yes", "no"))
    opened = Question(kind="open", answers=("left lung",))
    metrics = scored([(closed, "yes"), (closed, "Yes."), (opened, "left lung")], tmp_path)
    assert value(metrics, "closed_accuracy") == value(metrics, "open_exact_match") == 1.0
    assert all(row["value"] is None or row["value"] <= 1.0 for row in metrics["table"] if row["unit"] == "share")


def test_an_empty_answer_earns_nothing_whatever_the_key(tmp_path):
    for key in "ABCD":
        question = Question(kind="choice", answers=(key,), choices=("a", "b", "c", "d"))
        metrics = scored([(question, ""), (question, " \n")], tmp_path)
        assert (
            value(metrics, "choice_accuracy") == 0.0
            and metrics["counts"]["unparsed"] == 2 == metrics["counts"]["empty"]
        )


def test_an_empty_open_answer_stays_in_the_denominator(tmp_path):
    """3D-RAD's script leaves empty predictions out, and crashes of `rouge` on empty text end others."""
    opened = Question(kind="open", answers=("left lung",))
    metrics = scored([(opened, "left lung"), (opened, "")], tmp_path)
    row = look_up(metrics["table"], "open_token_f1", "image", "all")
    assert row["n"] == 2 and row["value"] == 0.5


def test_both_letters_are_right_for_neither(tmp_path):
    """M3D marks 'A. liver, or B. spleen' right for either key, because it searches for 'A.' and for 'B.'."""
    for key in "AB":
        question = Question(kind="choice", answers=(key,), choices=("liver", "spleen"))
        assert value(scored([(question, "A. liver, or B. spleen")], tmp_path), "choice_accuracy") == 0.0


def test_an_unread_box_counts_zero_not_minus_one(tmp_path):
    """M3D's positioning script writes -1 where no box was found, and averages it."""
    box = Question(kind="box", answers=("<box>(0.100, 0.100, 0.500, 0.500)</box>",))
    metrics = scored([(box, "<box>(0.100, 0.100, 0.500, 0.500)</box>"), (box, "I see nothing")], tmp_path)
    assert value(metrics, "box_iou") == pytest.approx(0.5) and metrics["counts"]["unparsed"] == 1


def test_a_refusal_is_told_from_noise():
    choice = Question(kind="choice", answers=("A",), choices=("liver", "spleen"))
    assert extract(choice, "I cannot determine this from the image.").rule == "refused"
    assert extract(choice, "lorem ipsum").rule == "unparsed"
    assert extract(choice, "I cannot see much, but the answer is B").value == "spleen"
    opened = Question(kind="open", answers=("no nodule",))
    assert extract(opened, "It is impossible to tell.").rule == "refused"
    assert extract(opened, "I cannot measure it because there is no nodule.").rule == "text"
