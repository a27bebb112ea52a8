"""Examinations, text tasks and labels: every example is read, wrong splits are refused, known traps are avoided."""

from __future__ import annotations

import base64
import csv
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample
from medvlm.eval.extract import extract
from medvlm.eval.metric import Answered
from medvlm.eval.models import reference_of
from medvlm.eval.score import marks_of
from medvlm.eval.scorers.choice import is_correct
from medvlm.eval.task import Task, fingerprint, load
from medvlm.eval.tasks import medbullets, medmcqa, medqa, medxpertqa, mmlu_med
from medvlm.eval.tasks.exams import TASKS
from medvlm.eval.tasks.made_up import png, write_json_lines, write_parquet
from medvlm.eval.tasks.placed import in_their_places

pytest.importorskip("pyarrow", reason="examples of the hub's layout are Parquet files")
BY_NAME = {task.name: task for task in TASKS}
IDS = [task.name for task in TASKS]


def items(task: Task | str, folder: Path) -> list[Sample]:
    found = load(BY_NAME[task] if isinstance(task, str) else task, folder, partial=True)
    assert not found.bad, found.bad
    return [item.sample for item in found.items]


def refused(task: str, folder: Path) -> list[BadSample]:
    return [sample for sample in BY_NAME[task].read(folder) if isinstance(sample, BadSample)]


def right(sample: Sample, text: str) -> bool:
    prompt = sample.turns[-1].text
    return is_correct(sample.question, extract(sample.question, text, prompt).value, prompt)


# --- every task ----------------------------------------------------------------------------------------------


def test_the_names_are_those_that_people_use_and_differ():
    assert len(set(IDS)) == len(IDS)
    wanted = {
        "mmmu-med-val": 150, "medxpertqa-mm": 2000, "medxpertqa-text": 2450, "gmai-mmbench-val": 4550,
        "radimagenet-vqa": 9000, "medframeqa": 2851, "medqa": 1273, "medmcqa": 4183, "pubmedqa": 500, "mmlu-med": 1089,
        "medbullets-op4": 308, "medbullets-op5": 308, "supergpqa-med": 2755, "medmnist-path": 7180,
        "medmnist-organ3d": 610, "chestx-ray14-labels": 25596, "bc5cdr-chemical": 500, "medec-ms": 597,
    }  # fmt: skip
    assert {name: BY_NAME[name].n for name in wanted} == wanted
    for task in TASKS:
        assert task.ids_sha256 is None or re.fullmatch("[0-9a-f]{64}", task.ids_sha256), task.name


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_the_example_is_read_completely_and_is_not_the_published_split(task, tmp_path):
    task.example(tmp_path)
    found = load(task, tmp_path, partial=True)
    assert len(found.items) >= 24 and not found.bad
    with pytest.raises(ValueError, match=re.escape(f"{task.n} were published")):
        load(task, tmp_path)
    for item in found.items:
        for ref in item.sample.visuals():
            if ref.path.endswith(".npz"):
                continue
            with PIL.Image.open(ref.path) as picture:
                picture.load()


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_the_example_is_the_same_twice_and_reads_as_its_own_answers(task, tmp_path):
    assert fingerprint(task) == fingerprint(task)
    task.example(tmp_path)
    asked = load(task, tmp_path, partial=True).items
    answers = [
        Answered(
            item=item, question=item.question, prompt=item.prompt, condition="image",
            written=(text := reference_of(item.question)), value=extract(item.question, text, item.prompt).value,
        )
        for item in asked
    ]  # fmt: skip
    keys = ("correct", "exact_match", "labels_exact", "entity_exact", "span_exact", "json_exact")
    for row in marks_of(answers):
        assert [row[key] for key in keys if key in row] == [1.0], row
    letters = [item.question.answers[0] for item in asked if item.question.kind == "choice"]
    assert not letters or len(set(letters)) > 1, "one letter is always right: nothing could tell a wrong reader"


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_an_empty_folder_is_refused_by_name(task, tmp_path):
    with pytest.raises(ValueError, match="can be asked"):
        load(task, tmp_path)


