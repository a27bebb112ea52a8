"""Rewards mark as evaluation does; what cannot be read is worth nothing, and what cannot be marked is told before."""

import pytest

from medvlm.data_recipes.sample import Question, Sample, Turn
from medvlm.train.rewards import asked_of, mark, why_not_marked


def sample_of(question=None, *, prompt="Is there a nodule?", answer=None):
    turns = (Turn(role="user", content=(prompt,)),)
    turns += (Turn(role="assistant", content=(answer,)),) if answer is not None else ()
    return Sample(
        sample_id="s", patient_id="p", study_id="s", source="t", licence="CC0-1.0", split="train", turns=turns,
        question=question,
    )  # fmt: skip


YES_NO = Question(kind="closed", answers=("yes",), choices=("yes", "no"))
LETTERS = Question(kind="choice", answers=("B",), choices=("left lung", "right lung", "heart"))
OPEN = Question(kind="open", answers=("left upper lobe",))
BOX = Question(kind="box", answers=("<box>(0.100, 0.100, 0.300, 0.300)</box>",))
REPORT = Question(kind="report", answers=("There is a left pleural effusion and a right pneumothorax. No mass.",))


def parts(question, text, **rewards):
    asked = asked_of(sample_of(question))
    return mark(asked, text, rewards=rewards, tokens=5, room=20, thinking=True)


CASES = [
    (YES_NO, "Yes.", "choice", 1.0), (YES_NO, "no", "choice", 0.0),
    (YES_NO, "<think>no?</think><answer>yes</answer>", "answer", 1.0),
    (LETTERS, "(B)", "choice", 1.0), (LETTERS, "right lung", "answer", 1.0), (LETTERS, "A", "choice", 0.0),
    (OPEN, "The left upper lobe.", "exact", 1.0), (OPEN, "left lobe", "exact", 0.0),
    (OPEN, "left lobe", "short_answer", 0.8),
    (OPEN, "left lobe", "answer", 0.8),
    (BOX, "<box>(0.100, 0.100, 0.300, 0.300)</box>", "box", 1.0),
    (BOX, "<box>(0.200, 0.100, 0.400, 0.300)</box>", "box", 1 / 3),
    (REPORT, "Left pleural effusion.", "findings", 2 / 3), (REPORT, "Right pleural effusion.", "findings", 0.0),
    (REPORT, "Left pleural effusion. Right pneumothorax. No mass.", "findings", 1.0),
    (YES_NO, "<think>a</think> <answer>yes</answer>", "format", 1.0),
    (YES_NO, "a</think><answer>yes</answer>", "format", 1.0),
    (YES_NO, "<answer>yes</answer>", "format", 0.0), (YES_NO, "<think>a</think><answer>yes</answer> no", "format", 0.0),
    (YES_NO, "<think>a</think><answer>y</answer><answer>yes</answer>", "format", 0.0),
    (YES_NO, "yes", "brevity", 0.75),
]  # fmt: skip


@pytest.mark.parametrize(("question", "text", "name", "value"), CASES)
def test_what_an_answer_is_worth(question, text, name, value):
    assert parts(question, text, **{name: 1.0}).parts[name] == pytest.approx(value, abs=1e-6)


def test_rewards_are_weighted_and_those_that_do_not_apply_stay_out():
    marked = parts(YES_NO, "<think>a</think><answer>yes</answer>", answer=1.0, box=5.0, format=0.2)
    assert marked.reward == pytest.approx(1.2) and marked.parts["box"] is None and not marked.unread


def test_what_no_rule_can_read_is_worth_nothing_and_counted():
    for question, text in ((YES_NO, "perhaps"), (LETTERS, "A or B"), (BOX, "left"), (YES_NO, "<think>yes, it")):
        marked = parts(question, text, answer=1.0)
        assert (marked.reward, marked.unread) == (0.0, True), text
    # A report that denies everything by its silence is none.
    healthy = Question(kind="report", answers=("No pleural effusion. No pneumothorax.",))
    empty = parts(healthy, "", answer=1.0, findings=1.0)
    assert (empty.reward, empty.unread) == (0.0, True)


def test_a_conversation_asks_its_last_question():
    asked = asked_of(sample_of(answer="No."))
    assert asked is not None and asked.question.kind == "closed" and asked.question.answers == ("no",)
    assert [turn.role for turn in asked.turns] == ["user"] and asked.prompt == "Is there a nodule?"
    told = asked_of(sample_of(answer="left upper lobe", prompt="Where?"))
    assert told is not None and told.question.kind == "open"
    assert asked_of(sample_of()) is None


def test_what_no_reward_can_mark_is_told_before():
    assert why_not_marked(asked_of(sample_of(YES_NO)), {"answer": 1.0}) is None
    assert "can mark a closed question" in str(why_not_marked(asked_of(sample_of(YES_NO)), {"box": 1.0, "format": 1.0}))
    unknown = Question(kind="report", answers=("Status quo as described elsewhere.",))
    told = str(why_not_marked(asked_of(sample_of(unknown)), {"answer": 1.0}))
    assert "can mark a report question" in told and "Status" not in told, "what a report says is in no log"
    strange = Question(kind="closed", answers=("maybe",), choices=("yes", "no"))
    assert "'maybe' itself is worth nothing" in str(why_not_marked(asked_of(sample_of(strange)), {"answer": 1.0}))
