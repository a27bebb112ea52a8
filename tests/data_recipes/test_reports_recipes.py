"""MIMIC-CXR and CheXpert Plus in their published layouts, with texts and pictures that the test writes itself."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes import RECIPES, chexpert_plus, mimic_cxr
from medvlm.data_recipes.sample import Sample, from_json, to_json
from medvlm.data_recipes.walk import walk_folder


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(12, 10)).save(path)


def split_up(rows: list[Sample | BadSample]) -> tuple[dict[str, Sample], list[BadSample]]:
    samples = [row for row in rows if isinstance(row, Sample)]
    for sample in samples:
        assert from_json(to_json(sample), where="again") == sample
    return {s.study_id: s for s in samples}, [row for row in rows if isinstance(row, BadSample)]


def shown(sample: Sample) -> list[str]:
    """The user's turn, visuals by the name of their file."""
    return [part if isinstance(part, str) else Path(part.path).name for part in sample.turns[0].content]


# --- MIMIC-CXR -----------------------------------------------------------------------------------------------

METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  {indication}

 COMPARISON:  {comparison}

 FINDINGS:

 {findings}

 IMPRESSION:

 {impression}
"""


def mimic_row(dicom: str, subject: str, study: str, view: str, date: str, time: str, code: str = "") -> dict[str, str]:
    values = {
        "dicom_id": dicom, "subject_id": subject, "study_id": study, "ViewPosition": view, "StudyDate": date,
        "StudyTime": time, "Rows": "12", "Columns": "10", "ViewCodeSequence_CodeMeaning": code,
    }  # fmt: skip
    return {name: values.get(name, "") for name in METADATA}


def gzipped(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def text_of(folder: Path, subject: str, study: str, text: str) -> None:
    path = folder / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def mimic(folder: Path) -> None:
    """Patient 10000001: three studies, two with a prior; 10000002: faults; 11000003: no headers, validation."""
    a, b, c = "10000001", "10000002", "11000003"
    rows = [
        mimic_row("aa-lat", a, "50000001", "LATERAL", "21800506", "81014.531"),
        mimic_row("aa-pa", a, "50000001", "PA", "21800506", "81014.531"),
        mimic_row("bb-ap", a, "50000002", "AP", "21800610", "1405.0"),
        mimic_row("cc-none", a, "50000003", "", "21800610", "120000.0", "postero-anterior"),
        mimic_row("dd-ap", b, "50000004", "AP", "21790101", "100000"),
        mimic_row("ee-ap", b, "50000005", "AP", "21790201", "100000"),
        mimic_row("ff-ap", b, "50000006", "AP", "2179-13-01", "100000"),
        mimic_row("gg-ap", c, "50000007", "AP", "21850101", "070000"),
        mimic_row("hh-ap", b, "50000008", "AP", "21790301", "100000"),
    ]
    gzipped(folder / "mimic-cxr-2.0.0-metadata.csv.gz", rows)
    splits = [
        {"dicom_id": row["dicom_id"], "study_id": row["study_id"], "subject_id": row["subject_id"],
         "split": {a: "train", b: "test", c: "validate"}[row["subject_id"]]}
        for row in rows
    ]  # fmt: skip
    gzipped(folder / "mimic-cxr-2.0.0-split.csv.gz", splits)
    for row in rows:
        if row["dicom_id"] not in ("dd-ap",):
            place = folder / "files" / f"p{row['subject_id'][:2]}" / f"p{row['subject_id']}" / f"s{row['study_id']}"
            picture(place / f"{row['dicom_id']}.jpg")
    for number, comparison, findings, impression in (
        ("1", "None.", "Lungs are clear.", "No acute process."),
        ("2", "___", "Compared to ___, a new left effusion.  Heart is normal.", "1. New effusion.\n 2. Normal heart."),
        ("3", "___", "Effusion unchanged.", "No change."),
    ):
        text = REPORT.format(
            indication="___F with cough", comparison=comparison, findings=findings, impression=impression
        )
        text_of(folder, a, f"5000000{number}", text)
    text_of(
        folder, b, "50000004", REPORT.format(indication="x", comparison="x", findings="Clear.", impression="Clear.")
    )
    text_of(
        folder, b, "50000005", REPORT.format(indication="x", comparison="x", findings="Larger.", impression="Stable.")
    )
    text_of(folder, b, "50000006", "FINDINGS: Clear.")
    text_of(
        folder, c, "50000007",
        " FINAL REPORT\n HISTORY:  Cough.\n\n Heart is normal.  Lungs clear.\n\n No acute disease.\n",
    )  # fmt: skip


def test_mimic_cxr_links_studies_and_names_views(tmp_path: Path) -> None:
    mimic(tmp_path)
    (recipe,) = [recipe for recipe in RECIPES if recipe.matches(tmp_path)]
    assert recipe is mimic_cxr.RECIPE
    found, refused = split_up(list(recipe.build(tmp_path)))
    first, second, third = (found[f"mimic-cxr/s5000000{number}"] for number in (1, 2, 3))

    assert shown(first) == [
        "Frontal:", "aa-pa.jpg", "Lateral:", "aa-lat.jpg",
        "Indication: ___F with cough\nWrite the report of this chest X-ray study.",
    ]  # fmt: skip
    assert first.turns[1].text == "Findings: Lungs are clear.\nImpression: No acute process."
    assert first.metadata["prior"] == "no other study is earlier" and first.metadata["prior_study_id"] is None
    assert first.metadata["views"] == ["Frontal", "Lateral"] and first.split == "train"

    assert shown(second) == [
        "Prior study, 35 days earlier:", "Frontal:", "aa-pa.jpg", "Lateral:", "aa-lat.jpg",
        "Current study:", "Frontal:", "bb-ap.jpg",
        "Indication: ___F with cough\nWrite the report of the current chest X-ray study.",
    ]  # fmt: skip
    assert second.turns[1].text.endswith("Impression: 1. New effusion.\n2. Normal heart.")
    assert (second.metadata["prior_study_id"], second.metadata["days_since_prior"]) == ("mimic-cxr/s50000001", 35)
    assert second.metadata["speaks_of_prior"] and not second.metadata["speaks_of_unseen_prior"]
    assert second.metadata["deidentified"] and second.metadata["sections"] == ["findings", "impression"]

    # 00:14:05 lost its zeros in the table and is still before noon of the same day.
    assert shown(third)[0] == "Prior study, earlier on the same day:" and third.metadata["days_since_prior"] == 0
    assert shown(third)[3:6] == ["Current study:", "Frontal:", "cc-none.jpg"]

    alone = found["mimic-cxr/s50000007"]
    assert alone.question is not None and alone.split == "validation"
    assert alone.question.answers == ("No acute disease.",) and alone.metadata["sections"] == ["last paragraph"]
    assert alone.turns[0].text.startswith("Frontal:\nHistory: Cough.")
    assert {s.licence for s in found.values()} == {"PhysioNet Credentialed Health Data License 1.5.0"}

    reasons = {bad.reason for bad in refused}
    assert any("study date '2179-13-01' is no date" in reason for reason in reasons)
    assert any("dd-ap.jpg is missing" in reason for reason in reasons)
    assert any(reason.endswith("s50000008.txt is missing") for reason in reasons) and len(refused) == 3
    # Its prior has no image any more: it is not shown, and the report's "stable" speaks of what is not there.
    orphan = found["mimic-cxr/s50000005"]
    assert orphan.metadata["prior"].startswith("the prior is not shown: the image")
    assert orphan.metadata["speaks_of_unseen_prior"] and orphan.metadata["prior_study_id"] is None


def test_mimic_cxr_with_policies_window_and_the_prior_report(tmp_path: Path) -> None:
    mimic(tmp_path)
    rows = list(mimic_cxr.samples(tmp_path, marks="drop_sentence", window_days=10, unseen_prior="drop_sentence"))
    found, _ = split_up(rows)
    second = found["mimic-cxr/s50000002"]
    assert second.turns[1].text == "Findings: Heart is normal.\nImpression: 2. Normal heart."
    assert second.metadata["prior"] == "the latest earlier study is 35 days earlier, outside the window of 10"
    assert second.metadata["dropped_sentences"] == 2 and not second.metadata["speaks_of_prior"]
    found, _ = split_up(list(mimic_cxr.samples(tmp_path, prior_report=True)))
    assert "Report of the prior study: Findings: Lungs are clear.\nImpression: No acute process." in shown(
        found["mimic-cxr/s50000002"]
    )
    # The current report never stands in its own prompt.
    assert all("effusion" not in text for text in shown(found["mimic-cxr/s50000002"]))
    refusals = [bad.reason for bad in split_up(list(mimic_cxr.samples(tmp_path, marks="refuse")))[1]]
    assert "the text holds 1 marks of de-identification, the first is underscores" in refusals


def test_mimic_cxr_reads_dicom_names_and_refuses_tables_that_disagree(tmp_path: Path) -> None:
    mimic(tmp_path)
    place = tmp_path / "files" / "p10" / "p10000001" / "s50000001"
    (place / "aa-pa.jpg").rename(place / "aa-pa.dcm")
    found, _ = split_up(list(mimic_cxr.samples(tmp_path)))
    first = found["mimic-cxr/s50000001"].visuals()[0]
    assert first.path.endswith("aa-pa.dcm") and first.options == {}

    table = tmp_path / "mimic-cxr-2.0.0-split.csv.gz"
    rows = [
        {"dicom_id": "x", "study_id": "50000001", "subject_id": "10000001", "split": "train"},
        {"dicom_id": "x", "study_id": "50000002", "subject_id": "10000001", "split": "test"},
        {"dicom_id": "x", "study_id": "50000003", "subject_id": "10000001", "split": "dev"},
        {"dicom_id": "x", "study_id": "50000007", "subject_id": "11000003", "split": "test"},
        {"dicom_id": "y", "study_id": "50000007", "subject_id": "11000003", "split": "train"},
    ]
    gzipped(table, rows)
    found, refused = split_up(list(mimic_cxr.samples(tmp_path)))
    reasons = [bad.reason for bad in refused]
    assert "the study stands in two splits" in reasons and list(found) == ["mimic-cxr/s50000007"]
    assert reasons.count("studies of one patient stand in several splits") == 2
    assert "the split is 'dev'" in reasons and reasons.count("the study stands in no split") >= 1

    table.unlink()
    (only,) = [bad for bad in mimic_cxr.samples(tmp_path) if isinstance(bad, BadSample) and "splits" in bad.reason]
    assert "mimic-cxr-2.0.0-split.csv.gz" in only.mend

    whole = (tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz").read_bytes()
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadSample, match="cannot be read to its end"):
        list(mimic_cxr.samples(tmp_path))


# --- CheXpert Plus -------------------------------------------------------------------------------------------

CHEXPERT = (
    "path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order",
    "report", "section_narrative", "section_clinical_history", "section_history", "section_comparison",
    "section_technique", "section_procedure_comments", "section_findings", "section_impression",
    "section_end_of_impression", "section_summary", "section_accession_number", "age", "sex", "race", "ethnicity",
    "interpreter_needed", "insurance_type", "recent_bmi", "deceased", "split",
)  # fmt: skip

WHOLE = """NARRATIVE:
RADIOGRAPHIC EXAMINATION OF THE CHEST: 1/2/2003

