"""Scores against golden values of the libraries, and the labeller against sentences."""

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from medvlm.data_recipes.sample import Question
from medvlm.eval.scorers.findings import absent, count_findings, positives
from medvlm.eval.scorers.labeller import Finding, label
from medvlm.eval.scorers.lexicon import kind_named
from medvlm.eval.scorers.report_text import bleu_of, bleu_statistics, rouge_l, without_labels
from medvlm.eval.scorers.short_answer import exact_match, token_f1

# (hypothesis, reference, sacrebleu sentence BLEU lower case, rouge-score ROUGE-L F1), from the two libraries themselves
GOLDEN = [
    ("heart size is normal . no pleural effusion .", "heart size is normal . no pleural effusion .", 100.0, 1.0),
    (
        "The heart is enlarged. There is a small left pleural effusion.",
        "Heart size is normal. There is a small left pleural effusion. No pneumothorax.",
        54.0856,
        0.75,
    ),
    ("No acute cardiopulmonary abnormality.", "There is no acute cardiopulmonary process.", 28.6419, 0.6),
    ("Pleural effusion.", "No pleural effusion.", 71.6531, 0.8),
    ("", "No acute disease.", 0.0, 0.0),
    ("pneumonia", "right lower lobe pneumonia", 4.9787, 0.4),
    ("lung lung lung lung", "left lung", 15.9736, 0.333333),
    (
        "Findings: The lungs are clear. Impression: Normal chest.",
        "Findings: Low lung volumes. No focal consolidation. Impression: No acute disease.",
        11.8875,
        0.210526,
    ),
    (
        "Opacities in both lungs, left > right; 3.5 cm mass (RUL).",
        "Bilateral opacities, left greater than right. 3.5-cm mass in the right upper lobe.",
        7.4763,
        0.538462,
    ),
    (
        "Liver is normal. Spleen is normal. Kidneys are normal.",
        "The liver, spleen and kidneys are normal.",
        23.4624,
        0.625,
    ),
]


@pytest.mark.parametrize(("answer", "reference", "bleu", "rouge"), GOLDEN)
def test_golden_sentences(answer, reference, bleu, rouge):
    assert 100 * bleu_of(bleu_statistics(answer, [reference])) == pytest.approx(bleu, abs=1e-3)
    assert rouge_l(answer, [reference]) == pytest.approx(rouge, abs=1e-6)


def test_summed_statistics_are_corpus_bleu():
    sums = np.sum([bleu_statistics(h, [r]) for h, r, *_ in GOLDEN], axis=0)
    assert sums[:2].tolist() == [75, 89]
    assert bleu_of(sums) == pytest.approx(0.3269, abs=5e-5)
    for order in (1, 2, 3):
        library = BLEU(lowercase=True, max_ngram_order=order)
        expected = library.corpus_score([h for h, *_ in GOLDEN], [[r for _, r, *_ in GOLDEN]]).score
        assert 100 * bleu_of(sums, order) == pytest.approx(expected, abs=1e-9)


def test_section_labels_are_removed():
    assert without_labels("Findings: Clear.\nImpression: Normal.") == "Clear. Normal."


def test_short_answers():
    assert token_f1("left lung", ["left lower lung"]) == pytest.approx(0.8)
    assert token_f1("lung lung lung", ["left lung"]) == pytest.approx(0.4)  # multisets: one match of 3 + 2
    assert token_f1("", ["left"]) == 0.0 and exact_match("", ["the"]) == 0.0
    assert exact_match("The Left lung.", ["x", "left lung"]) == 1.0
    assert exact_match("left", ["left lung"]) == 0.0
    assert token_f1("left lung", ["right", "left lung"]) == 1.0


