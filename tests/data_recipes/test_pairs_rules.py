"""Text rules make one thing wrong, say what, and leave alone what they would make true; a part keeps every source."""

from __future__ import annotations

import re

import numpy as np
import pytest

from medvlm.data_recipes.box_text import read_box
from medvlm.data_recipes.grounding import iou
from medvlm.data_recipes.pairs.boxes import MOST_IOU, shifted_box
from medvlm.data_recipes.pairs.case import case_of
from medvlm.data_recipes.pairs.choices import other_choice
from medvlm.data_recipes.pairs.english import is_english, put, sentences
from medvlm.data_recipes.pairs.invention import invented_finding
from medvlm.data_recipes.pairs.negation import negation_flip, yes_no_flip
from medvlm.data_recipes.pairs.numbers import number_change
from medvlm.data_recipes.pairs.omission import omitted_finding
from medvlm.data_recipes.pairs.other_report import other_report
from medvlm.data_recipes.pairs.pool import Pool
from medvlm.data_recipes.pairs.rules import RULES, rule_pairs, text_pair
from medvlm.data_recipes.pairs.severity import severity_swap
from medvlm.data_recipes.pairs.sides import side_flip
from medvlm.data_recipes.sample import Sample, Turn, VisualRef, from_json, to_json
from medvlm.data_recipes.stratify import in_turn, spread


def a_sample(
    name: str,
    source: str = "a",
    answer: str = "yes",
    scan: str | None = None,
    prompt: str = "Write the report.",
    **metadata,
) -> Sample:
    shown = (VisualRef(kind="image", path=scan),) if scan else ()
    return Sample(
        sample_id=name,
        patient_id=name,
        study_id=name,
        source=source,
        licence="CC0-1.0",
        split="train",
        turns=(Turn(role="user", content=(*shown, prompt)), Turn(role="assistant", content=(answer,))),
        metadata={"topic": answer, **metadata},
    )


def a_pool(*answers: str) -> Pool:
    pool = Pool()
    for number, answer in enumerate(answers):
        case = case_of(a_sample(f"other{number}", answer=answer))
        assert case is not None
        pool.add(case.group, case.entry)
    return pool


def changed(
    rule, answer: str, prompt: str = "Write the report.", pool: Pool | None = None, seed: int = 0
) -> str | None:
    case = case_of(a_sample("s", answer=answer, prompt=prompt))
    assert case is not None
    change = rule(case, np.random.default_rng(seed), pool or Pool())
    return None if change is None else change.text


@pytest.mark.parametrize(
    ("rule", "answer", "wrong"),
    [
        (yes_no_flip, "Yes", "No"),
        (yes_no_flip, "no.", "yes."),
        (yes_no_flip, "no nodule", None),
        (side_flip, "Left lower lobe, left hilum", "Right lower lobe, right hilum"),
        (side_flip, "left and right", None),
        (side_flip, "The heart is all right", None),
        (side_flip, "in the right middle lobe", "in the lingula"),
        (side_flip, "bilateral, left more than that", None),
        (side_flip, "The left ventricle", None),
        (side_flip, "not in the left lung", None),
        (side_flip, "The left lung is clear.", None),
        (negation_flip, "There is a nodule.", "There is no nodule."),
        (negation_flip, "No effusion.", "There is an effusion."),
        (negation_flip, "There are no nodules.", "There are nodules."),
        (negation_flip, "No pleural effusions.", "There are pleural effusions."),
        (negation_flip, "The heart is not enlarged.", "The heart is enlarged."),
        (negation_flip, "A drain is seen.", "A drain is not seen."),
        (negation_flip, "The lungs are clear.", "The lungs are not clear."),
        (negation_flip, "The bones are unremarkable.", "The bones are abnormal."),
        (negation_flip, "No pneumothorax is seen.", "Pneumothorax is seen."),
        (negation_flip, "Pneumonia", None),
        (negation_flip, "There is no change in the nodule.", None),
        (negation_flip, "No definite pneumothorax.", None),
        (negation_flip, "No large effusion.", None),
        (negation_flip, "There may be a nodule.", None),
        (negation_flip, "CT with or without contrast", None),
        (severity_swap, "a mild effusion", "a severe effusion"),
        (severity_swap, "Small left effusion", None),
        (severity_swap, "an acute fracture", "a chronic fracture"),
        (severity_swap, "mild to moderate edema", None),
        (severity_swap, "small bowel obstruction", None),
        (severity_swap, "chronic obstructive pulmonary disease", None),
        (severity_swap, "No acute fracture", None),
        (severity_swap, "with an acute kyphosis", None),
        (severity_swap, "Chronic sinusitis vs. hemorrhage", None),
        (number_change, "L4/5", None),
        (number_change, "T2-weighted", None),
        (number_change, "less than 5 mm nodule", None),
        (number_change, "No nodule of 8 mm is seen.", None),
        (number_change, "CT with 5 mm slices shows a mass.", None),
        (number_change, "on 12.03.2019, aged 54, Gleason 7", None),
    ],
)
def test_rules(rule, answer, wrong) -> None:
    got = changed(rule, answer)
    if answer == "Small left effusion":
        assert got in ("Large left effusion", "Massive left effusion")
        return
    assert got == wrong


