"""Extraction reads answers and never guesses."""

import pytest

from medvlm.data_recipes.sample import Question
from medvlm.eval.extract import choice_index, extract, options, visible_answer
from medvlm.eval.scorers.choice import accepted, is_correct, majority_hits

YES_NO = Question(kind="closed", answers=("yes",), choices=("yes", "no"))
SIDE = Question(kind="closed", answers=("left",), choices=("left", "right"))
CHOICE = Question(kind="choice", answers=("B",), choices=("A", "B", "C"))
ZONES = "In which zone is it?\nA. upper\nB. lower\nC. middle\nAnswer with the letter."
THERE = "Is there a left pleural effusion? Answer yes or no."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("No.", "no"),
        ("**No**", "no"),
        ("Yes, there is a nodule.", "yes"),
        ("No, there is a normal heart.", "no"),
        ("Yes, there is no pneumothorax.", "yes"),
        ("Answer: no", "no"),
        ("The final answer is yes.", "yes"),
        ("<think>no, no</think>Yes", "yes"),
        ("thinking was opened in the prompt: no</think> yes", "yes"),
        (r"It is \boxed{no}", "no"),
        ("<answer>yes</answer>", "yes"),
        ("The heart is normal.", None),
        ("unknown", None),
        ("Notice the nodule.", None),
        ("Yes and no.", None),
        ("yes or no", None),
        ("It is not yes.", None),
        ("", None),
        ("<think>yes", None),
        ("There is no left pleural effusion.", "no"),
        ("No evidence of pleural effusion.", "no"),
        ("There is a left pleural effusion.", "yes"),
        ("There is a pleural effusion.", None),  # says nothing about the left side
        ("No pneumothorax.", None),  # denies something else
    ],
)
def test_yes_no(text, value):
    assert extract(YES_NO, text, THERE).value == value


def test_denial_is_not_an_answer_to_another_kind_of_question():
    assert extract(YES_NO, "No evidence of effusion.", "Is the lung free of effusion?").value is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("left", "left"),
        ("On the right side.", "right"),
        ("Right, not left.", "right"),
        ("left and right", None),
        ("bilateral", None),
        ("It is in the leftover.", None),
    ],
)
def test_side(text, value):
    assert extract(SIDE, text).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("B", "lower"),
        ("(B)", "lower"),
        ("b.", "lower"),
        ("B. lower", "lower"),
        ("Answer: B", "lower"),
        ("The answer is (C).", "middle"),
        ("lower", "lower"),
        ("It lies in the middle zone.", "middle"),
        ("I choose B", "lower"),
        ("A. upper, not B.", "upper"),
        ("B. upper", None),  # letter and text disagree
        ("AB", None),
        ("A or B", None),
        ("A nodule is seen.", None),
        ("I cannot determine this from the image.", None),
        ("", None),
        ("<think>maybe A</think>B", "lower"),
    ],
)
def test_choice(text, value):
    assert extract(CHOICE, text, ZONES).value == value


def test_conflicts_are_named_and_counted():
    result = extract(SIDE, "left and right")
    assert (result.rule, result.n_candidates) == ("conflict", 2)
    assert extract(SIDE, "").rule == "empty"
    assert extract(SIDE, "<think>left").rule == "thinking_cut_off"


def test_both_is_a_choice_when_offered():
    both = Question(kind="closed", answers=("both",), choices=("left", "right", "both"))
    assert extract(both, "Bilateral.").value == "both"


def test_options_and_indices():
    assert options(CHOICE, ZONES) == ("upper", "lower", "middle")
    assert accepted(CHOICE, ZONES) == {"lower"}
    listed = Question(kind="choice", answers=("B. Liver",), choices=("A. Spleen", "B. Liver"))
    assert options(listed) == ("spleen", "liver")
    assert choice_index(listed, "b") == choice_index(listed, "Liver") == choice_index(listed, "B. Liver") == 1
    assert choice_index(listed, "kidney") is None
    with pytest.raises(ValueError, match="none of"):
        accepted(Question(kind="closed", answers=("maybe",), choices=("yes", "no")))


def test_longer_choices_win_over_words_inside_them():
    lobes = Question(kind="choice", answers=("left lung",), choices=("lung", "left lung"))
    assert extract(lobes, "It is the left lung").value == "left lung"


def test_unread_is_wrong():
    assert not is_correct(YES_NO, None)
    assert visible_answer("<THINK>x</THINK> ok") == "ok"


def test_majority_by_hand():
    rows = [("presence", ("yes", "no"), "yes")] * 6 + [("presence", ("no", "yes"), "no")] * 4
    rows += [("side", ("left", "right"), "left")] * 12
    assert sum(majority_hits(rows)) == 6 + 12
    # Unique option sets cannot teach their own answer: they fall back on the best constant place.
    unique = [("zone", (f"x{i}", f"y{i}"), f"{'x' if i < 7 else 'y'}{i}") for i in range(9)]
    assert sum(majority_hits(unique)) == 7
