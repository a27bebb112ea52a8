"""The report tasks: what is asked, what is refused, and that nothing absent is scored as text."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from recipe_fixtures.open_i import write as open_i
from recipe_fixtures.writing import picture

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.eval.controls import patient_of
from medvlm.eval.plan import Item
from medvlm.eval.strata import strata_of
from medvlm.eval.task import Task, load
from medvlm.eval.tasks import chexpert_plus, iu_xray, mimic_cxr
from medvlm.eval.tasks.report_study import section, sections_of, unwrapped, written
from medvlm.eval.tasks.reports import TASKS
from medvlm.eval.tasks.rexrank import age_band, context_of


def samples_of(task: Task, folder: Path) -> dict[str, Sample]:
    rows = list(task.read(folder))
    assert [row for row in rows if isinstance(row, BadSample)] == []
    return {row.sample_id: row for row in rows if isinstance(row, Sample)}


def refusals(task: Task, folder: Path) -> list[str]:
    return [row.reason for row in task.read(folder) if isinstance(row, BadSample)]


def change(path: Path, study: str, **values: Any) -> None:
    """Replace values of one record; a value of ... removes the key."""
    records = json.loads(path.read_text())
    for key, value in values.items():
        records[study].pop(key, None) if value is ... else records[study].update({key: value})
    path.write_text(json.dumps(records))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_example_is_no_published_split_and_says_so(task: Task, tmp_path: Path) -> None:
    task.example(tmp_path)
    with pytest.raises(ValueError, match=f"30 questions can be asked and 0 rows cannot, {task.n} were published"):
        load(task, tmp_path)
    found = load(task, tmp_path, partial=True)
    assert len(found.items) == 30
    assert all(item.question.kind == "report" and item.sample.study_id == item.sample.sample_id for item in found.items)
    assert task.ids_sha256 is not None and found.ids_sha256 != task.ids_sha256


# --- IU X-Ray ------------------------------------------------------------------------------------------------


def test_views_stand_in_the_published_order_behind_their_names(tmp_path: Path) -> None:
    iu_xray.TASK.example(tmp_path)
    found = samples_of(iu_xray.TASK, tmp_path)

    def shown(study: str) -> list[str]:
        parts = found[study].turns[0].content
        return [Path(part.path).name if isinstance(part, VisualRef) else part for part in parts]

    assert shown("CXR9001_IM-5001")[:4] == ["Frontal:", "0.png", "Lateral:", "1.png"]
    assert shown("CXR9003_IM-5003")[:4] == ["Lateral:", "0.png", "Frontal:", "1.png"]
    # Three names for two pictures: nobody knows which is whose.
    assert shown("CXR9006_IM-5006")[:4] == ["View 1:", "0.png", "View 2:", "1.png"]
    assert [found[f"CXR900{n}_IM-500{n}"].metadata["view"] for n in (1, 3, 6)] == [
        "frontal and lateral", "frontal and lateral", "unknown",
    ]  # fmt: skip


def test_indication_and_comparison_are_told_and_fillers_are_not(tmp_path: Path) -> None:
    iu_xray.TASK.example(tmp_path)
    found = samples_of(iu_xray.TASK, tmp_path)
    told = found["CXR9001_IM-5001"].turns[0].content[-1]
    assert told == (
        "Indication: Chest pain.\nComparison: Film of the year before.\n"
        'Write the report of this chest X-ray study. Write it as "Findings: ..." and "Impression: ...".'
    )
    assert str(found["CXR9004_IM-5004"].turns[0].content[-1]).startswith("Write the report")  # XXXX and None.
    assert found["CXR9001_IM-5001"].question is not None
    assert found["CXR9001_IM-5001"].question.answers[0].startswith("Findings: There is mild left basilar")


def test_every_report_of_iu_xray_is_a_cluster(tmp_path: Path) -> None:
    iu_xray.TASK.example(tmp_path)
    assert len({patient_of(sample) for sample in samples_of(iu_xray.TASK, tmp_path).values()}) == 30
    assert iu_xray.TASK.cluster == "study"


def test_the_validation_split_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    iu_xray.TASK.example(tmp_path)
    records = json.loads((tmp_path / iu_xray.FILE).read_text())
    for record in records.values():
        record["split"] = "val"
    (tmp_path / iu_xray.FILE).write_text(json.dumps(records))
    assert refusals(iu_xray.TASK, tmp_path) == ["the study is of the split 'val', the task asks 'test'"] * 30
    (tmp_path / iu_xray.FILE).rename(tmp_path / iu_xray.VALIDATION)
    with pytest.raises(ValueError, match="only the validation split is here"):
        load(iu_xray.TASK, tmp_path, partial=True)


def test_the_records_that_circulate_as_test_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the numbers of made-up reports in the place of the 296: their own list is not ours to keep."""
    numbers = [str(number) for number in range(7000, 7296)]
    records = [
        {"id": f"open_i_{number}", "image": [f"CXR{number}_IM-1-1001.png"], "findings": "x", "impression": "x"}
        for number in numbers
    ]
    (tmp_path / "IU_XRAY").mkdir()
    (tmp_path / "IU_XRAY" / "test.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match="a list of 296 records that does not say which split it is"):
        load(iu_xray.TASK, tmp_path, partial=True)
    monkeypatch.setattr(iu_xray, "VALIDATION_NUMBERS", iu_xray.ids_sha256(numbers))
    with pytest.raises(ValueError, match=r"are the VALIDATION split of R2Gen and ReXrank: 296 of 296"):
        load(iu_xray.TASK, tmp_path, partial=True)


def test_the_original_reports_need_the_split_and_are_no_published_split(tmp_path: Path) -> None:
    open_i(tmp_path)
    with pytest.raises(ValueError, match="nothing says which reports are in the test split"):
        load(iu_xray.TASK, tmp_path, partial=True)
    split = {"train": [], "val": [{"id": "CXR2_IM-7"}], "test": [{"id": "CXR1_IM-5"}, {"id": "CXR3_IM-9-1001"}]}
    (tmp_path / iu_xray.SPLITS).write_text(json.dumps(split))
    found = samples_of(iu_xray.TASK, tmp_path)
    assert list(found) == ["original/CXR1_IM-5", "original/CXR3_IM-9-1001"]
    one, three = found.values()
    assert one.question is not None and three.question is not None
    assert one.question.answers[0] == "Findings: Clear lungs.\nImpression: No acute disease."
    assert str(one.turns[0].content[-1]).startswith("Indication: Cough\nWrite the report")
    assert len(one.visuals()) == 2 and one.turns[0].content[0] == "View 1:"
    assert (three.question.answers[0], three.question.topic) == ("Impression: No acute disease.", "impression")


# --- MIMIC-CXR -----------------------------------------------------------------------------------------------


def test_a_missing_impression_is_no_text_and_is_kept_apart(tmp_path: Path) -> None:
    mimic_cxr.TASK.example(tmp_path)
    found = samples_of(mimic_cxr.TASK, tmp_path)
    topics = Counter(sample.question.topic for sample in found.values() if sample.question is not None)
    assert topics == {"report": 20, "findings": 10}
    answers = [sample.question.answers[0] for sample in found.values() if sample.question is not None]
    assert not any("None" in answer or "nan" in answer for answer in answers)
    assert sum("Impression:" in answer for answer in answers) == 20
    assert [sections_of(answer)[1] is None for answer in answers].count(True) == 10


def test_studies_of_one_patient_are_one_cluster_with_sex_age_and_view(tmp_path: Path) -> None:
    mimic_cxr.TASK.example(tmp_path)
    items = load(mimic_cxr.TASK, tmp_path, partial=True).items
    assert len({patient_of(item.sample) for item in items}) == 12
    by_id = {item.sample.sample_id: strata_of(item) for item in items}
    assert by_id["59000001"] == {
        "modality": "DX", "sex": "female", "age_band": "30-40", "view": "frontal and lateral",
        "source": "mimic-cxr",
    }  # fmt: skip
    assert "view" not in by_id["59000003"], "the file says NaN"
    assert "sex" not in by_id["59000000"], "its context states none"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"section_findings": ...}, "'section_findings' is missing"),
        ({"section_findings": float("nan"), "section_impression": "None."}, "neither findings nor an impression"),
        ({"image_path": []}, "image_path is no list of paths"),
        ({"image_path": ["/p19/../../secret.jpg"], "frontal_lateral": ["lateral"]}, "image_path leaves the folder"),
        (
            {"image_path": ["/p19/gone.jpg"], "frontal_lateral": ["lateral"]},
            "the image .*files/p19/gone.jpg is missing",
        ),
        ({"subject_id": ...}, "subject_id is missing"),
        ({"context": "Weight: 70 kg"}, "the context is not of the form"),
    ],
)
def test_a_record_that_cannot_be_used_is_one_refusal(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    mimic_cxr.TASK.example(tmp_path)
    change(tmp_path / mimic_cxr.FILE, "59000004", **values)
    rows = list(mimic_cxr.TASK.read(tmp_path))
    (bad,) = [row for row in rows if isinstance(row, BadSample)]
    assert re.search(reason, bad.reason), bad.reason
    assert len(rows) == 30


def test_a_study_that_stands_twice_is_refused(tmp_path: Path) -> None:
    mimic_cxr.TASK.example(tmp_path)
    text = (tmp_path / mimic_cxr.FILE).read_text()
    (tmp_path / mimic_cxr.FILE).write_text(text.replace('"59000001"', '"59000000"', 1))
    with pytest.raises(ValueError, match="1 keys stand twice, first '59000000'"):
        load(mimic_cxr.TASK, tmp_path, partial=True)


def test_the_original_tables_give_the_test_studies_with_findings_and_no_prior(tmp_path: Path) -> None:
    rows = {"50000001": "a-pa", "50000002": "b-ap", "50000003": "c-ap"}
    header = "dicom_id,subject_id,study_id,ViewPosition,StudyDate,StudyTime,Rows,Columns\n"
    lines = [f"{dicom},10000001,{study},AP,2180050{study[-1]},80000,9,9\n" for study, dicom in rows.items()]
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").write_text(header + "".join(lines))
    splits = "".join(f"{dicom},{study},10000001,test\n" for study, dicom in rows.items())
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_text("dicom_id,study_id,subject_id,split\n" + splits)
    texts = {
        "50000001": "INDICATION: Cough.\n\nFINDINGS:\n\n No edema.\n\nIMPRESSION:\n\n No change.\n",
        "50000002": "INDICATION: Cough.\n\nFINDINGS:\n\n There is no\n effusion.\n",
        "50000003": "IMPRESSION:\n\n No change.\n",
    }
    place = tmp_path / "files" / "p10" / "p10000001"
    for study, dicom in rows.items():
        picture(place / f"s{study}" / f"{dicom}.jpg")
        (place / f"s{study}.txt").write_text(texts[study])
    found = samples_of(mimic_cxr.TASK, tmp_path)
    assert list(found) == ["original/50000001", "original/50000002"]
    second = found["original/50000002"]
    assert second.question is not None and second.question.answers == ("Findings: There is no effusion.",)
    assert len(second.visuals()) == 1 and Path(second.visuals()[0].path).name == "b-ap.jpg", "the prior is not shown"
    assert second.turns[0].content[0] == "Frontal:"
    assert patient_of(second) == patient_of(found["original/50000001"])


# --- CheXpert Plus -------------------------------------------------------------------------------------------


def test_findings_none_are_counted_and_broken_lines_are_joined(tmp_path: Path) -> None:
    chexpert_plus.TASK.example(tmp_path)
    change(tmp_path / chexpert_plus.FILE, "patient90003_study1", section_findings="/")
    change(tmp_path / chexpert_plus.FILE, "patient90006_study1", section_findings="Findings: None.")
    found = samples_of(chexpert_plus.TASK, tmp_path)
    topics = Counter(sample.question.topic for sample in found.values() if sample.question is not None)
    assert topics == {"impression": 22, "report": 8}
    answer = found["patient90001_study1"].question
    assert answer is not None and "HEART SIZE IS NORMAL. NO PLEURAL EFFUSION" in answer.answers[0]
    assert "\n" not in answer.answers[0]


def test_the_original_table_gives_the_validation_studies(tmp_path: Path) -> None:
    columns = (
        "path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order", "report",
        "section_findings", "section_impression", "section_clinical_history", "split",
    )  # fmt: skip
    rows = [
        [path, "Frontal", "AP", path.split("/")[1], "1", "x", "", impression, "Pain", path.split("/")[0]]
        for path, impression in (
            ("valid/patient64541/study1/view1_frontal.jpg", "No edema."),
            ("train/patient00001/study1/view1_frontal.jpg", "Edema."),
        )
    ]
    table = "\n".join(",".join(row) for row in (columns, *rows)) + "\n"
    (tmp_path / "df_chexpert_plus_240401.csv").write_text(table)
    for row in rows:
        picture(tmp_path / "PNG" / Path(row[0]).with_suffix(".png"))
    (one,) = samples_of(chexpert_plus.TASK, tmp_path).values()
    assert one.sample_id == "original/patient64541_study1"
    assert one.question is not None and one.question.answers == ("Impression: No edema.",)
    assert str(one.turns[0].content[-1]).startswith("Indication: Pain\nWrite")


# --- parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filler",
    [None, float("nan"), "", " ", "None", "None.", "NONE", "nan", "N/A", "/", "XXXX.", "Findings: None.", "unknown"],
)
def test_fillers_are_no_section(filler: object) -> None:
    assert section(filler) is None


