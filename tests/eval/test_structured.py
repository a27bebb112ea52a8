"""Labels, spans and JSON: how they are asked, read and marked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from medvlm.data_recipes.asking import ENTITIES, ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, Sample, Turn
from medvlm.eval.extract import extract
from medvlm.eval.intervals import micro_f1
from medvlm.eval.metric import Answered, Marks
from medvlm.eval.models import reference_of
from medvlm.eval.plan import Item
from medvlm.eval.score import marks_of
from medvlm.eval.scorers.catalogue import METRICS
from medvlm.eval.scorers.structured import entity_set, macro_f1, macro_f1_zero, same_value

LABELS = ("atelectasis", "cardiomegaly", "pleural thickening", "effusion")
FINDINGS = Question(kind="labels", answers=("none",), choices=LABELS)
DRUGS = Question(kind="span", answers=("aspirin\nvitamin A",), topic=ENTITIES)
OBJECT = Question(kind="json", answers=('{"error": true, "sentence": 10}',))


def answered(question: Question, text: str) -> Answered:
    turn = Turn(role="user", content=("?",))
    sample = Sample(
        sample_id="s", patient_id="p", study_id="p", source="x", licence="x", split="test", turns=(turn,),
        question=question,
    )  # fmt: skip
    return Answered(
        item=Item(sample=sample, manifest="."), question=question, prompt="?", condition="image", written=text,  # type: ignore[arg-type]
        value=extract(question, text).value,
    )  # fmt: skip


def marks(pairs: list[tuple[Question, str]]) -> list[Marks]:
    return marks_of([answered(question, text) for question, text in pairs])


def value_of(name: str, rows: list[Marks]) -> float:
    _, metric = METRICS[name]
    counts = [count for count in metric.counts(rows) if count is not None]
    return float(metric.value(np.asarray(counts, dtype=float).sum(axis=0, keepdims=True))[0])


# --- asking --------------------------------------------------------------------------------------------------


def asked(**more):
    common = {"sample_id": "a", "patient_id": "a", "source": "x", "licence": "x", "split": "test", "where": "f:1"}
    return ask(**{**common, "prompt": "What holds?", **more})


def test_the_form_of_the_answer_stands_in_the_prompt():
    labels = asked(kind="labels", choices=LABELS, answers=["effusion", "atelectasis"])
    assert labels.turns[0].text.endswith(
        "Possible answers: atelectasis; cardiomegaly; pleural thickening; effusion. Name all that hold, separated by "
        "semicolons, or answer none."
    )
    assert labels.question.choices == LABELS and labels.question.answers == ("effusion", "atelectasis")
    assert "on a line of its own" in asked(kind="span", topic=ENTITIES, answers=["a\nb"]).turns[0].text
    assert "words of the text and nothing else" in asked(kind="span", answers=["a"]).turns[0].text
    assert "one JSON object" in asked(kind="json", answers=['{"a": 1}']).turns[0].text


def test_training_learns_all_labels_and_not_the_first_alone():
    sample = asked(split="train", kind="labels", choices=LABELS, answers=["effusion", "atelectasis"])
    assert sample.turns[-1].text == "effusion; atelectasis"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kind": "labels", "choices": LABELS, "answers": ["hernia"]}, "'hernia' is not one of"),
        ({"kind": "labels", "choices": LABELS, "answers": ["none", "effusion"]}, "beside others"),
        ({"kind": "labels", "choices": LABELS, "answers": ["effusion", "effusion"]}, "stands twice"),
        ({"kind": "labels", "choices": ("a", "A"), "answers": ["a"]}, "all different"),
        ({"kind": "labels", "choices": ("a; b", "c"), "answers": ["c"]}, "semicolon"),
        ({"kind": "labels", "choices": ("none", "c"), "answers": ["c"]}, "none of them called"),
        ({"kind": "json", "answers": ["{a: 1}"]}, "no JSON"),
        ({"kind": "json", "answers": ["[1]"]}, "must be a JSON object"),
    ],
)
def test_questions_that_cannot_be_marked_are_refused(more, said):
    with pytest.raises(BadSample, match=said):
        asked(**more)


# --- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "rule"),
    [
        ("cardiomegaly; effusion", "cardiomegaly; effusion", "list"),
        ("Effusion, Pleural_Thickening", "pleural thickening; effusion", "list"),
        ("1. effusion\n2. atelectasis", "atelectasis; effusion", "list"),
        ('["effusion", "cardiomegaly"]', "cardiomegaly; effusion", "list"),
        ("<think>effusion?</think>The findings are: atelectasis and effusion.", "atelectasis; effusion", "list"),
        ("<answer>effusion</answer>", "effusion", "list"),
        ("None.", "none", "none"),
        ("[]", "none", "none"),
        ("Effusion: yes\n- Atelectasis: no\nCardiomegaly: present", "cardiomegaly; effusion", "lines"),
        ("There is a small effusion. No cardiomegaly.", "effusion", "mentions"),
        ("The heart shows cardiomegaly, without effusion", "cardiomegaly", "mentions"),
        ("effusion; banana", "effusion", "mentions"),
        ("Cardiomegaly is present, effusion is absent", "cardiomegaly", "mentions"),
        ("Cardiomegaly: clearly. Effusion: no", "cardiomegaly", "mentions"),
        # Denying one label says nothing of the other thirteen.
        ("No effusion.", None, "unparsed"),
        ("effusion. There is no effusion.", None, "conflict"),
        ("The heart is normal.", None, "unparsed"),
        ("", None, "empty"),
        ("<think>effusion", None, "thinking_cut_off"),
        ("Effusion: yes\nEffusion: no", None, "conflict"),
    ],
)
def test_labels_are_read_by_named_rules_or_not_at_all(text, value, rule):
    read = extract(FINDINGS, text)
    assert (read.value, read.rule) == (value, rule)


def test_a_part_of_a_longer_label_is_not_read_as_another():
    question = Question(kind="labels", answers=("none",), choices=("thickening", "pleural thickening"))
    assert extract(question, "I see pleural thickening here").value == "pleural thickening"


@pytest.mark.parametrize(
    ("text", "items", "rule"),
    [
        (
            "aspirin\n- vitamin A\n2. N,N-dimethyltryptamine",
            ["aspirin", "vitamin A", "N,N-dimethyltryptamine"],
            "lines",
        ),
        ("aspirin; vitamin A", ["aspirin", "vitamin A"], "semicolons"),
        ("aspirin, vitamin A", ["aspirin", "vitamin A"], "commas"),
        ("N,N-dimethyltryptamine", ["N,N-dimethyltryptamine"], "single"),
        ('```json\n["aspirin", "vitamin A"]\n```', ["aspirin", "vitamin A"], "json_list"),
        ("aspirin\naspirin", ["aspirin"], "lines"),
    ],
)
def test_entities_are_read_as_a_list(text, items, rule):
    read = extract(DRUGS, text)
    assert (read.value, read.rule) == ("\n".join(items), rule)


@pytest.mark.parametrize(
    ("text", "value", "rule"),
    [
        ('{"sentence": 10, "error": true}', {"error": True, "sentence": 10}, "json"),
        ('```json\n{"error": false}\n```', {"error": False}, "json"),
        ('It is {"error": {"a": 1}} I think', {"error": {"a": 1}}, "json_in_text"),
        ('\\boxed{{"error": true}}', {"error": True}, "json"),
        ('<think>{"error": 1}</think>{"error": 2}', {"error": 2}, "json"),
        ('{"error": 1} or {"error": 2}', None, "conflict"),
        ("{error: 1}", None, "invalid_json"),
        ('{"error": NaN}', None, "invalid_json"),
        ('{"error": 1, "error": 2}', None, "invalid_json"),
        ('{"outer": {"error": 1}, broken', None, "invalid_json"),
        ("there is no error", None, "invalid_json"),
    ],
)
def test_json_is_read_strictly(text, value, rule):
    read = extract(OBJECT, text)
    assert (None if read.value is None else json.loads(read.value), read.rule) == (value, rule)


# --- marking -------------------------------------------------------------------------------------------------


def test_label_scores_agree_with_scikit_learn():
    """The toy matrix whose macro F1 is .3333 or .8333 by zero_division; micro .6667, examples .4444 or .7778."""
    names = ("a", "b", "c", "d")
    truth = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    given = [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]

    def labels(row: list[int]) -> list[str]:
        return [name for name, held in zip(names, row, strict=True) if held] or ["none"]

    rows = marks(
        [
            (Question(kind="labels", answers=tuple(labels(t)), choices=names), "; ".join(labels(g)))
            for t, g in zip(truth, given, strict=True)
        ]
    )
    assert value_of("labels_micro_f1", rows) == pytest.approx(f1_score(truth, given, average="micro"), abs=1e-12)
    assert value_of("labels_macro_f1_zero", rows) == pytest.approx(1 / 3, abs=1e-12)
    assert value_of("labels_macro_f1_zero", rows) == pytest.approx(
        f1_score(truth, given, average="macro", zero_division=0), abs=1e-12
    )
    assert value_of("labels_macro_f1", rows) == pytest.approx(2 / 3, abs=1e-12)
    assert value_of("labels_example_f1", rows) == pytest.approx(7 / 9, abs=1e-12)
    assert value_of("labels_exact", rows) == pytest.approx(1 / 3)
    flags = [flag for row in rows for flag in row["flags"]]
    assert sorted(flag for flag in flags if "reference" in flag) == [
        "labels: class 'c' holds in no reference", "labels: class 'd' holds in no reference",
    ]  # fmt: skip
    assert any("by convention" in flag for flag in rows[2]["flags"])


def test_random_label_matrices_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    truth, given = (generator.integers(0, 2, (40, 6)) for _ in range(2))
    hits, invented, missed = truth & given, given & ~truth & 1, truth & ~given & 1
    per_class = np.stack([hits.sum(0), invented.sum(0), missed.sum(0)], axis=1).reshape(1, -1).astype(float)
    expected = f1_score(truth, given, average="macro")
    assert macro_f1(per_class)[0] == pytest.approx(expected) and macro_f1_zero(per_class)[0] == pytest.approx(expected)
    cells = np.array([[hits.sum(), invented.sum(), missed.sum()]], dtype=float)
    assert micro_f1(cells)[0] == pytest.approx(f1_score(truth, given, average="micro"))


def test_an_unread_answer_is_not_the_answer_none():
    rows = marks([(FINDINGS, "none"), (FINDINGS, "I cannot tell"), (FINDINGS, "")])
    assert [row["labels_exact"] for row in rows] == [1.0, 0.0, 0.0]
    assert [row["labels_example_f1"] for row in rows] == [1.0, 0.0, 0.0]


def test_entities_keep_articles_and_punctuation():
    assert entity_set("Vitamin A\n5-FU") == {"vitamin a", "5-fu"}
    rows = marks([(DRUGS, "ASPIRIN; vitamin a"), (DRUGS, "aspirin; vitamin"), (DRUGS, "")])
    assert [row["entity_exact"] for row in rows] == [1.0, 0.0, 0.0]
    assert rows[1]["entity_counts"] == [1.0, 1.0, 1.0] and rows[2]["entity_counts"] == [0.0, 0.0, 2.0]
    assert value_of("entity_micro_f1", rows) == pytest.approx(6 / (6 + 1 + 3))


def test_an_answer_without_entities_when_there_are_none():
    nothing = Question(kind="span", answers=("none",), topic=ENTITIES)
    rows = marks([(nothing, "none"), (nothing, "aspirin"), (nothing, "")])
    assert [row["entity_f1"] for row in rows] == [1.0, 0.0, 0.0]
    assert rows[0]["flags"] and not rows[1]["flags"] and not rows[2]["flags"]


def test_passages_are_marked_as_squad_does():
    question = Question(kind="span", answers=("left lower lung", "the left lung"))
    rows = marks([(question, '"Left lung."'), (question, "left lower"), (question, "")])
    assert [row["span_exact"] for row in rows] == [1.0, 0.0, 0.0]
    assert rows[1]["span_f1"] == pytest.approx(0.8)
    assert "entity_counts" not in rows[0]


def test_json_is_marked_field_by_field():
    rows = marks(
        [
            (OBJECT, '{"error": true, "sentence": 10}'),
            (OBJECT, '{"error": "yes", "sentence": "10"}'),
            (OBJECT, '{"error": true, "sentence": 9}'),
            (OBJECT, '{"error": true}'),
            (OBJECT, '{"error": true, "sentence": 10, "why": "x"}'),
            (OBJECT, "error: true"),
        ]
    )
    assert [row["json_fields"]["error"] for row in rows] == [1, 1, 1, 1, 1, 0]
    assert [row["json_fields"]["sentence"] for row in rows] == [1, 1, 0, 0, 1, 0]
    assert [row["json_exact"] for row in rows] == [1, 1, 0, 0, 0, 0]
    assert value_of("json_valid", rows) == pytest.approx(5 / 6)
    assert value_of("json_error_accuracy", rows) == pytest.approx(5 / 6)
    assert value_of("json_sentence_accuracy", rows) == pytest.approx(3 / 6)
    assert value_of("json_field_accuracy", rows) == pytest.approx(8 / 12)
    assert "json: field 'sentence' is missing" in rows[3]["flags"]
    assert "json: fields that were not asked for" in rows[4]["flags"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (10, "10", True), (10, 10.0, True), (True, "yes", True), (True, 1, False), (False, "no", True),
        (True, 1, False),
        (None, "null", False), ("Left  Lung", "left lung", True), (["a", "b"], ["B", "a"], True),
        (["a", "a"], ["a"], False),
        ({"x": 1}, {"x": "1"}, True), ({"x": 1}, {"x": 1, "y": 2}, False), ([{"x": 1}], [{"x": "1"}], True),
        (-1, 1, False), ("none", None, False),
    ],
)  # fmt: skip
def test_json_values_say_the_same(one, other, same):
    assert same_value(one, other) is same


@pytest.mark.parametrize("question", [FINDINGS, DRUGS, OBJECT, Question(kind="span", answers=("a passage",))])
def test_the_reference_reads_as_itself(question):
    row = marks([(question, reference_of(question))])[0]
    exact = next(value for key, value in row.items() if key.endswith("_exact"))
    assert exact == 1.0