REPORT = (
    "Findings: There is a moderate left pleural effusion. No pneumothorax. The right lung is clear. "
    "Heart size is normal. "
    "A 12 mm nodule is in the right upper lobe. Impression: Moderate left pleural effusion. Right upper lobe nodule."
)


def test_a_side_is_flipped_wherever_the_finding_is_said_and_nowhere_else() -> None:
    seen = {changed(side_flip, REPORT, seed=seed) for seed in range(20)}
    effusion = REPORT.replace("left", "right")
    nodule = REPORT.replace("the right upper", "the left upper").replace("Right upper", "Left upper")
    assert seen == {effusion, nodule}, "the clear right lung may be as true on the left"


def test_a_finding_on_both_sides_keeps_them() -> None:
    for both in (
        "There is a left pleural effusion. There is a small right pleural effusion as well as it seems here.",
        "Bilateral pleural effusions, larger on the left, are again present in this study.",
        "The left lung is clear. No right pleural effusion or pneumothorax. Heart size is normal.",
    ):
        assert changed(side_flip, both) is None


def test_severity_and_numbers_change_in_findings_and_impression_alike() -> None:
    assert changed(severity_swap, REPORT) == REPORT.replace("moderate", "minimal").replace("Moderate", "Minimal")
    report = REPORT.replace("lobe nodule", "lobe nodule of 12 mm")
    wrong = changed(number_change, report)
    assert wrong is not None and wrong.count("12 mm") == 0
    (new,) = set(re.findall(r"(\d+) mm", wrong))
    assert (
        abs(int(new) - 12) >= 5
        and re.sub(r"\d+ mm", "12 mm", wrong).replace("an 12", "a 12").replace("An 12", "A 12") == report
    )


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        ("5.6cm focal", "How big?"),
        ("3.2 x 2.1 cm", "Size?"),
        ("50% stenosis", "?"),
        ("two nodules", "?"),
        ("4", "How many are there?"),
    ],
)
def test_numbers_change_enough_to_be_seen_and_keep_their_form(answer, prompt) -> None:
    for seed in range(20):
        wrong = changed(number_change, answer, prompt=f"{prompt} What is shown in the image?", seed=seed)
        assert wrong is not None and wrong != answer
        shape = re.sub(r"\d+(\.\d+)?", "#", answer)
        if answer != "two nodules":
            assert re.sub(r"\d+(\.\d+)?", "#", wrong) == shape
            old, new = (float(re.findall(r"\d+\.?\d*", text)[0]) for text in (answer, wrong))
            assert max(old, new) >= 1.5 * min(old, new)
    assert changed(number_change, "4", prompt="Which zone of the image is it?") is None


def test_an_omitted_finding_takes_its_impression_along_and_never_a_normal_sentence() -> None:
    report = REPORT + " Cardiomegaly is not seen."
    seen = {changed(omitted_finding, report, seed=seed) for seed in range(20)}
    assert seen == {
        report.replace("There is a moderate left pleural effusion. ", "").replace(
            "Moderate left pleural effusion. ", ""
        ),
        report.replace("A 12 mm nodule is in the right upper lobe. ", "").replace("Right upper lobe nodule. ", ""),
    }
    normal = "Findings: The lungs are clear. No pneumothorax or pleural effusion. Impression: No acute disease."
    assert changed(omitted_finding, normal) is None
    only = "Findings: There is a large pleural effusion on the left side. Impression: Large effusion."
    assert changed(omitted_finding, only) is None, "nothing would be left of the report"
    tied = "There is a right pleural effusion without pneumothorax. The heart is enlarged in this examination."
    assert changed(omitted_finding, tied) == "There is a right pleural effusion without pneumothorax."


NORMAL = "Findings: Heart size is normal. The lungs are clear. No pleural effusion. Impression: No acute disease."