CLINICAL HISTORY: Fever.

IMPRESSION:

1. CLEAR LUNGS.

2. A 3.2 CM MASS.

END OF IMPRESSION:

SUMMARY: 2 ABNORMAL
This report has been anonymized. All dates are offset from the actual dates by a fixed interval.
"""


def chexpert_row(path: str, patient: str, order: str, view: str = "Frontal", **changes: str) -> dict[str, str]:
    values = {
        "path_to_image": path, "path_to_dcm": path.replace(".jpg", ".dcm"), "frontal_lateral": view,
        "ap_pa": "AP" if view == "Frontal" else "", "deid_patient_id": patient, "patient_report_date_order": order,
        "split": path.split("/")[0], "section_clinical_history": "Cough", "report": WHOLE,
        "section_findings": "Lungs are clear.\nHeart is normal.", "section_impression": "1. Clear lungs.",
    }  # fmt: skip
    return {name: (values | changes).get(name, "") for name in CHEXPERT}


def chexpert(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / chexpert_plus.TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(CHEXPERT))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        picture(folder / "PNG" / Path(row["path_to_image"]).with_suffix(".png"))


def chexpert_rows() -> list[dict[str, str]]:
    one, two = "train/patient00001/study1", "train/patient00001/study2"
    no_columns = {"section_findings": "", "section_impression": "", "section_clinical_history": ""}
    return [
        chexpert_row(f"{one}/view2_lateral.jpg", "patient00001", "1", "Lateral"),
        chexpert_row(f"{two}/view1_frontal.jpg", "patient00001", "2", **no_columns),
        chexpert_row(f"{one}/view1_frontal.jpg", "patient00001", "1"),
        chexpert_row("valid/patient00002/study1/view1_frontal.jpg", "patient00002", "1"),
        chexpert_row(
            "train/patient00003/study1/view1_frontal.jpg", "patient00003", "1", report="Nothing.", **no_columns
        ),
        chexpert_row("train/patient00004/study1/view1_frontal.jpg", "patient00004", "1", split="dev"),
        chexpert_row("train/patient00005/study1/view1_frontal.jpg", "patient00005", "1"),
        chexpert_row("train/patient00005/study1/view2_frontal.jpg", "patient00005", "1", section_findings="Other."),
    ]


def test_chexpert_plus_one_sample_per_study(tmp_path: Path) -> None:
    chexpert(tmp_path, chexpert_rows())
    (recipe,) = [recipe for recipe in RECIPES if recipe.matches(tmp_path)]
    found, refused = split_up(list(recipe.build(tmp_path)))
    assert list(found) == [
        "chexpert-plus/train/patient00001/study2", "chexpert-plus/train/patient00001/study1",
        "chexpert-plus/valid/patient00002/study1",
    ]  # fmt: skip
    two, one, valid = found.values()
    assert shown(one) == [
        "Frontal:", "view1_frontal.png", "Lateral:", "view2_lateral.png",
        "History: Cough\nWrite the report of this chest X-ray study.",
    ]  # fmt: skip
    assert one.turns[1].text == "Findings: Lungs are clear. Heart is normal.\nImpression: 1. Clear lungs."
    # Without columns the whole report is cut: its clinical history is context, its summary and dates are left out.
    assert shown(two)[-1].startswith("History: Fever.")
    assert two.turns[1].text == "Impression: 1. CLEAR LUNGS.\n\n2. A 3.2 CM MASS."
    assert two.metadata["prior_study_id"] is None and two.metadata["prior"] == "the table has no dates of studies"
    assert valid.split == "validation" and one.split == "train"
    assert [bad.reason for bad in refused] == [
        "the split is 'dev'",
        "neither findings nor an impression stands in the report",
        "rows of one study hold different reports",
    ]


def test_chexpert_plus_links_priors_by_order_only_when_asked(tmp_path: Path) -> None:
    rows = chexpert_rows()[:3]
    chexpert(tmp_path, rows)
    found, _ = split_up(list(chexpert_plus.samples(tmp_path, priors="order")))
    two = found["chexpert-plus/train/patient00001/study2"]
    assert shown(two)[0] == "Prior study:" and "Current study:" in shown(two)
    assert two.metadata["days_since_prior"] is None
    assert two.metadata["prior_study_id"] == "chexpert-plus/train/patient00001/study1"
    # A tie: neither of the two is known to be earlier, so neither is the prior of the third.
    rows[1]["patient_report_date_order"] = "1"
    third = chexpert_row("train/patient00001/study3/view1_frontal.jpg", "patient00001", "2")
    chexpert(tmp_path, [*rows, third])
    found, _ = split_up(list(chexpert_plus.samples(tmp_path, priors="order")))
    assert {s.metadata["prior_study_id"] for s in found.values()} == {None}
    with pytest.raises(ValueError, match="use none or order"):
        list(chexpert_plus.samples(tmp_path, priors="dates"))  # type: ignore[arg-type]


def test_chexpert_plus_names_a_column_and_an_image_that_are_missing(tmp_path: Path) -> None:
    chexpert(tmp_path, chexpert_rows()[:1])
    (tmp_path / "PNG" / "train/patient00001/study1/view2_lateral.png").unlink()
    (bad,) = chexpert_plus.samples(tmp_path)
    assert isinstance(bad, BadSample) and "view2_lateral.png is missing" in bad.reason and "PNG archive" in bad.mend
    text = (tmp_path / chexpert_plus.TABLE).read_text()
    (tmp_path / chexpert_plus.TABLE).write_text(text.replace("section_findings", "findings", 1))
    with pytest.raises(BadSample, match="column 'section_findings' is missing"):
        list(chexpert_plus.samples(tmp_path))


def test_the_walk_builds_both_from_one_folder(tmp_path: Path) -> None:
    mimic(tmp_path / "m")
    chexpert(tmp_path / "c", chexpert_rows())
    counts = walk_folder(tmp_path).counts
    assert counts["other_files"] == 0 and set(counts["by_source"]) == {"mimic-cxr", "chexpert-plus"}
    assert counts["by_source"]["mimic-cxr"] == {"train": 3, "validation": 1, "test": 1, "quarantined": 3}
    assert counts["by_source"]["chexpert-plus"] == {"train": 2, "validation": 1, "test": 0, "quarantined": 3}
