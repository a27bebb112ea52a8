"""The labels of CheXpert by rules: made-up sentences, each a way in which reports deny, doubt, compare or remember."""

import time

import pytest

from medvlm.data_recipes.sample import Question
from medvlm.eval.scorers.chexpert_labels import LABELS, present_in, reference_states, states_of
from medvlm.eval.scorers.finding_terms import BESIDE, FINDINGS, NAMES
from medvlm.eval.scorers.labeller import label, statements
from medvlm.eval.scorers.lexicon import FINDING_OF_KIND, TERMS, kind_named
from medvlm.eval.scorers.report_sentences import sentences

SHORT = {
    "EC": "Enlarged Cardiomediastinum", "CM": "Cardiomegaly", "LO": "Lung Opacity", "LL": "Lung Lesion", "ED": "Edema",
    "CO": "Consolidation", "PN": "Pneumonia", "AT": "Atelectasis", "PX": "Pneumothorax", "PE": "Pleural Effusion",
    "PO": "Pleural Other", "FX": "Fracture", "SD": "Support Devices", "NF": "No Finding",
}  # fmt: skip

REPORTS = [
    # each of the 14
    ("Widened mediastinum.", "EC+"),
    ("The mediastinum is mildly prominent.", "EC+"),
    ("The cardiomediastinal silhouette is enlarged.", "EC+ CM+"),
    ("The cardiomediastinal silhouette is normal.", "EC- CM- NF+"),
    ("Moderate cardiomegaly.", "CM+"),
    ("Normal heart size.", "CM- NF+"),
    ("The heart size is mildly enlarged.", "CM+"),
    ("The heart is not enlarged.", "CM- NF+"),
    ("The heart is borderline enlarged.", "CM?"),
    ("Patchy opacities at the left base.", "LO+"),
    ("Increased interstitial markings.", "LO+"),
    ("Bibasilar airspace disease.", "LO+"),
    ("Linear scarring in the lingula.", "LO+"),
    ("A 6 mm nodule in the right upper lobe.", "LL+"),
    ("Mass-like density in the left hilum.", "LL+"),
    ("There is a mass in the liver.", "NF+"),
    ("Mild pulmonary edema.", "ED+"),
    ("Pulmonary vascular congestion.", "ED+"),
    ("Right lower lobe consolidation.", "CO+"),
    ("Right lower lobe pneumonia.", "PN+"),
    ("Collapse of the left lower lobe.", "AT+"),
    ("Bibasilar atelectasis.", "AT+"),
    ("Small apical pneumothorax.", "PX+"),
    ("Trace left effusion.", "PE+"),
    ("Knee effusion.", "NF+"),
    ("Biapical pleural thickening.", "PO+"),
    ("Healed left rib fractures.", "FX+"),
    ("Left PICC line with its tip in the SVC.", "SD+ NF+"),
    ("Endotracheal tube and right chest tube in place.", "SD+ NF+"),
    ("Surgical clips in the right upper quadrant.", "NF+"),
    # negation: lists, "or", reach, after the finding
    ("No pleural effusion, pneumothorax, or consolidation.", "PE- PX- CO- NF+"),
    ("No focal consolidation, large effusion, or pneumothorax is seen.", "CO- PE- PX- NF+"),
    ("The lungs are free of focal airspace disease.", "LO- NF+"),
    ("Lungs are clear without edema.", "ED- NF+"),
    ("Negative for pneumothorax or fracture.", "PX- FX- NF+"),
    ("Pneumothorax is not seen.", "PX- NF+"),
    ("Neither effusion nor pneumothorax.", "PE- PX- NF+"),
    ("No pneumothorax, small left effusion.", "PX- PE+"),
    ("No evidence of pneumonia but a small effusion is present.", "PN- PE+"),
    ("There is no opacity to suggest pneumonia.", "LO- PN- NF+"),
    ("Consolidation without effusion.", "CO+ PE-"),
    ("Cardiomegaly with no edema.", "CM+ ED-"),
    ("Interval removal of the left chest tube.", "SD- NF+"),
    # what looks like a negation
    ("No change in the left effusion.", "PE+"),
    ("No significant interval change in the right pneumothorax.", "PX+"),
    ("Not only an effusion but also a pneumothorax.", "PE+ PX+"),
    ("The effusion has not resolved.", "PE+"),
    ("The effusion is not without complexity.", "PE+"),
    ("The chest is not without an effusion.", "PE+"),
    ("No additional nodule.", "NF+"),
    ("No mass effect.", "NF+"),
    # resolved
    ("The effusion has resolved.", "PE- NF+"),
    ("Resolved interstitial edema.", "ED- NF+"),
    ("Interval resolution of the left pneumothorax.", "PX- NF+"),
    ("Resolving right basilar pneumonia.", "PN+"),
    ("Partially resolved effusion.", "PE+"),
    # doubt
    ("Possible right pneumothorax.", "PX?"),
    ("This may represent pneumonia.", "PN?"),
    ("Opacity which could be atelectasis.", "LO? AT?"),
    ("Atelectasis versus pneumonia at the left base.", "AT? PN?"),
    ("Scarring or atelectasis in the left base.", "LO? AT?"),
    ("Pneumonia cannot be excluded.", "PN?"),
    ("Repeat film to exclude pneumonia.", "PN?"),
    ("Opacity. This is consistent with pneumonia.", "LO+ PN+"),
    ("Suspicious for a nodule.", "LL?"),
    ("Questionable small effusion. Definite effusion on the lateral view.", "PE+"),
    ("No effusion on the right. Possible effusion on the left.", "PE?"),
    ("No effusion on the right. Effusion on the left.", "PE+"),
    ("Opacity, possibly cyst, scarring, or pneumonia.", "LO+ PN?"),
    ("The differential includes infection, aspiration, pulmonary edema.", "PN? ED?"),
    ("Possible pneumonia, small left effusion.", "PN? PE+"),
    # normal, said of something else
    ("Overlying cardiac monitor leads, normal size of the heart.", "SD+ NF+"),
    ("Pulmonary vascular congestion is not evident, vasculature is normal.", "ED- NF+"),
    ("Prosthetic right humeral head.", "SD+ NF+"),
    # history
    ("History of pneumonia.", "NF+"),
    ("Status post pneumonia, lungs are clear.", "NF+"),
    ("Prior rib fracture.", "FX+"),
    ("Status post pacemaker placement.", "SD+ NF+"),
    ("Compared with the prior exam, the effusion is larger.", "PE+"),
    ("Compared to prior radiograph pneumothorax is unchanged.", "PX+"),
    ("The previous effusion has increased.", "PE+"),
    ("Prior granulomatous infection.", "NF+"),
    ("Indication: rule out pneumonia. Findings: Clear lungs.", "NF+"),
    ("INDICATION: pneumothorax\nFINDINGS: Heart size is normal.\nIMPRESSION: Small effusion.", "CM- PE+"),
    ("Comparison: none. Small effusion.", "PE+"),
    # nothing
    ("", ""),
    ("Normal chest.", "NF+"),
    ("No acute cardiopulmonary abnormality.", "NF+"),
]