def test_an_invented_finding_replaces_what_it_contradicts() -> None:
    wrong = changed(invented_finding, NORMAL, pool=a_pool("There is a nodule in the left upper lobe. No effusion."))
    assert wrong == (
        "Findings: Heart size is normal. There is a nodule in the left upper lobe. No pleural effusion. "
        "Impression: There is a nodule in the left upper lobe."
    )


@pytest.mark.parametrize(
    "other",
    [
        "There is a large right pleural effusion with fluid in the fissure.",  # the report denies it
        "The nodule in the left lung is unchanged since the prior study.",  # it refers to a prior
        "There may be a nodule in the left upper lobe of this patient.",  # it is in doubt
        "No nodule or mass is seen in the lungs of this patient.",  # it is a denial
        "Degenerative changes are seen in the lower thoracic spine here.",  # reports often leave it out
        "There is a XXXX nodule in the left upper lobe of this patient.",  # words were removed
        "There is a nodule in the left upper lobe without calcification.",  # it also denies
    ],
)
def test_what_must_not_be_invented(other) -> None:
    assert changed(invented_finding, NORMAL, pool=a_pool(other)) is None


def test_a_finding_of_another_word_is_no_invention() -> None:
    report = "There is an infiltrate in the right lower lobe. The heart is of normal size in this study."
    assert changed(invented_finding, report, pool=a_pool("There is consolidation in the left lower lobe.")) is None


def test_another_report_must_differ_in_what_it_asserts() -> None:
    normal = "The heart is normal. The lungs are clear. No effusion is seen in this study."
    assert changed(other_report, NORMAL, pool=a_pool(normal)) is None, "two normal reports are true of both"
    ill = "There is a large left pleural effusion. The heart is enlarged in this study."
    assert changed(other_report, NORMAL, pool=a_pool(normal, ill)) == ill
    assert changed(other_report, NORMAL, pool=a_pool(NORMAL)) is None


def test_nobody_is_his_own_other_patient() -> None:
    sample = a_sample("s", answer=NORMAL)
    pool = Pool()
    ill = case_of(
        Sample(
            **{**vars(a_sample("t", answer="There is a large left pleural effusion in this study.")), "patient_id": "s"}
        )
    )
    assert ill is not None
    pool.add(ill.group, ill.entry)
    assert not [
        pair for pair in rule_pairs(sample, pool) if pair.preference.made_by in ("other_report", "invented_finding")
    ]


OPTIONS = "Which?\nA. left lung\nB. right lung\nC. heart\nAnswer with the letter."


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("B", r"[AC]"),
        ("B.", r"[AC]\."),
        ("(B)", r"\([AC]\)"),
        ("B. right lung", r"A\. left lung|C\. heart"),
        ("heart", "left lung|right lung"),
    ],
)
def test_another_letter_in_the_form_of_the_answer(answer, form) -> None:
    for seed in range(8):
        wrong = changed(other_choice, answer, prompt=OPTIONS, seed=seed)
        assert wrong is not None and re.fullmatch(form, wrong)


def test_letters_that_cannot_be_exchanged() -> None:
    assert changed(other_choice, "C", prompt="Which?\nA. left\nB. right\nC. all of the above") is None
    assert changed(other_choice, "A", prompt="Which?\nA. left\nB. Left.") is None
    assert changed(other_choice, "D", prompt=OPTIONS) is None
    assert changed(other_choice, "B. heart", prompt=OPTIONS) is None, "letter and text disagree"


@pytest.mark.parametrize(
    "answer", ["<box>(0.100, 0.200, 0.300, 0.500)</box>", "It is at <box>(0.10, 0.20, 0.10, 0.40, 0.50, 0.30)</box>."]
)
def test_a_box_moves_away_from_the_true_one(answer) -> None:
    axes = 3 if answer.count(",") == 5 else 2
    for seed in range(10):
        wrong = changed(shifted_box, answer, seed=seed)
        assert wrong is not None
        old, new = (read_box(text, axes=axes).box for text in (answer, wrong))
        assert old is not None and new is not None and iou(old, new) < MOST_IOU
        assert wrong.partition("<box>")[0] == answer.partition("<box>")[0]


def test_boxes_that_cannot_move() -> None:
    assert changed(shifted_box, "<box>(0.000, 0.000, 1.000, 0.990)</box>") is None
    assert changed(shifted_box, "<box>(10.0, 20.0, 30.0, 40.0) mm</box>") is None, "the field of view is unknown"


