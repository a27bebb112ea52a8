"""A study of several images, and one with its prior, as a Sample: order, names, metadata, refusals; the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.reports.sections import sections
from medvlm.data_recipes.reports.studies import (
    PriorStudy,
    View,
    ask_study,
    interval,
    labelled,
    leaked,
    sequence_name,
    view_name,
)
from medvlm.data_recipes.reports.written import answer_of, context_of
from medvlm.data_recipes.sample import Sample, VisualRef, chat, from_json, to_json


def view(name: str, kind: str = "image", sequence: bool = False) -> View:
    return View(name=name, visual=VisualRef(kind=kind, path=f"{name}.x"), sequence=sequence)  # type: ignore[arg-type]


def make(**changes: Any) -> Sample:
    values: dict[str, Any] = {
        "sample_id": "s/1", "patient_id": "s/p", "study_id": "s/b", "source": "s", "licence": "CC0-1.0",
        "split": "train", "views": [view("Lateral"), view("Frontal")], "prompt": "Write the report.",
        "answers": ["Clear lungs."], "where": "t:1",
    }  # fmt: skip
    sample = ask_study(**{**values, **changes})
    assert from_json(to_json(sample), where="again") == sample
    return sample


def spoken(sample: Sample) -> list[str]:
    return [part if isinstance(part, str) else f"<{part.path}>" for part in sample.turns[0].content]


def test_frontal_stands_before_lateral_whatever_the_order_of_the_files() -> None:
    expected = ["Frontal:", "<Frontal.x>", "Lateral:", "<Lateral.x>", "Write the report."]
    assert spoken(make()) == expected
    assert spoken(make(views=[view("Frontal"), view("Lateral")])) == expected
    assert make().metadata["views"] == ["Frontal", "Lateral"] and make().metadata["sequences"] == []
    test = make(split="test")
    assert spoken(test) == expected and test.question is not None and test.question.kind == "report"


def test_equal_names_are_numbered_and_unknown_ones_stand_last() -> None:
    views = [view("View"), view("Frontal"), view("Lateral"), view("Frontal")]
    assert list(labelled(views)[::2]) == ["Frontal 1:", "Frontal 2:", "Lateral:", "View:"]


def test_sequences_of_mr_are_named_and_separate_volumes() -> None:
    views = [view(name, "volume", True) for name in ("DWI", "FLAIR", "T2", "T1 with contrast", "T1")]
    sample = make(views=views)
    assert spoken(sample)[::2][:5] == ["T1:", "T1 with contrast:", "T2:", "FLAIR:", "DWI:"]
    assert sample.metadata["sequences"] == ["T1", "T1 with contrast", "T2", "FLAIR", "DWI"]
    assert sample.metadata["dimension"] == "3d" and sample.metadata["views"] == []


def test_the_prior_stands_first_and_its_report_only_by_choice() -> None:
    prior = PriorStudy(study_id="s/a", views=(view("Lateral"), view("Frontal")), days=35)
    sample = make(prior=prior, answers=["The effusion has increased."])
    assert spoken(sample) == [
        "Prior study, 35 days earlier:", "Frontal:", "<Frontal.x>", "Lateral:", "<Lateral.x>",
        "Current study:", "Frontal:", "<Frontal.x>", "Lateral:", "<Lateral.x>", "Write the report.",
    ]  # fmt: skip
    assert (sample.metadata["prior_study_id"], sample.metadata["days_since_prior"]) == ("s/a", 35)
    assert sample.metadata["speaks_of_prior"] and not sample.metadata["speaks_of_unseen_prior"]
    told = make(prior=PriorStudy(study_id="s/a", views=prior.views, days=0, report=" Small effusion. "))
    assert spoken(told)[5] == "Report of the prior study: Small effusion." and spoken(told)[6] == "Current study:"
    assert [interval(days) for days in (None, 0, 1, 2)] == [
        "Prior study:", "Prior study, earlier on the same day:", "Prior study, 1 day earlier:",
        "Prior study, 2 days earlier:",
    ]  # fmt: skip
    alone = make(answers=["The effusion has increased."])
    assert alone.metadata["speaks_of_unseen_prior"] and alone.metadata["prior_study_id"] is None


def test_a_closed_question_about_a_study_keeps_its_form() -> None:
    sample = make(kind="closed", prompt="Has it grown?", answers=["yes"], choices=("yes", "no"), topic="change")
    assert spoken(sample)[-1] == "Has it grown? Answer yes or no." and sample.turns[1].text == "yes"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"views": []}, "the study has no visual"),
        ({"prior": PriorStudy(study_id="s/b", views=(view("Frontal"),), days=0)}, "given as its own prior"),
        ({"prior": PriorStudy(study_id="s/a", views=(view("Frontal"),), days=-3)}, "the prior study is 3 days later"),
        ({"prior": PriorStudy(study_id="s/a", views=(), days=3)}, "the prior study has no visual"),
        ({"answers": [" "]}, "the answer is empty"),
        ({"answers": ["A nodule lies in the left upper lobe."],
          "prompt": "History: a nodule lies in the LEFT upper lobe\nWrite the report."}, "stands in its own"),
    ],
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadSample, match=reason) as bad:
        make(**changes)
    assert bad.value.where == "t:1" and bad.value.mend


def test_names_of_views_and_sequences() -> None:
    views = {
        "PA": "Frontal", "AP": "Frontal", "LL": "Lateral", "LATERAL": "Lateral", "AP LLD": "Decubitus",
        "XTABLE LATERAL": "Lateral", "postero-anterior": "Frontal", "LAO": "Oblique", "view1_frontal": "Frontal",
        "": None, "Erect": None, "SWIMMERS": None, "PALM": None,
    }  # fmt: skip
    assert {text: view_name(text) for text in views} == views
    assert view_name(None, "", "left lateral") == "Lateral"
    sequences = {
        "AX T1 POST GD": "T1 with contrast", "t1_mprage+c": "T1 with contrast", "SAG T1": "T1", "AX T1 FLAIR": "T1",
        "t2_flair_ax": "FLAIR", "DWI b1000": "DWI", "ADC": "ADC", "t2*_gre": "T2*", "T2 TSE": "T2", "localizer": None,
        "AX SWI": "SWI", "COR STIR": "STIR", "T12 vertebra": None,
    }  # fmt: skip
    assert {text: sequence_name(text) for text in sequences} == sequences


def test_answer_and_context_of_a_report() -> None:
    report = sections(
        "INDICATION: Cough\nfor days.\nCOMPARISON: ___.\nFINDINGS: Unchanged scar.  Seen by ___.\n"
        "IMPRESSION: 1. No pneumonia.\nADDENDUM: Pneumonia after all.\n"
    )
    assert context_of(report) == "Indication: Cough for days."
    written = answer_of(report, where="r")
    assert written.text == "Findings: Unchanged scar. Seen by ___.\nImpression: 1. No pneumonia."
    assert written.metadata == {"sections": ["findings", "impression"], "deidentified": True, "dropped_sentences": 0}
    # Every sentence of the findings goes; the impression is left.
    strict = answer_of(report, where="r", marks="drop_sentence", unseen_prior="drop_sentence")
    assert strict.text == "Impression: 1. No pneumonia."
    assert strict.metadata == {"sections": ["impression"], "deidentified": False, "dropped_sentences": 2}
    shown = answer_of(report, where="r", unseen_prior="drop_sentence", prior_shown=True)
    assert shown.text.startswith("Findings: Unchanged scar.")
    with pytest.raises(BadSample, match="marks of de-identification"):
        answer_of(report, where="r", marks="refuse")
    with pytest.raises(BadSample, match="neither findings nor an impression"):
        answer_of(sections("INDICATION: Cough.\n\nNo pneumonia."), where="r", last_paragraph=False)
    assert answer_of(sections("INDICATION: Cough.\n\nNo pneumonia."), where="r").metadata["sections"] == [
        "last paragraph"
    ]
    assert (
        leaked("No.", "No.") is None
        and leaked("One two three four five six.", "x one two three four five six") is not None
    )


def test_the_processor_takes_a_study_with_its_prior(tmp_path: Path, processor: Any) -> None:
    refs = {}
    for number, name in enumerate(("old", "pa", "lat")):
        Image.fromarray(np.full((40, 30 + 10 * number), 60 * number, np.uint8)).save(tmp_path / f"{name}.png")
        refs[name] = VisualRef(kind="image", path=str(tmp_path / f"{name}.png"))
    sample = make(
        views=[View(name="Lateral", visual=refs["lat"]), View(name="Frontal", visual=refs["pa"])],
        prior=PriorStudy(study_id="s/a", views=(View(name="Frontal", visual=refs["old"]),), days=3),
    )
    visuals = [read(ref, tmp_path) for ref in sample.visuals()]
    assert [Path(ref.path).stem for ref in sample.visuals()] == ["old", "pa", "lat"]
    inputs = processor(messages=[chat(sample.turns)], visuals=[visuals])
    assert inputs["input_ids"].shape[0] == 1
