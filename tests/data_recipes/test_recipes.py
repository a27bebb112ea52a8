"""Each recipe on a few rows in its published layout: what comes out, and what is refused with which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from recipe_fixtures.ct_rate import FIXTURE as CT_RATE
from recipe_fixtures.ct_rate import place as ct_rate_volume
from recipe_fixtures.medmnist import LABELS as MEDMNIST
from recipe_fixtures.medmnist import write as medmnist
from recipe_fixtures.medpix import FIXTURE as MEDPIX
from recipe_fixtures.medqa import OPTIONS as MEDQA_OPTIONS
from recipe_fixtures.medqa import row as medqa_row
from recipe_fixtures.open_i import write_reports as open_i_reports
from recipe_fixtures.slake import row as slake_row
from recipe_fixtures.vqa_rad import row as vqa_rad_row
from recipe_fixtures.writing import json_file, json_lines, picture, replace, table, text

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.label_questions import labels_to_ask, spoken
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes import RECIPES, vqa_med_2019
from medvlm.data_recipes.recipes.medmnist_flags import FLAGS
from medvlm.data_recipes.sample import Sample, from_json, to_json
from medvlm.data_recipes.tables import Row, read_csv
from medvlm.data_recipes.walk import walk_folder
from medvlm.model.visual import Volume


def recipe_for(folder: Path) -> Recipe:
    """The one recipe that matches; two would build the same rows twice."""
    (found,) = [recipe for recipe in RECIPES if recipe.matches(folder)]
    return found


def build(folder: Path) -> tuple[list[Sample], list[BadSample]]:
    rows = list(recipe_for(folder).build(folder))
    samples = [row for row in rows if isinstance(row, Sample)]
    for sample in samples:
        assert from_json(to_json(sample), where="again") == sample
    return samples, [row for row in rows if isinstance(row, BadSample)]


def answer(sample: Sample) -> str:
    return sample.turns[-1].text if sample.question is None else sample.question.answers[0]


# --- VQA-RAD -------------------------------------------------------------------------------------------------


def test_vqa_rad_in_the_osf_layout(tmp_path: Path) -> None:
    picture(tmp_path / "VQA_RAD Image Folder" / "synpic1.jpg")
    rows = [
        vqa_rad_row(1),
        vqa_rad_row(2, phrase_type="test_freeform", answer_type="CLOSED ", answer="no", question="Any nodule?"),
        vqa_rad_row(3, answer_type="OPEN", answer=2, question="How many kidneys?", question_type="COUNT"),
        vqa_rad_row(4, phrase_type="test_para", answer="left", question="Which side?", question_type="POS, PRES"),
        vqa_rad_row(5, answer="  "),
        vqa_rad_row(6, image_name="synpic9.jpg"),
        vqa_rad_row(7, answer_type="OPEN", answer="None", question="What is abnormal?"),
    ]
    json_file(tmp_path / "VQA_RAD Dataset Public.json", rows)
    samples, refused = build(tmp_path)

    assert [(s.sample_id, s.split, answer(s)) for s in samples] == [
        ("vqa-rad/1", "train", "yes"),
        ("vqa-rad/2", "test", "no"),
        ("vqa-rad/3", "train", "2"),
        ("vqa-rad/4", "test", "left"),
        ("vqa-rad/7", "train", "None"),
    ]
    assert samples[0].turns[0].text == "Is there an effusion? Answer yes or no."
    closed, beyond = samples[1].question, samples[3].question
    assert closed is not None and (closed.kind, closed.choices, closed.topic) == ("closed", ("yes", "no"), "presence")
    # Officially closed but not yes/no: asked as an open question, and the metadata say so.
    assert beyond is not None and (beyond.kind, beyond.choices, beyond.topic) == ("open", (), "position")
    assert samples[3].metadata["official_closed"] is True
    assert {s.patient_id for s in samples} == {"medpix/synpic1"} and {s.licence for s in samples} == {"CC0-1.0"}
    empty, missing = refused
    assert empty.where.endswith("VQA_RAD Dataset Public.json:5")
    assert empty.reason == "'answer' is empty ('  ')" and empty.mend == "fill in 'answer' or drop the row"
    assert missing.where.endswith(":6") and "synpic9.jpg is missing" in missing.reason and "osf.io" in missing.mend


def test_vqa_rad_in_the_mevf_form_with_images_in_a_sibling(tmp_path: Path) -> None:
    picture(tmp_path / "raw" / "VQA_RAD Image Folder" / "synpic1.jpg")
    folder = tmp_path / "mevf"
    json_file(folder / "trainset.json", [vqa_rad_row(1, modality="CT"), vqa_rad_row(2, answer=3, answer_type="OPEN")])
    json_file(folder / "testset.json", [vqa_rad_row(1, modality="CT"), "not an object"])
    samples, refused = build(folder)
    assert [(s.sample_id, s.split) for s in samples] == [
        ("vqa-rad-mevf/train/1", "train"), ("vqa-rad-mevf/train/2", "train"), ("vqa-rad-mevf/test/1", "test"),
    ]  # fmt: skip
    assert samples[0].visuals()[0].path == str(tmp_path / "raw" / "VQA_RAD Image Folder" / "synpic1.jpg")
    assert samples[0].metadata["modality"] == "CT"
    assert [bad.reason for bad in refused] == ["expected an object, got str"]


# --- images with notes, clips, reports -----------------------------------------------------------------------


def covid_row(name: str, **changes: str) -> dict[str, str]:
    row = {
        "patientid": "1", "offset": "0", "sex": "F", "age": "60", "finding": "todo", "view": "PA",
        "modality": "X-ray", "folder": "images", "filename": name, "license": "CC BY-NC-SA",
        "clinical_notes": "Cough, with fever.", "": "",
    }  # fmt: skip
    return row | changes


def test_covid_chestxray_keeps_licences_and_patients_together(tmp_path: Path) -> None:
    rows = [
        covid_row("a.png"),
        covid_row("b.png", offset="3", view="L", finding="Pneumonia/Viral/COVID-19"),
        *(covid_row(f"{n}.png", patientid=str(n), license="CC BY") for n in range(2, 6)),
        covid_row("c.png", license=""),
        covid_row("a.png"),
        covid_row("d.png", view="", clinical_notes=""),
    ]
    for row in rows:
        picture(tmp_path / "images" / row["filename"])
    table(tmp_path / "metadata.csv", rows)
    samples, refused = build(tmp_path)

    first = [s for s in samples if s.patient_id == "covid-chestxray/1"]
    assert [s.sample_id.split("/", 1)[1] for s in first] == [
        "a.png/note", "a.png/view", "b.png/note", "b.png/view", "b.png/finding",
    ]  # fmt: skip
    assert [answer(s) for s in first] == ["Cough, with fever.", "PA", "Cough, with fever.", "L", "COVID-19"]
    assert first[0].licence == "CC BY-NC-SA" and first[0].study_id != first[2].study_id
    splits: dict[str, set[str]] = {}
    for sample in samples:
        splits.setdefault(sample.patient_id, set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values()) and {"train"} in splits.values()
    assert {"test"} in splits.values()
    assert [bad.reason.split(" at ")[0] for bad in refused] == [
        "no licence is stated for this image",
        "image 'a.png' is listed already",
        "'clinical_notes', 'view' and 'finding' are all empty: there is no text to learn from",
    ]
    assert refused[0].where.endswith("metadata.csv:8")


def test_covid_blues_reads_scores_lines_and_comments(tmp_path: Path) -> None:
    rows = [
        {"video_file": "patient_18_L1", "Severity Score": "2.0", "A-lines": "no", "B-lines": "yes", "comments": "wet"},
        {"video_file": "patient_18_R2", "Severity Score": "", "A-lines": "yes", "B-lines": "", "comments": ""},
        {"video_file": "patient_22_L1", "Severity Score": "7", "A-lines": "", "B-lines": "", "comments": ""},
        {"video_file": "patient_22_R1", "Severity Score": "", "A-lines": "", "B-lines": "", "comments": ""},
        {"video_file": "clip_3", "Severity Score": "1", "A-lines": "", "B-lines": "", "comments": ""},
    ]
    table(tmp_path / "severity.csv", rows)
    table(
        tmp_path / "clinical_variables.csv",
        [{"patient_id": "18", "pat_sex": "1.0", "pat_age": "-99.0", "cov_test": "1"}],
    )
    for row in rows:
        text(tmp_path / "lus_videos" / f"{row['video_file']}.mp4", "a clip")
    samples, refused = build(tmp_path)
    assert [(s.metadata["topic"], answer(s)) for s in samples] == [
        ("severity", "2"), ("a-lines", "no"), ("b-lines", "yes"), ("comment", "wet"), ("a-lines", "yes"),
    ]  # fmt: skip
    facts = samples[0].metadata
    assert (facts["side"], facts["sex"], facts["age"], facts["covid_test"]) == ("left", "male", "unknown", "positive")
    assert {s.licence for s in samples} == {"CC BY-NC-ND 4.0"} and samples[0].visuals()[0].kind == "video"
    assert [bad.reason for bad in refused] == [
        "the answer '7' is not one of 0, 1, 2, 3",
        "score, lines and comments are all empty",
        "clip name 'clip_3' is not patient_<id>_<L or R><position>",
    ]


def open_i(folder: Path) -> None:
    open_i_reports(folder)
    text(folder / "NLMCXR_reports" / "ecgen-radiology" / "4.xml", "<eCitation>")


def test_open_i_without_images_asks_for_the_impression(tmp_path: Path) -> None:
    open_i(tmp_path)
    samples, refused = build(tmp_path)
    assert [s.turns[0].text for s in samples] == [
        "Indication: Cough\nFindings: Clear lungs.\nWrite the impression of this chest X-ray report.",
        "Findings: XXXX is clear.\nWrite the impression of this chest X-ray report.",
    ]
    assert [answer(s) for s in samples] == ["No acute disease."] * 2
    assert [s.metadata["deidentified"] for s in samples] == [False, True]
    assert [s.metadata["dimension"] for s in samples] == ["text", "text"]
    assert sorted(bad.reason[:25] for bad in refused) == ["'findings' is empty ('')", "not readable XML: no elem"]


def test_open_i_with_images_asks_for_the_report(tmp_path: Path) -> None:
    open_i(tmp_path)
    for name in ("CXR1_IM-1", "CXR1_IM-2", "CXR3_IM-1"):
        picture(tmp_path / "NLMCXR_png" / f"{name}.png")
    samples, refused = build(tmp_path)
    assert [answer(s) for s in samples] == [
        "Findings: Clear lungs. Impression: No acute disease.", "Impression: No acute disease.",
    ]  # fmt: skip
    assert [len(s.visuals()) for s in samples] == [2, 1]
    assert any("CXR2_IM-1.png is missing" in bad.reason for bad in refused) and len(refused) == 2


def test_medicat_captions_lose_the_figure_number(tmp_path: Path) -> None:
    picture(tmp_path / "figures" / "p1_2-Figure1-1.png")
    rows: list[object] = [
        {
            "pdf_hash": "p1", "fig_uri": "2-Figure1-1.png", "s2_caption": "Figure 1. Axial CT of the chest.",
            "radiology": True, "oa_info": {"oa": {"license": "cc-by-nc-nd"}},
        },
        {"pdf_hash": "p2", "fig_uri": "3-Figure2-1.png", "s2_caption": "Fig 2: MRI.", "oa_info": None},
    ]  # fmt: skip
    text(tmp_path / "sample.jsonl", "\n".join([*(json.dumps(row) for row in rows), "{broken"]))
    samples, refused = build(tmp_path)
    assert [answer(s) for s in samples] == ["Axial CT of the chest."]
    assert samples[0].licence == "non-commercial use (MedICaT); paper: cc-by-nc-nd"
    assert "p2_3-Figure2-1.png is missing" in refused[0].reason and refused[1].reason.startswith("not JSON")


# --- question tables -----------------------------------------------------------------------------------------


def test_slake_keeps_its_three_splits_and_both_languages(tmp_path: Path) -> None:
    picture(tmp_path / "imgs" / "xmlab1" / "source.jpg")
    json_file(tmp_path / "train.json", [slake_row(1), slake_row(2, img_name="xmlab2/source.jpg")])
    json_file(tmp_path / "validate.json", [slake_row(3, q_lang="zh", question="有心脏吗?", answer="有")])
    json_file(tmp_path / "test.json", [slake_row(4, answer="No"), slake_row(5, answer="")])
    samples, refused = build(tmp_path)
    assert [(s.split, answer(s), s.metadata["language"]) for s in samples] == [
        ("train", "yes", "en"), ("validation", "有", "zh"), ("test", "no", "en"),
    ]  # fmt: skip
    assert [(s.question.kind, s.question.choices) for s in samples if s.question] == [
        ("closed", ("有", "没有")), ("closed", ("yes", "no")),
    ]  # fmt: skip
    assert samples[1].turns[-1].text == "有心脏吗? 请回答有或没有。"
    assert samples[0].metadata["modality"] == "MR"
    assert "xmlab2/source.jpg is missing" in refused[0].reason and "unpack imgs.zip" in refused[0].mend
    assert refused[1].where.endswith("test.json:2") and "'answer' is empty" in refused[1].reason


def test_three_d_rad_checks_the_letter_against_the_answer(tmp_path: Path) -> None:
    header = [
        "Task", "Subtask", "VolumeName", "Question", "Answer", "QuestionType", "AnswerChoice", "Choice A", "Choice B",
        "Choice C", "Choice D",
    ]  # fmt: skip
    rows = [
        ["3", "1", "test_1_a_1.nii.gz", "How large?", "22 mm", "Open", "-", "-", "-", "-", "-"],
        ["4", "7", "test_1_a_1.nii.gz", "Emphysema?", "No", "Close", "B", "Yes", "No", "-", "-"],
        ["5", "7", "test_1_b_1.nii.gz", "How has it changed?", "New", "Close", "C", "Same", "Gone", "New", "None"],
        ["5", "7", "test_1_b_1.nii.gz", "How has it changed?", "New", "Close", "A", "Same", "Gone", "New", "None"],
        ["4", "7", "test_2_a_1.nii.gz", "Emphysema?", "No", "Close", "B", "Yes", "No", "-", "-"],
    ]
    table(
        tmp_path / "3DRAD" / "test" / "Task4_Existence_Detection" / "Emphysema.csv",
        [dict(zip(header, row, strict=True)) for row in rows],
    )
    for name in ("test_1_a_1.nii.gz", "test_1_b_1.nii.gz"):
        text(tmp_path / "volumes" / name, "a volume")
    samples, refused = build(tmp_path)
    assert [(s.question.kind, s.question.answers) for s in samples if s.question] == [
        ("open", ("22 mm",)), ("closed", ("no",)), ("choice", ("C",)),
    ]  # fmt: skip
    assert samples[2].turns[0].text.endswith("A. Same\nB. Gone\nC. New\nD. None\nAnswer with the letter.")
    assert {s.patient_id for s in samples} == {"ct-rate/test_1"}
    assert samples[0].study_id == "ct-rate/test_1_a" and samples[2].study_id == "ct-rate/test_1_b"
    assert samples[0].visuals()[0].options == {"modality": "CT", "unit": "HU"}
    assert refused[0].reason == "AnswerChoice 'A' does not name the Answer 'New' among 4 choices"
    assert "test_2_a_1.nii.gz is missing" in refused[1].reason


def test_vqa_med_2019_answers_and_rows(tmp_path: Path) -> None:
    picture(tmp_path / "VQAMed2019_Test_Images" / "synpic1.jpg")
    lines = [
        "synpic1|modality|is this a ct scan?|yes",
        "synpic1|organ|what organ system?|lung (chest)#heart",
        "synpic1|plane|which plane?",
        "synpic2|plane|which plane?|axial",
    ]
    text(tmp_path / "VQAMed2019_Test_Questions_w_Ref_Answers.txt", "\n".join(lines))
    samples, refused = build(tmp_path)
    assert [s.question.answers for s in samples if s.question] == [("yes",), ("lung chest", "lung", "heart")]
    assert [s.question.kind for s in samples if s.question] == ["closed", "open"]
    assert refused[0].reason == "3 cells, expected 4: image|category|question|answer"
    assert refused[0].where.endswith(":3") and "synpic2.jpg is missing" in refused[1].reason


def test_accepted_answers_of_vqa_med() -> None:
    assert vqa_med_2019.accepted("xr - plain film") == ["xr - plain film"]
    assert vqa_med_2019.accepted("(left) lung#  spine") == ["left lung", "lung", "spine"]


def test_medquad_keeps_a_document_in_one_split(tmp_path: Path) -> None:
    pair = (
        '<QAPair pid="{n}"><Question qid="x-{n}" qtype="causes">Why {n}?</Question><Answer>{answer}</Answer></QAPair>'
    )
    for document in range(5):
        pairs = pair.format(n=1, answer=" Because  of this. ") + pair.format(n=2, answer="" if document else "Yes.")
        content = f'<Document id="{document}" source="Src"><QAPairs>{pairs}</QAPairs></Document>'
        text(tmp_path / "1_CancerGov_QA" / f"{document:07}.xml", content)
    samples, refused = build(tmp_path)
    assert len(samples) == 6 and answer(samples[0]) == "Because of this."
    assert sorted(s.split for s in {s.patient_id: s for s in samples}.values()) == ["test"] + ["train"] * 4
    assert len({s.split for s in samples if s.patient_id.endswith("0000000")}) == 1
    assert len(refused) == 4 and refused[0].reason == "'answer' is empty ('')"


def pubmedqa_row(decision: str) -> dict[str, object]:
    return {
        "QUESTION": "Does it help?", "CONTEXTS": ["We asked.", "We saw."], "LABELS": ["AIM", "RESULTS"],
        "YEAR": "2010", "final_decision": decision, "LONG_ANSWER": "It may help.",
    }  # fmt: skip


def test_pubmedqa_splits_by_the_official_test_file(tmp_path: Path) -> None:
    rows = {"11": pubmedqa_row("yes"), "12": pubmedqa_row("maybe"), "13": pubmedqa_row("no")}
    json_file(tmp_path / "data" / "ori_pqal.json", rows)
    json_file(tmp_path / "data" / "test_ground_truth.json", {"12": "maybe", "13": "yes"})
    samples, refused = build(tmp_path)
    assert [(s.sample_id, s.split, answer(s)) for s in samples] == [
        ("pubmedqa/11/decision", "train", "yes"), ("pubmedqa/11/conclusion", "train", "It may help."),
        ("pubmedqa/12/decision", "test", "maybe"), ("pubmedqa/12/conclusion", "test", "It may help."),
    ]  # fmt: skip
    assert samples[0].turns[0].text == "We asked.\nWe saw.\nQuestion: Does it help? Answer yes, no or maybe."
    assert [bad.reason for bad in refused] == ["final_decision is 'no' but test_ground_truth.json says 'yes'"]


def test_pubmedqa_builds_nothing_when_test_rows_cannot_be_told(tmp_path: Path) -> None:
    json_file(tmp_path / "ori_pqal.json", {"11": pubmedqa_row("yes")})
    samples, refused = build(tmp_path)
    assert not samples and "test rows cannot be told from training rows" in refused[0].reason


# --- many labels of one picture, volumes, cases, examinations ----------------------------------------------------


def test_training_asks_as_many_absent_labels_as_present_ones() -> None:
    labels = [f"label {number}" for number in range(14)]
    for number in range(20):
        for present in ([], labels[3:4], labels[2:6], labels[:10]):
            asked = labels_to_ask(present, labels, key=str(number), split="train")
            absent = [label for label in asked if label not in present]
            assert set(present) <= set(asked) and len(absent) == min(max(1, len(present)), 14 - len(present))
            assert list(asked) == [label for label in labels if label in asked]
    assert len({labels_to_ask([], labels, key=str(n), split="train") for n in range(100)}) > 10, "not always the same"
    assert labels_to_ask(labels[:1], labels, key="a", split="test") == tuple(labels)
    assert spoken("Pleural_Thickening", ()) == "pleural thickening"
    assert (spoken("Effusion", {"Effusion"}), spoken("Mass", {"Mass"})) == ("an effusion", "a mass")


def test_every_medmnist_set_is_asked() -> None:
    assert len(FLAGS) == 18 and sum(flag.endswith("3d") for flag in FLAGS) == 6
    for name, flag in FLAGS.items():
        assert len(set(flag.answers)) == len(flag.answers) >= 2, name
        assert flag.prompt.endswith("?") and ("{}" in flag.prompt) == flag.findings
    assert [name for name, flag in FLAGS.items() if flag.licence != "CC BY 4.0"] == ["dermamnist"]


def test_medmnist_asks_each_kind_of_set_in_its_way(tmp_path: Path) -> None:
    medmnist(tmp_path)
    samples, refused = build(tmp_path)
    assert not refused and set(MEDMNIST) == {s.visuals()[0].path.split("/")[-1].removesuffix(".npz") for s in samples}
    by_id = {s.sample_id.removeprefix("medmnist/"): s for s in samples}
    assert answer(by_id["pathmnist/train/1/open"]) == "adipose" and answer(by_id["pathmnist/train/1/choice"]) == "A"
    pneumonia = by_id["pneumoniamnist/test/0/class"].question
    assert pneumonia is not None and (pneumonia.kind, pneumonia.answers) == ("closed", ("yes",))
    grade = by_id["retinamnist_64/test/0/class"]
    assert grade.question is not None and grade.question.choices == ("0", "1", "2", "3", "4")
    assert grade.turns[0].text.endswith("Answer 0, 1, 2, 3 or 4.") and answer(grade) == "4"
    assert grade.patient_id == "medmnist/retinamnist/test/0", "the same picture in another size is the same patient"
    findings = [s for s in samples if s.sample_id.startswith("medmnist/chestmnist/test")]
    assert [answer(s) for s in findings] == ["yes"] + ["no"] * 13
    trained = [answer(s) for s in samples if s.sample_id.startswith("medmnist/chestmnist/train")]
    assert sorted(trained) == ["no", "no", "yes", "yes"]


def test_the_walk_tells_the_items_of_an_archive_apart(tmp_path: Path) -> None:
    """Same file, same question, other item: a training row is no copy of a test row."""
    medmnist(tmp_path / "sets")
    result = walk_folder(tmp_path)
    assert result.quarantine == () and result.counts["images"] == 13 and result.counts["volumes"] == 3


def test_ct_rate_volumes_are_in_hounsfield_units_and_reconstructions_share_a_study(tmp_path: Path) -> None:
    CT_RATE.write(tmp_path)
    samples, _ = build(tmp_path)
    reports = [s for s in samples if s.metadata["topic"] == "report"]
    assert [s.study_id for s in reports] == ["ct-rate/train_1_a"] * 2 + ["ct-rate/train_2_a", "ct-rate/valid_1_a"]
    assert [s.turns[0].text.startswith("Indication: Cough") for s in reports] == [True, True, False, True]
    volume = read(reports[0].visuals()[0], tmp_path)
    assert isinstance(volume, Volume) and volume.unit == "HU" and volume.spacing_mm == (1.5, 0.75, 0.75)
    assert -1024 <= volume.voxels.min() < -900 and volume.voxels.max() > 800
    asked = [s for s in samples if s.study_id == "ct-rate/valid_1_a" and s.question and s.question.kind == "closed"]
    assert len(asked) == 18 and sum(answer(s) == "yes" for s in asked) == 2


def test_ct_rate_needs_neither_labels_nor_metadata(tmp_path: Path) -> None:
    CT_RATE.write(tmp_path)
    for folder in ("multi_abnormality_labels", "metadata"):
        shutil.rmtree(tmp_path / folder)
    samples, refused = build(tmp_path)
    assert not refused and [s.metadata["topic"] for s in samples] == ["report"] * 4
    reports = tmp_path / "radiology_text_reports" / "train_reports.csv"
    replace(reports, "train_1_a_1.nii.gz", "scan_1.nii.gz")
    report = '"A nodule of 4 mm, in the right upper lobe.",Nonspecific nodule.'
    before = "train_1_a_2.nii.gz,Cough,Non-contrast images.,"
    replace(reports, before + report, before + ",")
    samples, refused = build(tmp_path)
    assert len(samples) == 2 and ct_rate_volume(tmp_path, "train_1_a_1").exists()
    assert [bad.reason for bad in refused] == [
        "'scan_1.nii.gz' is not train_<patient>_<scan>_<reconstruction>.nii.gz", "the report is empty",
    ]  # fmt: skip


def test_medpix_states_a_modality_only_where_the_plane_is_one_of_ct_or_mr(tmp_path: Path) -> None:
    MEDPIX.write(tmp_path)
    rows = tmp_path / "splitted_dataset" / "descriptions_train.jsonl"
    replace(rows, '"Plane": "Axial"', '"Plane": "Photograph"')
    replace(rows, '"Plane": "Axial"', '"Plane": "Transverse"')
    replace(rows, "A synthetic nodule of case MPX1001.", "CT image 5")
    samples, refused = build(tmp_path)
    described = [s for s in samples if s.sample_id.startswith("medpix-2/MPX1001_")]
    assert [(s.metadata["topic"], s.metadata["modality"]) for s in described] == [
        ("organ", "unknown"), ("caption", "MR"), ("modality", "MR"), ("plane", "MR"), ("organ", "MR"),
    ]  # fmt: skip
    assert answer(described[3]) == "axial"
    assert [bad.reason for bad in refused] == ["'Caption' is not filled in ('CT image 5')"]
    case = next(s for s in samples if s.sample_id == "medpix-2/MPX1003/diagnosis")
    assert len(case.visuals()) == 2 and case.turns[0].text.startswith("History: A synthetic patient")


def test_medqa_of_the_hub_has_four_options_and_the_chinese_sets_are_left_alone(tmp_path: Path) -> None:
    four = {letter: MEDQA_OPTIONS[letter] for letter in "ABCD"}
    json_lines(tmp_path / "hub" / "phrases_no_exclude_test.jsonl", [medqa_row("test", four)])
    samples, refused = build(tmp_path / "hub")
    assert not refused and [s.sample_id for s in samples] == ["medqa/four-options/test/1"]
    assert samples[0].question is not None and samples[0].question.choices == tuple(four.values())
    chinese = {**medqa_row("test", four), "meta_info": "第一部分"}
    json_lines(tmp_path / "Mainland" / "test.jsonl", [chinese])
    assert not [recipe.name for recipe in RECIPES if recipe.matches(tmp_path / "Mainland")]


# --- what all share ------------------------------------------------------------------------------------------


def test_every_recipe_states_what_its_authors_publish() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES) >= 19
    with pytest.raises(ValueError, match="'licence' is empty"):
        Recipe(
            name="x", version="1", licence=" ", url="u", citation="c", owned=(), matches=lambda _: False,
            build=lambda _: iter(()),
        )  # fmt: skip


def test_an_empty_folder_matches_no_recipe(tmp_path: Path) -> None:
    assert not [recipe for recipe in RECIPES if recipe.matches(tmp_path)]


def test_separators_inside_a_cell_do_not_end_a_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\r\none\u2028two,\x0cx\x85\n"l1\nl2",y\n', encoding="utf-8", newline="")
    rows = [row for row in read_csv(tmp_path / "t.csv", required=("a",)) if isinstance(row, Row)]
    assert [row.values for row in rows] == [{"a": "one\u2028two", "b": "\x0cx\x85"}, {"a": "l1\nl2", "b": "y"}]
    assert [row.number for row in rows] == [2, 3]


def test_a_table_of_another_encoding_is_named(tmp_path: Path) -> None:
    header = b"patientid,clinical_notes,filename,license\n"
    (tmp_path / "metadata.csv").write_bytes(header + "1,na\xefve,a.png,CC BY\n".encode("cp1252"))
    with pytest.raises(BadSample, match="not UTF-8 at byte 46"):
        list(recipe_for(tmp_path).build(tmp_path))


def test_ask_refuses_an_empty_answer_with_its_row() -> None:
    with pytest.raises(BadSample) as caught:
        ask(
            sample_id="s", patient_id="p", source="x", licence="CC0-1.0", split="train", prompt="Why?", answers=[" "],
            where="t.csv:3",
        )  # fmt: skip
    assert str(caught.value) == (
        "t.csv:3: the answer is empty: there is nothing to learn or to score. Mend: fill in the answer or drop the row"
    )