@pytest.mark.parametrize(
    "answer",
    [
        "No hay derrame pleural. El corazón es normal.",
        "Kein Erguss links. Das Herz ist normal groß.",
        "左侧胸腔积液",
        "Нет пневмоторакса",
        "Pas d'épanchement à droite. Le coeur est normal.",
        "Nenhum derrame à direita.",
    ],
)
def test_other_languages_give_nothing(answer) -> None:
    assert not is_english(answer)
    for rule in RULES:
        assert changed(rule.apply, answer, prompt="?") is None
    assert changed(yes_no_flip, "No", prompt="¿Hay derrame pleural?") is None
    assert changed(yes_no_flip, "No", prompt="Is there an effusion?") == "Yes"
    spanish = case_of(a_sample("s", answer="left lung", prompt="Is it the left lung?", language="zh"))
    assert spanish is not None and not spanish.english


def test_knowledge_is_no_report() -> None:
    known = "Pneumonia is an infection of the lung. There is fever. A pleural effusion may follow in severe cases."
    for rule in (omitted_finding, invented_finding, other_report):
        assert changed(rule, known, prompt="What is pneumonia?", pool=a_pool(REPORT)) is None


def test_sentences_keep_numbers_headings_and_what_is_asserted() -> None:
    text = "Findings: A 3.5 cm mass. 1. No effusion. 2. Mild edema without effusion"
    found = sentences(text)
    assert [s.text for s in found] == ["A 3.5 cm mass.", "No effusion.", "Mild edema without effusion"]
    assert all(text[s.start : s.end] == s.text for s in found)
    assert [s.said for s in found] == ["A 3.5 cm mass.", "", "Mild edema "]


def test_articles_follow_the_new_word() -> None:
    assert put("a 12 mm nodule", 2, 4, "8") == "an 8 mm nodule"
    assert put("An acute bleed", 3, 8, "chronic") == "A chronic bleed"


def test_a_pair_says_how_it_was_made_and_is_a_valid_row() -> None:
    (pair,) = rule_pairs(a_sample("s", answer="in the left lung", scan="x.png", prompt="Where is it?"))
    assert pair.preference is not None and pair.preference.made_by == "side_flip"
    assert [side[-1].text for side in pair.sides()] == ["in the left lung", "in the right lung"]
    assert pair.sides()[0][:-1] == pair.sides()[1][:-1] and pair.visuals()[0].path == "x.png"
    how = pair.metadata["pair"]
    assert how["rule"] == "side_flip" and how["of"] == "s" and how["version"] >= 1
    assert (how["old"], how["new"]) == ("in the left lung", "in the right lung")
    assert from_json(to_json(pair), where="x") == pair
    assert not list(rule_pairs(pair)) and not list(rule_pairs(a_sample("t", answer="CT")))


def test_equal_sides_are_refused_and_a_seed_is_the_only_chance() -> None:
    class Same:
        name, about = "same", ""

        @staticmethod
        def apply(case, rng, pool):
            from medvlm.data_recipes.pairs.case import Change

            return Change(text=f" {case.answer.upper()}. ")

    case = case_of(a_sample("s", answer="left lung"))
    assert text_pair(case, Same, Pool()) is None
    report = case_of(a_sample("s", answer=REPORT))
    for rule in RULES:
        again = [text_pair(report, rule, a_pool(NORMAL, REPORT.replace("effusion", "mass")), seed=3) for _ in range(2)]
        assert again[0] == again[1]


def test_a_small_source_is_not_crowded_out() -> None:
    samples = [a_sample(f"a{i}", "large", scan=f"{i}.png") for i in range(50)] + [a_sample("b", "small")]
    assert {sample.source for sample in spread(samples, 4)} == {"large", "small"}
    assert spread(samples, 20) == spread(samples[::-1], 20)


def test_every_scan_comes_before_any_comes_twice() -> None:
    samples = [a_sample(f"{scan}{i}", scan=scan) for scan in "xyz" for i in range(9)]
    assert sorted(s.visuals()[0].path for s in spread(samples, 3)) == ["x", "y", "z"]


def test_topics_take_turns() -> None:
    samples = [a_sample(f"{i}", answer=("yes", "no")[i == 7], scan=f"{i}") for i in range(30)]
    assert {s.turns[-1].text for s in spread(samples, 2)} == {"yes", "no"}


def test_in_turn() -> None:
    assert in_turn([[1, 2, 3], [], [4]]) == [1, 4, 2, 3] and in_turn([]) == []