def _expected(short: str) -> dict[str, str]:
    return {SHORT[part[:-1]]: part[-1] for part in short.split()}


@pytest.mark.parametrize(("report", "short"), REPORTS)
def test_labels_of_chexpert(report, short):
    found = {name: state for name, state in zip(LABELS, states_of(report), strict=True) if state != "."}
    assert found == _expected(short)


@pytest.mark.parametrize(
    ("report", "kind", "sides"),
    [
        ("Left pleural effusion and right pneumothorax.", "pleural effusion", ("left",)),
        ("Left pleural effusion and right pneumothorax.", "pneumothorax", ("right",)),
        ("Consolidation in the RLL.", "consolidation", ("right",)),
        ("Right IJ catheter. Small effusion.", "pleural effusion", ()),
        ("Left subclavian central line, tip in the SVC.", "support device", ("left",)),
        ("Healed fracture of the left 7th rib.", "fracture", ("left",)),
        ("Bilateral effusions, right greater than left.", "pleural effusion", ("bilateral",)),
        ("Left ventricular enlargement with effusion.", "pleural effusion", ()),
    ],
)
def test_sides(report, kind, sides):
    assert [one.sides for one in statements(report) if one.kind == kind] == [sides]


def test_quick_needs_hide_nothing():
    """Leaving a term out because none of its stems stands in the sentence must never change a label."""
    texts = [sentence for report, _ in REPORTS for sentence in sentences(report)]
    for term in (*TERMS, *BESIDE):
        for text in texts:
            if term.pattern.search(text):
                assert any(need in text for need in term.needs), (term.pattern.pattern, text)


