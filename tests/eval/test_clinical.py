"""Tier B scores of reports: every figure worked out by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from medvlm.data_recipes.sample import Question, Sample, Turn
from medvlm.eval.metric import Answered
from medvlm.eval.plan import Item
from medvlm.eval.scorers import change_words, chexpert_scores
from medvlm.eval.scorers.change_words import changes
from medvlm.eval.scorers.chexpert_labels import LABELS, states_of
from medvlm.eval.scorers.clinical import SCORERS
from medvlm.eval.scorers.finding_terms import FINDINGS
from medvlm.eval.scorers.measurements import Measurement, matched, measurements
from medvlm.eval.scorers.report_details import sides_of
from medvlm.eval.scorers.report_fields import fields
from medvlm.eval.scorers.severity import grades


def answered(reference: str, written: str, **question) -> Answered:
    asked = Question(kind="report", answers=(reference,), **question)
    turns = (Turn(role="user", content=("Write the report.",)),)
    sample = Sample(
        sample_id="1", patient_id="1", study_id="1", source="made-up", licence="CC0-1.0", split="test", turns=turns,
        question=asked,
    )  # fmt: skip
    return Answered(
        item=Item(sample=sample, manifest="made-up.jsonl"),  # type: ignore[arg-type]
        question=asked, prompt="Write the report.", condition="image", written=written, value=written or None,
    )  # fmt: skip


def marks(pairs: list[tuple[str, str]]) -> list[dict]:
    rows: list[dict] = [{"flags": []} for _ in pairs]
    answers = [answered(reference, written) for reference, written in pairs]
    for scorer in SCORERS:
        for row, mark in zip(rows, scorer.score(answers), strict=True):
            if mark is not None:
                assert not (row.keys() & mark.keys()) - {"flags"}, "no two scorers share a key"
                row["flags"] += mark["flags"]
                row |= {key: value for key, value in mark.items() if key != "flags"}
    return json.loads(json.dumps(rows))


def value(name: str, rows: list[dict]) -> float | None:
    metric = next(metric for scorer in SCORERS for metric in scorer.metrics if metric.name == name)
    counts = [count for count in metric.counts(rows) if count is not None]
    if not counts:
        return None
    found = float(metric.value(np.array(counts, dtype=float).sum(axis=0, keepdims=True))[0])
    return None if np.isnan(found) else found


def test_metric_names_are_unique_and_perfect_reports_are_perfect():
    names = [metric.name for scorer in SCORERS for metric in scorer.metrics]
    assert len(names) == len(set(names))
    report = (
        "Mild cardiomegaly. Small left effusion, increased since the prior study. A 6 mm nodule in the right upper "
        "lobe. No pneumothorax."
    )
    rows = marks([(report, report)])
    for scorer in SCORERS:
        for metric in scorer.metrics:
            if metric.better == "higher" and value(metric.name, rows) is not None:
                assert value(metric.name, rows) == 1.0, metric.name
            if metric.better == "lower" and value(metric.name, rows) is not None:
                assert value(metric.name, rows) == 0.0, metric.name
    assert value("change_f1", rows) == value("measurement_f1", rows) == value("side_right", rows) == 1.0
    assert value("severity_right", rows) == 1.0 and value("field_accuracy", rows) is None


PAIRS = [
    ("Cardiomegaly. Left effusion.", "Cardiomegaly. Pneumothorax."),  # hit CM, invented PX, missed PE
    ("No effusion. Possible pneumonia.", "Effusion. Pneumonia."),  # invented PE (a flip) and PN, which was in doubt
    ("Normal chest.", "Normal chest."),
    ("Edema.", ""),  # missed ED
]


def test_labels_by_hand():
    rows = marks(PAIRS)
    # doubt is absent: hits CM 1; invented PX, PE, PN; missed PE, ED
    assert value("chexpert_13_micro_f1", rows) == pytest.approx(2 * 1 / (2 * 1 + 3 + 2))
    # the references have CM (F1 1), PE (0 hits, 1 invented, 1 missed: 0) and ED (0)
    assert value("chexpert_13_macro_f1", rows) == pytest.approx(1 / 3)
    assert value("chexpert_classes", rows) == 3
    assert value("chexpert_5_macro_f1", rows) == pytest.approx(1 / 3)
    assert value("chexpert_precision", rows) == pytest.approx(1 / 4)
    assert value("chexpert_recall", rows) == pytest.approx(1 / 3)
    # doubt is present: pneumonia of the second becomes a hit
    assert value("chexpert_13_micro_f1_doubt_present", rows) == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    assert value("chexpert_13_macro_f1_doubt_present", rows) == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert value("f1_cardiomegaly", rows) == 1.0 and value("f1_edema", rows) == 0.0
    assert value("f1_pneumothorax", rows) is None, "absent from the references: no F1, even though it was invented"
    # No Finding is present in the third reference and in the third answer; the blank answer states nothing
    assert value("f1_no_finding", rows) == 1.0
    assert value("chexpert_14_micro_f1", rows) == pytest.approx(2 * 2 / (2 * 2 + 3 + 2))


def test_invented_findings_and_flips():
    rows = marks(PAIRS)
    # stated: CM, PX, PE, PN; invented: PX and PE (pneumonia was in doubt)
    assert value("chair_i", rows) == pytest.approx(2 / 4) and value("chair_s", rows) == pytest.approx(2 / 4)
    # stated by both as present or absent: CM of the first, PE of the second
    assert value("negation_flips", rows) == pytest.approx(1 / 2)
    assert value("absent_called_present", rows) == 1.0 and value("present_called_absent", rows) == 0.0
    silent = marks([("Edema.", "")])
    assert value("chair_s", silent) == 0.0 and value("chexpert_recall", silent) == 0.0
    assert "the answer states none of the findings" in silent[0]["flags"]
    assert "the reference states none of the findings" in marks([("Normal chest.", "Edema.")])[0]["flags"]


def test_micro_and_macro_are_those_of_scikit_learn():
    """On labels drawn at random; macro over the classes that the references have."""
    generator = np.random.default_rng(0)
    rows = [
        {"chexpert": {"written": "".join(w), "reference": "".join(r)}}
        for w, r in zip(
            generator.choice(list("+-?."), (60, len(LABELS))),
            generator.choice(list("+-?."), (60, len(LABELS))),
            strict=True,
        )
    ]
    for row in rows:  # one class that no reference has
        row["chexpert"]["reference"] = "." + row["chexpert"]["reference"][1:]
    for doubt, suffix in ((False, ""), (True, "_doubt_present")):
        wanted = "+?" if doubt else "+"
        true, said = (
            np.array([[state in wanted for state in row["chexpert"][key][: len(FINDINGS)]] for row in rows])
            for key in ("reference", "written")
        )
        assert value(f"chexpert_13_micro_f1{suffix}", rows) == pytest.approx(f1_score(true, said, average="micro"))
        expected = f1_score(true[:, 1:], said[:, 1:], average="macro")
        assert value(f"chexpert_13_macro_f1{suffix}", rows) == pytest.approx(expected)
    assert value("chexpert_classes", rows) == 12


def test_values_of_many_resamples_at_once():
    """(B, K) -> (B,), each row as if it were alone."""
    counts = np.array(chexpert_scores.cells(FINDINGS, doubt=False)(marks(PAIRS)), dtype=float)
    weights = np.random.default_rng(1).multinomial(4, [0.25] * 4, size=50)
    for statistic in (chexpert_scores.micro, chexpert_scores.macro, chexpert_scores.classes):
        together = statistic(weights @ counts)
        alone = np.array([statistic((row @ counts)[None])[0] for row in weights])
        np.testing.assert_allclose(together, alone)
    assert np.isnan(chexpert_scores.macro(np.zeros((1, 39)))[0])


def test_reference_from_the_manifest():
    finding = {"kind": "edema", "side": None, "present": True}
    rows = chexpert_scores.SCORER.score([answered("Words that name nothing.", "Edema.", findings=(finding,))])
    assert value("chexpert_13_micro_f1", rows) == 1.0


@pytest.mark.parametrize(
    ("reference", "written", "right", "flipped", "unsaid"),
    [
        ("Left effusion.", "Left effusion.", 1, 0, 0),
        ("Left effusion.", "Right effusion.", 0, 1, 0),
        ("Left effusion.", "An effusion.", 0, 0, 1),
        ("Left effusion.", "Bilateral effusions.", 0, 0, 0),
        ("Left effusion.", "No effusion.", None, None, None),
        ("An effusion.", "Left effusion.", None, None, None),
        ("Left effusion. Right effusion.", "Bilateral effusions.", 1, 0, 0),
        ("Left effusion, right pneumothorax.", "Left effusion, left pneumothorax.", 0.5, 0.5, 0),
    ],
)
def test_sides(reference, written, right, flipped, unsaid):
    rows = marks([(reference, written)])
    assert (value("side_right", rows), value("side_flipped", rows), value("side_unsaid", rows)) == (
        right,
        flipped,
        unsaid,
    )


def test_sides_of_the_heart_are_none():
    assert sides_of("Left heart enlarged. Cardiomegaly.") == {"Cardiomegaly": frozenset()}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("Small left effusion.", {"Pleural Effusion": 2}),
        ("The effusion is large.", {"Pleural Effusion": 4}),
        ("The heart is mildly enlarged.", {"Cardiomegaly": 2}),
        ("Mild to moderate edema.", {"Edema": 2.5}),
        ("Large mass, trace effusion.", {"Lung Lesion": 4, "Pleural Effusion": 1}),
        ("Large mass and effusion.", {"Lung Lesion": 4, "Pleural Effusion": None}),
        ("Effusion. Moderate effusion.", {"Pleural Effusion": 3}),
        ("No large effusion.", {}),
    ],
)
def test_grades(report, expected):
    assert grades(report) == expected


def test_severity_by_hand():
    rows = marks(
        [
            ("Small effusion. Severe edema.", "Large effusion. Edema."),  # 2 apart; unsaid
            ("Moderate cardiomegaly.", "Moderate cardiomegaly."),
            ("Edema.", "Mild edema."),  # the reference grades nothing
        ]
    )
    assert value("severity_right", rows) == pytest.approx(1 / 3)
    assert value("severity_apart", rows) == pytest.approx((2 + 0) / 2)
    assert any("graded" in flag for flag in rows[2]["flags"])


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("A 25 mm nodule.", [(25, "mm", "Lung Lesion", False)]),
        ("A 3.5-cm mass.", [(35, "mm", "Lung Lesion", False)]),
        ("Nodule of 2.2 x 1.6 cm.", [(22, "mm", "Lung Lesion", False), (16, "mm", "Lung Lesion", False)]),
        ("A 6 mm nodule, previously 4 mm.", [(6, "mm", "Lung Lesion", False), (4, "mm", "Lung Lesion", True)]),
        ("Three nodules in the right lung.", [(3, "count", "Lung Lesion", False)]),
        ("There are 2 calcified nodules.", [(2, "count", "Lung Lesion", False)]),
        ("A mass.", []),
        ("Effusion of 1,200 ml.", [(1200, "ml", "Pleural Effusion", False)]),
        ("Effusion of 1.5 liters.", [(1500, "ml", "Pleural Effusion", False)]),
        ("Tip 3,5 cm above the carina.", [(35, "mm", "", False)]),
        ("Ejection fraction of 55%. Mean of -20 HU.", [(55, "%", "", False), (-20, "HU", "", False)]),
        ("Fracture of T9 and the 7th rib in 2019.", []),
    ],
)
def test_measurements(report, expected):
    assert [(one.value, one.unit, one.finding, one.earlier) for one in measurements(report)] == expected


def test_measurements_are_paired_once_and_within_the_tolerance():
    rows = marks(
        [
            ("A 20 mm nodule.", "A 2.1 cm nodule."),  # a tenth of 20 is 2
            ("A 20 mm nodule.", "A 23 mm nodule."),
            ("A 5 mm nodule. A 5 mm mass.", "A 5 mm nodule."),  # one number is one number
            ("A 5 mm nodule.", "A 5 mm effusion."),
            ("Edema.", "Edema."),
        ]
    )
    # right: 1 + 0 + 1 + 0; invented: 1 + 1; missed: 1 + 1 + 1
    assert value("measurement_f1", rows) == pytest.approx(2 * 2 / (2 * 2 + 2 + 3))
    assert value("measurement_precision", rows) == pytest.approx(2 / 4)
    assert value("measurement_recall", rows) == pytest.approx(2 / 5)
    assert rows[4]["flags"].count("neither text has a measurement") == 1

    def number(size: float) -> Measurement:
        return Measurement(value=size, unit="mm", finding="", earlier=False)

    # 10.5 agrees with both, 9 with 10 alone: greedy pairing would lose one
    assert matched([number(10.5), number(9)], [number(10), number(11.5)]) == 2


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("The left effusion has increased.", {("Pleural Effusion", "worse")}),
        ("Effusion and consolidation have increased.", {("Pleural Effusion", "worse"), ("Consolidation", "worse")}),
        ("Decreased effusion.", set()),
        ("Interval decrease in the effusion.", {("Pleural Effusion", "improved")}),
        ("Improved edema, new consolidation.", {("Edema", "improved"), ("Consolidation", "new")}),
        ("No significant change in the effusion.", {("Pleural Effusion", "stable")}),
        ("The pneumothorax is unchanged.", {("Pneumothorax", "stable")}),
        ("The pneumothorax is not improved.", {("Pneumothorax", "stable")}),
        ("The pneumothorax has resolved.", {("Pneumothorax", "resolved")}),
        ("The pneumothorax has partially resolved.", {("Pneumothorax", "improved")}),
        ("No new effusion.", set()),
        ("New right effusion.", {("Pleural Effusion", "new")}),
        ("Effusions, right larger than left.", set()),
        ("The effusion is larger.", {("Pleural Effusion", "worse")}),
        ("Increased interstitial markings.", set()),
        ("No interval change.", {("study", "stable")}),
        ("Left effusion, unchanged.", {("Pleural Effusion", "stable")}),
        ("Left effusion, unchanged, and edema.", {("Pleural Effusion", "stable")}),
        ("Left effusion, unchanged edema.", {("Edema", "stable")}),
        ("Stable chest.", {("study", "stable")}),
        ("Hemodynamically stable patient.", set()),
        ("Edema.", set()),
    ],
)
def test_changes(report, expected):
    assert changes(report) == expected
    hit = any(pattern.search(report.lower()) for _, pattern in change_words.WORDS)
    assert not hit or any(stem in report.lower() for stem in change_words._STEMS), "the quick test hides nothing"


def test_changes_by_hand():
    rows = marks(
        [
            ("The effusion has increased. New edema.", "The effusion has decreased. New edema."),
            ("Edema.", "Edema."),  # no change in either: no perfect score
            ("Edema.", "Edema, unchanged."),
        ]
    )
    # right: edema new; invented: effusion improved, edema stable; missed: effusion worse
    assert value("change_f1", rows) == pytest.approx(2 / (2 + 2 + 1))
    assert value("change_reversed", rows) == 1.0
    assert "neither text states a change" in rows[1]["flags"]
    assert value("change_f1", rows[1:2]) is None
    metric = next(one for scorer in SCORERS for one in scorer.metrics if one.name == "change_f1")
    assert [count is None for count in metric.counts(rows)] == [False, True, False], "left out, and counted as such"
    assert value("change_f1", rows[2:]) == 0.0


TEMPLATE = "Lungs: clear\nHeart: mildly enlarged heart\nPleura: no effusion\nDevices: none"


def test_fields_of_a_template():
    assert fields(TEMPLATE) == {
        "lungs": "clear", "heart": "mildly enlarged heart", "pleura": "no effusion", "devices": "none",
    }  # fmt: skip
    nested = '```json\n{"Lungs": {"left": "clear", "right": ["nodule", "mass"]}, "Heart": null}\n```'
    assert fields(nested) == {"lungs.left": "clear", "lungs.right": "mass, nodule", "heart": ""}
    assert fields("Findings: clear lungs.\nImpression: normal.\nComparison: none.") is None
    assert fields("The lungs are clear.") is None and fields("[1, 2, 3]") is None


def test_fields_by_hand():
    answer = "- **Lungs:** Clear.\n- Heart: cardiomegaly\n- Pleura: effusion\n- Spleen: normal"
    rows = marks([(TEMPLATE, answer), (TEMPLATE, "All is normal."), ("Edema.", "Edema.")])
    # lungs same; heart says the same finding in other words; pleura wrong; devices missing; spleen not asked for
    assert value("field_accuracy", rows) == pytest.approx(1 / 8)
    assert value("field_agreement", rows) == pytest.approx(2 / 8)
    assert value("field_present", rows) == pytest.approx(3 / 8)
    assert value("field_invented", rows) == pytest.approx(1 / 4)
    assert "the answer is no template" in rows[1]["flags"] and "fields" not in rows[2]


def test_labels_are_kept_as_fourteen_letters():
    row = marks([("Cardiomegaly.", "Cardiomegaly.")])[0]
    assert row["chexpert"] == {"written": states_of("Cardiomegaly."), "reference": states_of("Cardiomegaly.")}
    assert len(row["chexpert"]["written"]) == 14