def test_another_split_of_the_same_size_is_refused(tmp_path):
    """308 rows that are not the 308 published ones."""
    options = {"opa": "a1", "opb": "b1", "opc": "c1", "opd": "d1"}
    lines = ["question,opa,opb,opc,opd,answer_idx,answer"]
    lines += [f"Question {number}?,{','.join(options.values())},A,a1" for number in range(308)]
    (tmp_path / "medbullets_op4.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match="not the same ones"):
        load(BY_NAME["medbullets-op4"], tmp_path)


# --- letters -------------------------------------------------------------------------------------------------


def test_options_that_are_letters_in_another_order(tmp_path):
    """86 questions of MedXpertQA MM: the answer E is the fifth option, which reads A."""
    BY_NAME["medxpertqa-mm"].example(tmp_path)
    sample = next(one for one in items("medxpertqa-mm", tmp_path) if one.question.choices == ("D", "E", "C", "B", "A"))
    letter = sample.question.answers[0]
    assert [text for text in "ABCDE" if right(sample, text)] == [letter]
    assert [text for text in "ABCDE" if right(sample, f"The answer is ({text}).")] == [letter]


def test_ten_options_are_lettered_to_j(tmp_path):
    BY_NAME["supergpqa-med"].example(tmp_path)
    tens = [one for one in items("supergpqa-med", tmp_path) if len(one.question.choices) == 10]
    late = [one for one in tens if one.question.answers[0] in "FGHIJ"]
    assert late
    for sample in late:
        letter = sample.question.answers[0]
        text = sample.question.choices["ABCDEFGHIJ".index(letter)]
        assert f"\n{letter}. {text}\n" in sample.turns[0].text
        for said in (letter, f"{letter}.", f"({letter})", f"**{letter}. {text}**", f"The answer is {letter}.", text):
            assert right(sample, said), said
        assert not right(sample, "A") and not right(sample, "K")


def test_other_disciplines_are_left_out_and_a_wrong_letter_is_refused(tmp_path):
    BY_NAME["supergpqa-med"].example(tmp_path)
    path = tmp_path / "SuperGPQA-all.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["discipline"] for row in rows} == {"Medicine", "Law"}
    assert len(items("supergpqa-med", tmp_path)) == sum(row["discipline"] == "Medicine" for row in rows)
    rows[0]["answer_letter"] = "A" if rows[0]["answer_letter"] != "A" else "B"
    write_json_lines(path, rows)
    assert len(refused("supergpqa-med", tmp_path)) == 1
    assert "another option" in refused("supergpqa-med", tmp_path)[0].reason


# --- text ----------------------------------------------------------------------------------------------------


def _medmcqa(first: int) -> list[dict]:
    return [
        {
            "id": f"q{number}", "question": f"Question {number}?", "opa": "one", "opb": "two", "opc": "three",
            "opd": "None", "cop": number % 4 + first, "choice_type": "single", "subject_name": "Dental",
            "topic_name": None, "exp": "",
        }
        for number in range(8)
    ]  # fmt: skip


def test_medmcqa_counts_options_from_one_or_from_zero(tmp_path):
    write_json_lines(tmp_path / "own" / "dev.json", _medmcqa(1))
    write_parquet(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", _medmcqa(0))
    own, hub = items("medmcqa", tmp_path / "own"), items("medmcqa", tmp_path / "hub")
    assert [one.question for one in own] == [one.question for one in hub]
    assert [one.question.answers[0] for one in own] == list("ABCDABCD")
    assert own[0].question.choices[3] == "None", "None is an option, not the absence of one"
    write_json_lines(tmp_path / "part" / "dev.json", _medmcqa(1)[:3])
    with pytest.raises(ValueError, match="cannot be told"):
        load(BY_NAME["medmcqa"], tmp_path / "part", partial=True)
    assert medmcqa.first_number({"0", "3"}, "f") == 0 and medmcqa.first_number({"1", "4"}, "f") == 1


def test_medqa_is_the_same_in_both_published_layouts(tmp_path):
    medqa.example(tmp_path)
    own = items("medqa", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "phrases_no_exclude_test.jsonl").read_text().splitlines()]
    hub = [
        {
            "id": f"test-{number:05d}", "sent1": row["question"], "sent2": "",
            **{f"ending{place}": text for place, text in enumerate(row["options"].values())},
            "label": "ABCD".index(row["answer_idx"]),
        }
        for number, row in enumerate(rows)
    ]  # fmt: skip
    write_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", hub)
    other = items("medqa", tmp_path / "hub")
    assert [(one.sample_id, one.question) for one in own] == [(one.sample_id, one.question) for one in other]


def test_medqa_with_five_options_is_another_benchmark(tmp_path):
    row = {"question": "What?", "answer": "e1", "answer_idx": "E", "meta_info": "step1"}
    row["options"] = {letter: f"{letter.lower()}1" for letter in "ABCDE"}
    write_json_lines(tmp_path / "test.jsonl", [row])
    assert refused("medqa", tmp_path)[0].reason == "5 options, the benchmark has four"


def test_mmlu_has_six_subjects_in_both_layouts_and_knows_repeated_questions(tmp_path):
    mmlu_med.example(tmp_path)
    own = items("mmlu-med", tmp_path)
    tables: dict[str, list[dict]] = {}
    for subject in mmlu_med.SUBJECTS:
        with (tmp_path / "data" / "test" / f"{subject}_test.csv").open(newline="") as file:
            tables[subject] = [
                {"question": cells[0], "subject": subject, "choices": cells[1:5], "answer": "ABCD".index(cells[5])}
                for cells in csv.reader(file)
            ]
    # As in 78 published questions.
    tables["college_medicine"][0] = {**tables["clinical_knowledge"][0], "subject": "college_medicine"}
    for subject, rows in tables.items():
        write_parquet(tmp_path / "hub" / subject / "test-00000-of-00001.parquet", rows)
    hub = items("mmlu-med", tmp_path / "hub")
    pairs = zip(own, hub, strict=True)
    other = [a.sample_id for a, b in pairs if (a.sample_id, a.question) != (b.sample_id, b.question)]
    assert len(other) == 1 and other[0].startswith("mmlu-med/college_medicine/")
    cases = [one.patient_id for one in hub]
    assert len(set(cases)) == len(cases) - 1 and len({one.sample_id for one in hub}) == len(hub)
    (tmp_path / "data" / "test" / "medical_genetics_test.csv").unlink()
    assert "medical_genetics" in refused("mmlu-med", tmp_path)[0].reason


def test_a_question_that_stands_twice_counts_twice_and_is_one_case(tmp_path):
    task = BY_NAME["medbullets-op5"]
    task.example(tmp_path)
    path = tmp_path / "medbullets" / "medbullets_op5.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    found = items(task, tmp_path)
    assert len(found) == 25 and found[-1].sample_id == f"{found[0].sample_id}/2"
    assert found[-1].patient_id == found[0].patient_id


def test_medbullets_in_every_published_layout(tmp_path):
    task = BY_NAME["medbullets-op4"]
    task.example(tmp_path)
    own = items(task, tmp_path)
    with (tmp_path / "medbullets" / "medbullets_op4.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key: {str(number): row[key] for number, row in enumerate(rows)} for key in rows[0]}
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "medbullets_op4.json").write_text(json.dumps(columns))
    lettered = [
        {
            "question": row["question"], "answer": row["answer_idx"],
            "options": {**{letter: row[f"op{letter.lower()}"] for letter in "ABCD"}, "E": ("", None)[number % 2]},
        }
        for number, row in enumerate(rows)
    ]  # fmt: skip
    write_parquet(tmp_path / "hub" / "data" / "op4_test-00000-of-00001.parquet", lettered)
    for place in ("json", "hub"):
        assert [(one.sample_id, one.question) for one in items(task, tmp_path / place)] == [
            (one.sample_id, one.question) for one in own
        ]
    assert medbullets.TASKS[0].ids_sha256 != medbullets.TASKS[1].ids_sha256


def test_pubmedqa_asks_the_test_questions_alone_and_says_maybe(tmp_path):
    BY_NAME["pubmedqa"].example(tmp_path)
    found = items("pubmedqa", tmp_path)
    assert len(found) == 24, "six of the thirty rows are for training"
    assert {one.question.answers[0] for one in found} == {"yes", "no", "maybe"}
    assert found[0].question.kind == "closed" and found[0].turns[0].text.endswith("Answer yes, no or maybe.")
    table = json.loads((tmp_path / "data" / "ori_pqal.json").read_text())
    rows = [
        {"id": f"u{pmid}", "data": {"Question": row["QUESTION"], "Context": row["CONTEXTS"], "Long Answer": "x",
         "Final Decision": row["final_decision"], "Correct Option": "A", "Options": {"A": "yes", "B": "no"}}}
        for pmid, row in list(table.items())[:24]
    ]  # fmt: skip
    write_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", rows)
    hub = items("pubmedqa", tmp_path / "hub")
    assert [(one.sample_id, one.question, one.turns) for one in hub] == [
        (one.sample_id, one.question, one.turns) for one in found
    ]
    (tmp_path / "data" / "test_ground_truth.json").unlink()
    assert "test rows cannot be told" in refused("pubmedqa", tmp_path)[0].reason


# --- pictures ------------------------------------------------------------------------------------------------


def test_pictures_stand_where_the_question_mentions_them(tmp_path):
    BY_NAME["mmmu-med-val"].example(tmp_path)
    found = {one.sample_id.rsplit("/", 1)[1]: one for one in items("mmmu-med-val", tmp_path)}
    twice = found["validation_Pharmacy_1"].turns[0]
    kinds = ["t" if isinstance(part, str) else "p" for part in twice.content]
    assert kinds == ["t", "p", "t", "p", "t"] and "and again with image 1" in twice.text and "<image" not in twice.text
    options = found["validation_Pharmacy_3"]
    assert options.question.choices == ("<image 2>", "<image 3>") and len(options.visuals()) == 3
    content = options.turns[0].content
    assert str(content[2]).endswith("A.") and content[4] == "B."
    assert right(options, options.question.answers[0])
    assert found["validation_Pharmacy_4"].question.kind == "open"


def test_a_picture_that_is_mentioned_and_not_there_is_refused(tmp_path):
    BY_NAME["mmmu-med-val"].example(tmp_path)
    sample = items("mmmu-med-val", tmp_path)[0]
    text = sample.turns[0].content[0]
    bare = replace(sample, turns=(replace(sample.turns[0], content=(f"{text} <image 2>",)),))
    with pytest.raises(BadSample, match="shows image 2"):
        in_their_places(bare, {1: sample.visuals()[0]}, where="f:1")


def test_mmmu_as_people_export_it(tmp_path):
    (tmp_path / "p.png").write_bytes(png(1))
    row = {
        "id": "validation_Pharmacy_1", "question": "See <image 1>.", "options": "['x', 'y']", "image_1": "p.png",
        "image_2": None, "answer": "B", "question_type": "multiple-choice", "subfield": "S", "topic_difficulty": "Easy",
        "img_type": "['Tables']",
    }  # fmt: skip
    other = {**row, "id": "validation_Accounting_1"}
    write_json_lines(tmp_path / "validation.jsonl", [row, other])
    found = items("mmmu-med-val", tmp_path)
    assert [one.sample_id for one in found] == ["mmmu-med/validation_Pharmacy_1"], "accounting is no medicine"
    assert found[0].metadata["modality"] == "Tables" and found[0].metadata["difficulty"] == "Easy"
    write_json_lines(tmp_path / "validation.jsonl", [{**row, "id": "test_Pharmacy_1"}])
    assert "no question of the validation split" in refused("mmmu-med-val", tmp_path)[0].reason


def test_medxpertqa_in_the_layout_of_the_repository(tmp_path):
    BY_NAME["medxpertqa-mm"].example(tmp_path)
    own = items("medxpertqa-mm", tmp_path)
    assert {len(one.visuals()) for one in own} == {1, 2, 3, 4, 5, 6}
    assert not any("Answer Choices" in one.turns[0].text for one in own)
    assert own[0].metadata["body_part"] and own[0].question.topic == "reasoning"
    rows = [json.loads(line) for line in (tmp_path / "MM" / "test.jsonl").read_text().splitlines()]
    for row in rows:
        row["options"] = [{"letter": letter, "content": text} for letter, text in row["options"].items()]
        row["label"] = [row["label"]]
        row["images"] = [{"image_path": name} for name in row["images"]]
    other = tmp_path / "other"
    write_json_lines(other / "medxpertqa_mm_input.jsonl", rows)
    (tmp_path / "images").rename(other / "images")
    assert [(one.sample_id, one.question) for one in items("medxpertqa-mm", other)] == [
        (one.sample_id, one.question) for one in own
    ]
    (other / "images" / "MM-0-a.png").unlink()
    assert "missing" in refused("medxpertqa-mm", other)[0].reason
    rows[1]["question"] = rows[1]["question"].replace("(A) ", "(A) not ")
    write_json_lines(other / "medxpertqa_mm_input.jsonl", rows)
    assert "repeats other options" in refused("medxpertqa-mm", other)[1].reason
    assert medxpertqa.bare_question("Only a stem", ("x", "y"), "f") == "Only a stem"


def test_gmai_reads_wide_cells_shared_pictures_and_refuses_the_test_table(tmp_path):
    task = BY_NAME["gmai-mmbench-val"]
    task.example(tmp_path)
    path = tmp_path / "GMAI_mm_bench_VAL.tsv"
    limit = csv.field_size_limit()
    found = items(task, tmp_path)
    assert found[-1].visuals()[0].path == found[2].visuals()[0].path and found[-1].patient_id == found[2].patient_id
    assert {len(one.question.choices) for one in found} == {4, 5}
    assert found[0].metadata["modality"] == "CT" and found[0].question.topic == "disease diagnosis"
    header, *rows = path.read_text().splitlines()
    wide = rows[0].split("\t")
    wide[1] = base64.b64encode(png(0) + b"\0" * 200_000).decode()
    path.write_text("\n".join([header, "\t".join(wide), *rows[1:]]) + "\n")
    assert len(wide[1]) > limit and len(items(task, tmp_path)) == 24
    assert csv.field_size_limit() == limit
    path.write_text(header.replace("\tanswer\t", "\t") + "\n")
    with pytest.raises(ValueError, match="withheld"):
        load(task, tmp_path)


def test_pictures_of_a_table_are_written_once(tmp_path):
    BY_NAME["radimagenet-vqa"].example(tmp_path)
    found = items("radimagenet-vqa", tmp_path)
    assert {one.question.kind for one in found} == {"closed", "choice", "open"}
    assert len({one.visuals()[0].path for one in found}) == 8 and len({one.patient_id for one in found}) == 8
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    items("radimagenet-vqa", tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} and len(before) == 8


def test_medframeqa_shows_all_frames_and_draws_videos(tmp_path):
    BY_NAME["medframeqa"].example(tmp_path)
    found = items("medframeqa", tmp_path)
    assert {len(one.visuals()) for one in found} == {2, 3, 4, 5} and len({one.patient_id for one in found}) == 12
    assert {len(one.question.choices) for one in found} == {5, 6}


# --- labels, entities, passages, JSON ------------------------------------------------------------------------


def test_medmnist_classes_are_letters_and_several_sizes_are_refused(tmp_path):
    task = BY_NAME["medmnist-path"]
    task.example(tmp_path)
    found = items(task, tmp_path)
    labels = np.load(tmp_path / "pathmnist.npz")["test_labels"][:, 0]
    assert [one.question.answers[0] for one in found] == ["ABCDEFGHI"[label] for label in labels]
    (tmp_path / "pathmnist.npz").rename(tmp_path / "pathmnist_64.npz")
    assert [one.question for one in items(task, tmp_path)] == [one.question for one in found]
    (tmp_path / "pathmnist_128.npz").write_bytes((tmp_path / "pathmnist_64.npz").read_bytes())
    with pytest.raises(ValueError, match="2 sizes"):
        load(task, tmp_path)


def test_medmnist_volumes_are_volumes(tmp_path):
    BY_NAME["medmnist-organ3d"].example(tmp_path)
    assert {ref.kind for one in items("medmnist-organ3d", tmp_path) for ref in one.visuals()} == {"volume"}


def test_labels_of_a_radiograph_are_one_question(tmp_path):
    task = BY_NAME["chestx-ray14-labels"]
    task.example(tmp_path)
    found = items(task, tmp_path)
    with (tmp_path / "Data_Entry_2017.csv").open(newline="") as file:
        table = {row["Image Index"]: row["Finding Labels"] for row in csv.DictReader(file)}
    tested = (tmp_path / "test_list.txt").read_text().split()
    expected = [tuple(sorted(name.replace("_", " ").lower() for name in table[image].split("|"))) for image in tested]
    answers = [tuple(sorted(one.question.answers)) for one in found]
    assert answers == [("none",) if names == ("no finding",) else names for names in expected]
    assert {len(names) for names in answers} == {1, 2} and ("none",) in answers
    assert len({one.patient_id for one in found}) == 12 and found[0].metadata["view"] in ("PA", "AP")


def test_chestmnist_labels_follow_the_table(tmp_path):
    BY_NAME["medmnist-chest"].example(tmp_path)
    table = np.load(tmp_path / "chestmnist.npz")["test_labels"]
    found = items("medmnist-chest", tmp_path)
    assert [0 if one.question.answers == ("none",) else len(one.question.answers) for one in found] == list(
        table.sum(1)
    )


def test_entities_are_those_of_the_annotations(tmp_path):
    task = BY_NAME["bc5cdr-chemical"]
    task.example(tmp_path)
    found = items(task, tmp_path)
    assert {one.question.answers[0].count("\n") for one in found} == {0, 1}
    assert any(one.question.answers == ("none",) for one in found)
    assert any("N,N-imaginol" in one.question.answers[0] for one in found)
    path = tmp_path / "CDR_TestSet.PubTator.txt"
    with zipfile.ZipFile(tmp_path / "CDR_Data.zip", "w") as archive:
        archive.write(path, "CDR_Data/CDR.Corpus.v010516/CDR_TestSet.PubTator.txt")
    text = path.read_text()
    path.unlink()
    assert [one.question for one in items(task, tmp_path)] == [one.question for one in found]
    path.write_text(text.replace("\tfictol\t", "\tfictil\t", 1))
    assert "not what stands at its place" in refused("bc5cdr-chemical", tmp_path)[0].reason


def test_a_passage_stands_where_its_answer_says(tmp_path):
    BY_NAME["covid-qa"].example(tmp_path)
    assert len({one.patient_id for one in items("covid-qa", tmp_path)}) == 12
    path = tmp_path / "COVID-QA.json"
    table = json.loads(path.read_text())
    table["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    path.write_text(json.dumps(table))
    assert "at its place" in refused("covid-qa", tmp_path)[0].reason


def test_medec_skips_the_empty_rows_and_numbers_sentences(tmp_path):
    BY_NAME["medec-ms"].example(tmp_path)
    found = items("medec-ms", tmp_path)
    objects = [json.loads(one.question.answers[0]) for one in found]
    assert all((one["sentence"] >= 0) == one["error"] for one in objects) and {one["error"] for one in objects} == {
        True,
        False,
    }
    assert found[0].turns[0].text.startswith("0 Invented patient 1")
    path = next(tmp_path.rglob("*.csv"))
    text = path.read_text(encoding="utf-8-sig")
    path.write_text(text.replace(",1,diagnosis,0,", ",1,diagnosis,9,", 1), encoding="utf-8-sig")
    assert "does not go with sentence 9" in refused("medec-ms", tmp_path)[0].reason