def test_every_finding_can_be_found_and_named():
    assert {term.finding for term in (*NAMES, *BESIDE)} - {None} == set(FINDINGS)
    seen = {part[:-1] for _, short in REPORTS for part in short.split() if part[-1] == "+"}
    assert seen == set(SHORT), "REPORTS holds an example of each"
    for name in FINDINGS:
        kind = kind_named(name)
        assert kind is not None and FINDING_OF_KIND[kind] == name


def test_reference_from_the_manifest():
    findings = (
        {"kind": "pleural_effusion", "side": "left", "present": True},
        {"kind": "edema", "present": None},
        {"kind": "pneumothorax", "present": False},
        {"kind": "unheard of", "present": True},
    )
    states = reference_states(Question(kind="report", answers=("Normal.",), findings=findings))
    assert {n: s for n, s in zip(LABELS, states, strict=True) if s != "."} == _expected("PE+ ED? PX-")
    assert present_in(states, doubt=False) == {"Pleural Effusion"}
    assert present_in(states, doubt=True) == {"Pleural Effusion", "Edema"}
    healthy = ({"kind": "pneumothorax", "present": False},)
    states = reference_states(Question(kind="report", answers=("x",), findings=healthy))
    assert present_in(states, doubt=True) == {"No Finding"}


def test_thousands_of_reports_are_labelled_in_seconds():
    """New text each time, so that nothing is looked up; the bound is generous: another process may use this core."""
    reports = [
        f"The heart is mildly enlarged, case {n}. No focal consolidation, effusion {n}, or pneumothorax is seen. "
        f"There is a {n} mm nodule in the right upper lobe, unchanged. Possible atelectasis {n} at the left base."
        for n in range(2000)
    ]
    start = time.process_time()
    for report in reports:
        label(report)
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("There is no\npleural effusion.", {("pleural effusion", False)}),
        ("NO EVIDENCE\nOF PULMONARY EDEMA.", {("edema", False)}),
        ("No pneumothorax, pleural effusion or other acute abnormality of the\nChest. Left nodule.",
         {("pneumothorax", False), ("pleural effusion", False), ("nodule", True)}),
        ("No effusion\nSmall left nodule", {("pleural effusion", False), ("nodule", True)}),
        ("No pneumothorax\n\nLeft effusion", {("pneumothorax", False), ("pleural effusion", True)}),
        ("No effusion\n- Left nodule", {("pleural effusion", False), ("nodule", True)}),
    ],
)  # fmt: skip
def test_wrapped_lines_are_one_sentence_and_items_of_a_list_are_not(report, expected):
    assert {(found.kind, found.present) for found in label(report)} == expected


def test_an_enlarged_heart_is_not_made_normal_by_what_follows():
    found = label("The heart size is enlarged, the mediastinal contours are unremarkable.")
    assert [one.present for one in found if one.kind == "cardiomegaly"] == [True]
