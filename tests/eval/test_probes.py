"""Probes: what reports plainly say, and the questions made of it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.eval.controls import swap_partners
from medvlm.eval.extract import extract
from medvlm.eval.models import ConstantModel, OracleModel
from medvlm.eval.run import Settings, evaluate_task
from medvlm.eval.scorers.choice import majority_hits
from medvlm.eval.task import Task, load
from medvlm.eval.tasks import false_premise, finding_probes, iu_xray, longitudinal
from medvlm.eval.tasks.probes import TASKS
from medvlm.eval.tasks.report_study import Origin, Study
from medvlm.eval.tasks.stated_findings import FINDINGS, Stated, stated
from medvlm.model.visual import Image

ORIGIN = Origin(source="made up", licence="CC0-1.0", modality="DX", mend="draw it")
PICTURE = false_premise.BLANK


def study(name: str, findings: str) -> Study:
    return Study(
        study_id=name, sample_id=name, patient_id=f"p{name}", origin=ORIGIN, where=name,
        pictures=(("Frontal", PICTURE),), findings=findings, impression=None,
    )  # fmt: skip


def asked(task: Task, folder: Path) -> list[Sample]:
    task.example(folder)
    rows = list(task.read(folder))
    assert [row for row in rows if isinstance(row, BadSample)] == []
    return [row for row in rows if isinstance(row, Sample)]


def answer(sample: Sample) -> str:
    """The text of the accepted answer."""
    question = sample.question
    assert question is not None
    given = question.answers[0]
    return question.choices["ABCDE".index(given)] if question.kind == "choice" else given


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_correct_answer_in_words_is_read_as_correct(task: Task, tmp_path: Path) -> None:
    for sample in asked(task, tmp_path):
        assert sample.question is not None
        said = f"{answer(sample).capitalize()}."
        assert extract(sample.question, said, sample.turns[-1].text).value == answer(sample).lower(), sample.sample_id


# --- what a report plainly says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "finding", "expected"),
    [
        ("There is a small left pleural effusion.", "pleural effusion", Stated(present=True, side="left")),
        ("Bilateral pleural effusions.", "pleural effusion", Stated(present=True, side="both sides")),
        ("No pleural effusion or pneumothorax.", "pneumothorax", Stated(present=False)),
        ("Clear lungs without focal consolidation, effusion or mass.", "consolidation", Stated(present=False)),
        ("NO EVIDENCE OF\nPULMONARY EDEMA.", "pulmonary edema", Stated(present=False)),
        ("The heart size is normal.", "cardiomegaly", Stated(present=False)),
        ("The cardiac silhouette is mildly enlarged.", "cardiomegaly", Stated(present=True)),
        ("Calcified granuloma in the right upper lobe.", "granuloma", Stated(present=True, side="right")),
        ("Findings: Left effusion. Impression: Left effusion.", "pleural effusion", Stated(present=True, side="left")),
        # Two findings, one side: nobody says whose.
        ("Small effusion and right basilar atelectasis.", "pleural effusion", Stated(present=True)),
        # Not plain: no question.
        ("No large pleural effusion.", "pleural effusion", None),
        ("No pneumothorax or large pleural effusion.", "pleural effusion", None),
        ("No acute rib fracture.", "rib fracture", None),
        ("Possible left effusion.", "pleural effusion", None),
        ("Opacity worrisome for pneumonia.", "pneumonia", None),
        ("Evaluation for pneumothorax is limited.", "pneumothorax", None),
        ("CT is more sensitive for masses.", "mass", None),
        ("New pedal edema.", "pulmonary edema", None),
        # One side is told, and of another sentence nobody knows which.
        ("Left opacity. Left effusion and opacity at the right base.", "opacity", Stated(present=True)),
        ("Atelectasis or pneumonia.", "pneumonia", None),
        ("History of pneumonia.", "pneumonia", None),
        ("The pneumothorax is no longer seen.", "pneumothorax", None),
        ("No change in the left effusion.", "pleural effusion", None),
        ("No pneumothorax, but there is a left effusion.", "pleural effusion", None),
        ("Heart size is at the upper limits of normal.", "cardiomegaly", None),
        ("No XXXX, effusion.", "pleural effusion", None),
        ("There is a left effusion. No pleural effusion.", "pleural effusion", None),
        ("The heart is top normal in size. Mild cardiomegaly.", "cardiomegaly", None),
        ("Pericardial effusion.", "pleural effusion", None),
        ("The lungs are clear.", "pneumothorax", None),
    ],
)  # fmt: skip
def test_only_what_is_plain_is_taken(text: str, finding: str, expected: Stated | None) -> None:
    assert stated(text).get(finding) == expected


def test_nothing_is_said_by_an_empty_report() -> None:
    assert stated("") == {}


# --- presence ------------------------------------------------------------------------------------------------


def test_each_yes_has_its_no_in_the_same_words(tmp_path: Path) -> None:
    samples = asked(finding_probes.IU_XRAY, tmp_path)
    words = Counter((sample.turns[-1].text, answer(sample)) for sample in samples)
    assert len(samples) == 24
    assert all(words[text, "yes"] == words[text, "no"] for text, _ in words)
    hits = majority_hits([(s.question.topic, ("yes", "no"), answer(s)) for s in samples if s.question])
    assert sum(hits) * 2 == len(samples), "words alone are worth one half"


def test_yes_and_no_are_what_the_report_says(tmp_path: Path) -> None:
    samples = asked(finding_probes.IU_XRAY, tmp_path)
    reports = {one.sample_id: one.report for one in iu_xray.studies(tmp_path) if isinstance(one, Study)}
    for sample in samples:
        name, _, finding = sample.sample_id.partition("/")
        assert stated(reports[name])[finding].present == (answer(sample) == "yes")
        assert sample.metadata["probe"] in (("present",) if answer(sample) == "yes" else finding_probes.WAYS)


def test_the_three_ways_to_choose_who_denies_a_finding() -> None:
    """Atelectasis is what most studies show, cardiomegaly what most studies with edema show."""
    together = [study(f"t{n}", "Mild pulmonary edema. Mild cardiomegaly.") for n in range(3)]
    others = [study(f"a{n}", "Mild bibasilar atelectasis. The heart size is normal.") for n in range(9)]
    denying = [
        study("nothing else", "No pulmonary edema."),
        study("b", "Mild bibasilar atelectasis. No pulmonary edema."),
        study("c", "Mild cardiomegaly. No pulmonary edema."),
    ]
    found = [pair for pair in finding_probes.pairs([*together, *others, *denying]) if pair[0] == "pulmonary edema"]
    # The first of the three by a hash of its name is "nothing else"; another name may be another.
    assert {way: denied.study_id for _, _, denied, way in found} == {
        "random": "nothing else",
        "popular": "b",
        "adversarial": "c",
    }


def test_the_order_of_the_file_changes_no_question() -> None:
    studies = [study(f"s{n}", ("Mild cardiomegaly.", "The heart size is normal.")[n % 2]) for n in range(12)]
    forward, backward = (
        {(s.sample_id, answer(s)) for s in finding_probes.questions(order) if isinstance(s, Sample)}
        for order in (studies, studies[::-1])
    )
    assert forward == backward and len(forward) == 12


def test_a_finding_that_nobody_denies_is_not_asked() -> None:
    studies = [study("a", "A calcified granuloma."), study("b", "Lungs clear."), study("c", "No pneumothorax.")]
    assert list(finding_probes.questions(studies)) == []
    assert set(FINDINGS) >= {"granuloma", "pneumothorax"}


# --- false premises ------------------------------------------------------------------------------------------


def test_the_premise_decides_the_answer_and_a_blank_picture_tells_nothing(tmp_path: Path) -> None:
    samples = asked(false_premise.IU_XRAY, tmp_path)
    by_probe: dict[str, list[Sample]] = {}
    for sample in samples:
        by_probe.setdefault(sample.metadata["probe"], []).append(sample)
    assert {probe: len(found) for probe, found in by_probe.items()} == {
        "true premise": 23, "false premise": 7, "blank picture": 9,
    }  # fmt: skip
    assert {answer(s) for s in by_probe["true premise"]} <= set(false_premise.SIDES)
    assert all(answer(s) == f"There is no {s.metadata['finding']}" for s in by_probe["false premise"])
    for twin in by_probe["blank picture"]:
        assert answer(twin) == false_premise.NOT_TOLD
        (original,) = [s for s in samples if f"{s.sample_id}/blank" == twin.sample_id]
        assert len(twin.visuals()) == len(original.visuals())
        assert twin.turns[-1].text.split("\n")[0] == original.turns[-1].text.split("\n")[0]
        assert {Path(ref.path).name for ref in twin.visuals()} == {"blank.png"}


def test_no_letter_is_worth_more_than_another(tmp_path: Path) -> None:
    letters = Counter(s.question.answers[0] for s in asked(false_premise.IU_XRAY, tmp_path) if s.question)
    assert set(letters) == set("ABCDE") and max(letters.values()) < 0.4 * sum(letters.values())


def test_the_shipped_blank_picture_is_black_and_shown_where_none_lies_in_the_folder(tmp_path: Path) -> None:
    asked(false_premise.IU_XRAY, tmp_path)
    (tmp_path / "blank.png").unlink()
    twins = [
        s for s in false_premise.IU_XRAY.read(tmp_path) if isinstance(s, Sample) and s.sample_id.endswith("/blank")
    ]
    assert {ref.path for twin in twins for ref in twin.visuals()} == {str(false_premise.BLANK.resolve())}
    picture = read(VisualRef(kind="image", path=str(false_premise.BLANK)), tmp_path)
    assert isinstance(picture, Image) and float(picture.pixels.max()) == float(picture.pixels.min())


def test_a_blank_picture_is_nobodys_partner(tmp_path: Path) -> None:
    samples = asked(false_premise.IU_XRAY, tmp_path)
    partners = swap_partners(samples, seed=0)
    blank = {s.sample_id for s in samples if s.metadata["probe"] == "blank picture"}
    assert not blank & partners.keys()
    assert all(Path(ref.path).name != "blank.png" for visuals in partners.values() for ref in visuals)
    assert len(partners) == len(samples) - len(blank)


def test_oracle_and_the_one_who_always_denies(tmp_path: Path) -> None:
    task = false_premise.IU_XRAY
    task.example(tmp_path / "data")
    found = load(task, tmp_path / "data", partial=True)
    settings = Settings(conditions=("image",))
    shared = {"gallery_size": 1, "show_progress": False}
    known = evaluate_task(OracleModel(), found, tmp_path / "oracle", settings, **shared)  # type: ignore[arg-type]
    assert known["headline"]["choice_accuracy_2d"] == 1.0
    none = ConstantModel("There is no pneumothorax")
    denied = evaluate_task(none, found, tmp_path / "none", settings, **shared)  # type: ignore[arg-type]
    expected = sum(answer(item.sample) == "There is no pneumothorax" for item in found.items) / len(found.items)
    assert 0 < denied["headline"]["choice_accuracy_2d"] == pytest.approx(expected)


# --- change --------------------------------------------------------------------------------------------------


def test_the_prior_is_shown_first_and_every_label_is_a_question(tmp_path: Path) -> None:
    samples = asked(longitudinal.MS_CXR_T, tmp_path)
    with (tmp_path / longitudinal.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    labels = [row[f"{f}_progression"] for row in rows for f in longitudinal.FINDINGS if row[f"{f}_progression"]]
    assert [answer(s) for s in samples] == labels and len(labels) == 38
    first = samples[0].turns[0].content
    assert (first[0], first[2]) == ("Prior study:", "Current study:")
    shown = [Path(part.path).stem for part in first if isinstance(part, VisualRef)]
    assert shown == [Path(rows[0][key]).name for key in ("previous_dicom_id", "dicom_id")]
    assert samples[0].metadata["prior_study_id"] == f"s{rows[0]['previous_study_id']}"
    assert len({s.patient_id for s in samples}) == 18
    assert str(first[-1]).startswith(
        "Compared with the prior study, is the consolidation improving, stable or worsening?"
    )


def test_pictures_of_mimic_cxr_beside_the_folder_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "ms-cxr-t"
    longitudinal.MS_CXR_T.example(folder)
    (tmp_path / "mimic-cxr").mkdir()
    (folder / "files").rename(tmp_path / "mimic-cxr" / "files")
    rows = list(longitudinal.MS_CXR_T.read(folder))
    assert len(rows) == 38 and all(isinstance(row, Sample) for row in rows)


def test_a_state_or_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    longitudinal.MS_CXR_T.example(tmp_path)
    table = tmp_path / longitudinal.TABLE
    table.write_text(table.read_text().replace("stable", "unchanged", 1))
    next((tmp_path / "files").rglob("*.jpg")).unlink()
    reasons = [row.reason for row in longitudinal.MS_CXR_T.read(tmp_path) if isinstance(row, BadSample)]
    assert sum("_progression is 'unchanged'" in reason for reason in reasons) == 1
    assert sum("is missing" in reason for reason in reasons) == 1


def test_phantoms_as_they_are_written_are_asked_in_the_words_of_the_task(tmp_path: Path) -> None:
    """The real generator, of which the example takes the wording alone."""
    write_phantoms(tmp_path / "phantoms", patients=10, seed=3, fractions=(0.1, 0.1, 0.8))
    path = tmp_path / "phantoms" / longitudinal.MANIFEST
    written = [json.loads(line) for line in path.read_text().splitlines()]
    changes = {
        row["sample_id"]: row["question"]["answers"][0] for row in written if row["question"]["topic"] == "change"
    }
    rows = [row for row in longitudinal.PHANTOMS.read(tmp_path / "phantoms") if isinstance(row, Sample)]
    assert changes and {row.sample_id: row.metadata["change"] for row in rows} == changes
    for row in rows:
        assert answer(row) == longitudinal.STATE_OF[changes[row.sample_id]]
        assert [Path(ref.path).stem for ref in row.visuals()] == ["prior", "radiograph"]
        assert all(Path(ref.path).is_file() for ref in row.visuals())


def test_a_change_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    longitudinal.PHANTOMS.example(tmp_path)
    path = tmp_path / longitudinal.MANIFEST
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["question"] |= {"answers": ["fluctuating"], "choices": ["fluctuating", "new"]}
    del rows[1]["messages"][0]["content"][0]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reasons = [row.reason for row in longitudinal.PHANTOMS.read(tmp_path) if isinstance(row, BadSample)]
    assert len(reasons) == 2
    assert "with 2 pictures, 1 findings and the answer 'fluctuating'" in reasons[0]
    assert "with 1 pictures" in reasons[1]
    path.unlink()
    with pytest.raises(ValueError, match=r"the manifest is missing.*medvlm data phantoms"):
        load(longitudinal.PHANTOMS, tmp_path, partial=True)


def test_a_missing_picture_is_one_refusal_and_changes_no_other_question() -> None:
    studies = [study(f"s{n}", ("Mild cardiomegaly.", "The heart size is normal.")[n % 2]) for n in range(6)]
    lost = [replace(one, pictures=(("Frontal", Path("gone.png")),)) if one.study_id == "s1" else one for one in studies]
    rows = list(finding_probes.questions(lost))
    assert sum(isinstance(row, BadSample) for row in rows) == 1
    whole = {s.sample_id for s in finding_probes.questions(studies) if isinstance(s, Sample)}
    assert {s.sample_id for s in rows if isinstance(s, Sample)} == whole - {"s1/cardiomegaly"}