@pytest.mark.parametrize("text", ["None of the lines has moved.", "No change.", "Nanosecond artefact.", "XXXX nodule."])
def test_what_only_looks_like_a_filler_is_kept(text: str) -> None:
    assert section(text) == text


def test_lines_that_continue_a_sentence_are_joined() -> None:
    text = "1. NO EVIDENCE\n   OF EDEMA.\n2. SMALL\nEFFUSION.\n\nEND"
    assert unwrapped(text) == "1. NO EVIDENCE OF EDEMA.\n2. SMALL EFFUSION.\nEND"


@pytest.mark.parametrize(
    ("findings", "impression"),
    [("Clear.", "Normal."), (None, "Normal."), ("Clear.\nStable.", None), ("A.", "1. B.\n2. C.")],
)
def test_a_reference_falls_back_into_its_sections(findings: str | None, impression: str | None) -> None:
    assert sections_of(written(findings, impression)) == (findings, impression)


def test_a_text_of_another_form_has_no_sections() -> None:
    for text in ("", "Lungs clear."):
        with pytest.raises(ValueError, match="not of the form"):
            sections_of(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "Age:50-60.Gender:M.Indication: ___F, chest pain. Comparison: None.",
            {"age": "50-60.", "gender": "M.", "indication": "___F, chest pain.", "comparison": "None."},
        ),
        (
            "<context>Age:>=90.Gender:F.Indication: Fall.</context>",
            {"age": ">=90.", "gender": "F.", "indication": "Fall."},
        ),
        (" Comparison: Film of May", {"comparison": "Film of May"}),
        (
            "Age:77.0.Gender:F.Indication:nanComparison: None.",
            {"age": "77.0.", "gender": "F.", "indication": "nan", "comparison": "None."},
        ),
        ("", {}),
        (None, {}),
        ({"age": 61, "gender": "M", "comparison": None}, {"age": "61", "gender": "M"}),
    ],
)
def test_contexts_as_they_are_written(given: object, expected: dict[str, str]) -> None:
    assert context_of(given, where="here") == expected


def test_age_bands() -> None:
    given = ("50-60", ">=90", "77", "9", "18.0", "adult", None)
    assert [age_band(age) for age in given] == ["50-60", ">=90", "70-80", "0-10", "10-20", None, None]


def test_a_date_made_of_an_age_is_read_as_the_age(tmp_path: Path) -> None:
    mimic_cxr.TASK.example(tmp_path)
    change(tmp_path / mimic_cxr.FILE, "59000001", context="Age:20-Oct.Gender:F.Indication: Fall.")
    sample = samples_of(mimic_cxr.TASK, tmp_path)["59000001"]
    assert strata_of(Item(sample=sample, manifest=tmp_path))["age_band"] == "10-20"
    assert str(sample.turns[0].content[-1]).startswith("Age: 10-20\nSex: female\nIndication: Fall.")