L, R, B = "left", "right", "bilateral"
SENTENCES = [
    ("There is a 25 mm nodule in the left upper zone.", {("nodule", L, True)}),
    ("There are 3 nodules in the right lower zone.", {("nodule", R, True)}),
    ("There is a moderate right pleural effusion.", {("pleural effusion", R, True)}),
    ("There is a 60 mm mass in the left middle zone.", {("mass", L, True)}),
    ("There is consolidation in the right upper zone.", {("consolidation", R, True)}),
    ("Right upper zone consolidation.", {("consolidation", R, True)}),
    ("No pneumothorax.", {("pneumothorax", None, False)}),
    ("The heart is severely enlarged.", {("cardiomegaly", None, True)}),
    ("The heart is mildly enlarged.", {("cardiomegaly", None, True)}),
    ("Severe cardiomegaly.", {("cardiomegaly", None, True)}),
    ("The heart is not enlarged.", {("cardiomegaly", None, False)}),
    ("Heart size is normal.", {("cardiomegaly", None, False)}),
    ("heart size is normal", {("cardiomegaly", None, False)}),
    ("The heart, vessels and mediastinum are within normal limits.", {("cardiomegaly", None, False)}),
    ("The cardiac silhouette is abnormal.", set()),
    ("Heart size is at the upper limits of normal.", {("cardiomegaly", None, None)}),
    ("No cardiomegaly.", {("cardiomegaly", None, False)}),
    ("No pleural effusion or pneumothorax.", {("pleural effusion", None, False), ("pneumothorax", None, False)}),
    (
        "No focal consolidation, large pleural effusion, or pneumothorax.",
        {("consolidation", None, False), ("pleural effusion", None, False), ("pneumothorax", None, False)},
    ),
    ("No pleural or pericardial effusion.", {("pleural effusion", None, False), ("pericardial effusion", None, False)}),
    ("Nodule, mass or fracture is not seen.", {(k, None, False) for k in ("nodule", "mass", "fracture")}),
    ("The effusion has resolved.", {("pleural effusion", None, False)}),
    ("Lungs are clear without mass or edema.", {("mass", None, False), ("edema", None, False)}),
    ("Left pleural effusion and right pneumothorax.", {("pleural effusion", L, True), ("pneumothorax", R, True)}),
    ("Opacity in the left lung and right pleural effusion.", {("opacity", L, True), ("pleural effusion", R, True)}),
    ("Nodule and consolidation in the right lower lobe.", {("nodule", R, True), ("consolidation", R, True)}),
    ("Nodules in the left upper zone and right lower zone.", {("nodule", L, True), ("nodule", R, True)}),
    ("Bilateral pleural effusions.", {("pleural effusion", B, True)}),
    ("Left and right pleural effusions.", {("pleural effusion", B, True)}),
    ("Bibasilar atelectasis.", {("atelectasis", B, True)}),
    ("Ground-glass opacities in both lungs.", {("ground-glass opacity", B, True)}),
    ("3.5 cm mass (RUL).", {("mass", R, True)}),
    ("Possible left lower lobe consolidation.", {("consolidation", L, None)}),
    ("Pneumothorax cannot be excluded.", {("pneumothorax", None, None)}),
    ("There is a nodule without calcification on the left.", {("nodule", L, True)}),
    ("No change in the left nodule.", {("nodule", L, True)}),
    ("No other nodule.", set()),
    ("No mass effect.", set()),
    ("Motion is reduced.", {("reduced motion", None, True)}),
    ("Wall motion is severely reduced.", {("reduced motion", None, True)}),
    ("Motion is normal.", {("reduced motion", None, False)}),
    ("Motion is not reduced.", {("reduced motion", None, False)}),
    ("There is a pericardial effusion.", {("pericardial effusion", None, True)}),
    ("The liver is enlarged and the bowel gas is normal.", set()),
    ("", set()),
]


@pytest.mark.parametrize(("sentence", "expected"), SENTENCES)
def test_labeller(sentence, expected):
    assert {(f.kind, f.side, f.present) for f in label(sentence)} == expected


@pytest.mark.parametrize(
    ("sentence", "present", "denied"),
    [
        ("No pneumothorax, small left pleural effusion.", {("pleural effusion", L)}, {"pneumothorax"}),
        ("There is no pneumothorax but there is a left effusion.", {("pleural effusion", L)}, {"pneumothorax"}),
        ("No effusion on the right. Small left effusion.", {("pleural effusion", L)}, set()),
        ("Bilateral effusions.", {("pleural effusion", L), ("pleural effusion", R)}, set()),
        ("There is a mass. The mass is in the left lung.", {("mass", L)}, set()),
    ],
)
def test_positive_and_absent(sentence, present, denied):
    assert positives(label(sentence)) == present and absent(label(sentence)) == denied


def test_impression_does_not_count_twice():
    report = (
        "Findings: There is a 25 mm nodule in the left upper zone. No pneumothorax. Impression: Left upper zone nodule."
    )
    assert label(report) == {
        Finding(kind="nodule", side="left", present=True),
        Finding(kind="pneumothorax", side=None, present=False),
    }


def test_finding_counts_by_hand():
    question = Question(
        kind="report",
        answers=("There is a left nodule. There is a right effusion. No pneumothorax. No mass.",),
        findings=(
            {"kind": "nodule", "side": "left", "present": True},
            {"kind": "pleural_effusion", "side": "right", "present": True},
            {"kind": "pneumothorax", "side": None, "present": False},
            {"kind": "mass", "side": None, "present": False},
            {"kind": "unheard of", "side": None, "present": True},
        ),
    )
    counts = count_findings(question, "Left nodule. Left pleural effusion. Severe cardiomegaly. No mass.")
    assert (counts.hits, counts.invented, counts.missed) == (1, 2, 1)
    assert (counts.negations_kept, counts.negations) == (1, 2)
    assert counts.unknown_kinds == ("unheard of",) and counts.reference == "manifest"
    silent = count_findings(question, "")
    assert (silent.hits, silent.invented, silent.missed, silent.negations_kept) == (0, 0, 2, 0)
    from_text = Question(kind="report", answers=question.answers)
    perfect = count_findings(from_text, question.answers[0])
    assert (perfect.hits, perfect.invented, perfect.missed, perfect.reference) == (2, 0, 0, "labelled text")
    assert perfect.negations_kept == perfect.negations == 2


def test_kind_names():
    assert kind_named("Pleural_Effusion") == "pleural effusion" and kind_named("zebra") is None
