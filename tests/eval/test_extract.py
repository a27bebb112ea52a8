"""Extraction reads answers and never guesses."""

from time import process_time

import pytest

from medvlm.data_recipes.sample import Question
from medvlm.eval.extract import choice_index, extract, options
from medvlm.eval.scorers.catalogue import METRICS
from medvlm.eval.scorers.choice import accepted, is_correct, majority_hits
from medvlm.eval.thinking import marked_answer, visible_answer

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


@pytest.mark.parametrize(
    "text",
    [
        "<unused94>thought\nIt may be yes. <unused95>No",  # MedGemma
        "◁think▷yes? yes.◁/think▷No",  # Kimi-VL
        "[THINK]yes.[/THINK]no",  # Magistral
        "<thinking>yes</thinking>no",
        "<seed:think>yes</seed:think>no",
        "<|channel|>analysis<|message|>yes.<|end|><|start|>assistant<|channel|>final<|message|>No",  # gpt-oss
        "analysisThe answer is yes.assistantfinalNo.",  # the same without its special tokens
        "<think>a<think>b</think>yes</think> no",
        "No <think>yes</think>",
        r"\boxed{\text{No}}",
        r"So \boxed{yes}? Rather \boxed{\textbf{No}}",
        "<answer>no",
        "Is it <answer>yes? no: <answer>No</answer>",
    ],
)
def test_thinking_of_every_family_and_marked_answers(text):
    assert extract(YES_NO, text).value == "no"


@pytest.mark.parametrize(
    "text",
    [
        "◁think▷maybe yes",
        "<unused94>thought\nyes.",
        "analysisWe think yes.",
        "<|channel|>analysis<|message|>yes",
        "<think>yes",
    ],
)
def test_thinking_that_never_ends_is_no_answer(text):
    assert extract(YES_NO, text).rule == "thinking_cut_off"


def test_no_answer_takes_long_to_read():
    """A model that repeats itself until its room is full must not stop the run: every rule is linear."""
    junk = [
        "<think>", "</think>", "<answer>", "\\boxed{", "```json ", "{", '{"a":', "[", '["a",', " ", "\n", "no ", "not ",
        "B ", "(", "answer: ", "\\boxed{ {} ", "instead of ", "1, ", "a: ", "- \n", "there is no ",
        "<unused94>", "<|channel|>", "word",
    ]  # fmt: skip
    questions = [YES_NO, CHOICE] + [
        Question(kind=kind, answers=("a",), topic=topic, choices=("a", "b") if kind == "labels" else ())
        for kind, topic in (("open", "x"), ("labels", "x"), ("json", "x"), ("span", "x"), ("span", "entities"))
    ]
    slow: list[tuple[str, str]] = []
    texts = {part: part * (30_000 // len(part)) for part in junk}
    texts |= {"digits": f"[{'1' * 30_000}]", "blanks in a line": "a" + " " * 15_000 + "b" + " " * 15_000}
    for part, text in texts.items():
        for question in questions:
            began = process_time()
            extract(question, text, THERE)
            if process_time() - began > 0.5:
                slow.append((part, question.kind))
    assert not slow


def test_marked_answers_are_the_last_ones():
    assert marked_answer("<answer>A</answer> or <answer>B</answer>, says <answer>") == "B"
    assert marked_answer("none") is None


@pytest.mark.parametrize("text", ['{"size": 1e999}', '{"size": NaN}', '{"a":' * 5000, '{"n": ' + "1" * 5000 + "}"])
def test_numbers_and_nesting_without_end_are_no_json(text):
    assert extract(Question(kind="json", answers=('{"size": 1}',)), text).rule == "invalid_json"


FINDINGS = Question(kind="choice", answers=("A",), choices=("pneumothorax", "pleural effusion"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("No pneumothorax is seen.", None),
        ("There is no evidence of pneumothorax.", None),
        ("Pneumothorax is unlikely.", None),
        ("without pneumothorax", None),
        ("It isn't pneumothorax.", None),
        ("Neither pneumothorax nor pleural effusion.", None),
        ("Not a pneumothorax but a pleural effusion.", "pleural effusion"),
        ("Pleural effusion without pneumothorax.", "pleural effusion"),
        ("I would rule out pneumothorax: pleural effusion", "pleural effusion"),
        ("The answer is not (B).", None),
        ("It isn't B.", None),
        ("not option B", None),
        ("B is incorrect.", None),
        ("(B) can be ruled out.", None),
        ("The correct option is (A), not (B).", "pneumothorax"),
    ],
)
def test_a_choice_that_is_denied_is_not_chosen(text, value):
    assert extract(FINDINGS, text).value == value


@pytest.mark.parametrize(
    ("choices", "text", "value"),
    [
        (("contrast", "plain"), "A non-contrast scan", None),
        (("with contrast", "without contrast"), "It was made without contrast.", "without contrast"),
        (("effusion", "no effusion"), "There is no effusion here.", "no effusion"),
        (("2", "3"), "It measures 2.5 mm.", None),
        (("2.5 cm", "5 cm"), "About 12.5 cm.", None),
        (("2.5 cm", "5 cm"), "About 2.5 cm.", "2.5 cm"),
        (("Left", "left", "right"), "On the left.", "left"),
        (("Left", "left", "right"), "left", "left"),
    ],
)
def test_choices_inside_other_words_and_numbers(choices, text, value):
    assert extract(Question(kind="choice", answers=("A",), choices=choices), text).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Lesion no. 3", None), ("Answer: no (yes would need more)", None), ("The answer isn't yes.", None),
        ("No (nothing is seen)", "no"), ("No.<|im_end|>", "no"), ("No.", "no"),
    ],
)  # fmt: skip
def test_yes_and_no_that_are_not_said(text, value):
    assert extract(YES_NO, text).value == value


def test_right_in_every_order_needs_an_answer_to_every_order():
    """A rotation that could not be asked is no rotation that was right."""
    metric = METRICS["choice_accuracy_in_every_order"][1]
    row = {"condition": "choices_shuffled", "kind": "choice", "correct": True, "choices": ["a", "b", "c"]}
    rows = [row | {"sample_id": name} for name in ("whole", "whole", "part")]
    assert metric.counts(rows) == [[0.5, 0.5], [0.5, 0.5], None]
