"""Tasks of picture VQA: every example is read whole, wrong splits are refused, and the known traps are each a test."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from medvlm.data_recipes.readers import read
from medvlm.data_recipes.recipes import RECIPES, kvasir_vqa, pmc_vqa
from medvlm.data_recipes.sample import Sample
from medvlm.eval.extract import extract
from medvlm.eval.metric import Answered
from medvlm.eval.plan import Item
from medvlm.eval.scorers import together
from medvlm.eval.strata import strata_of
from medvlm.eval.task import Task, example_rows, fingerprint, load
from medvlm.eval.tasks.drawn_pictures import HEIGHT, WIDTH, png_bytes
from medvlm.eval.tasks.pictures import TASKS
from medvlm.eval.tasks.vqa_med import YEARS
from medvlm.model.visual import Image

BY_NAME = {task.name: task for task in TASKS}
NUMBERS = {
    "vqa-rad": 451, "slake-en": 1061, "slake-zh": 1033, "path-vqa": 6719, "pmc-vqa-clean": 2000, "pmc-vqa": 33430,
    "omnimedvqa": 88996, "vqa-med-2019": 500, "vqa-med-2020": 500, "vqa-med-2021": 500, "kvasir-vqa": 5000,
}  # fmt: skip
each = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def asked(task: Task, folder: Path) -> list[Item]:
    return list(load(task, folder, partial=True).items)


def answer_of(item: Item, value: str | None) -> Answered:
    return Answered(
        item=item, question=item.question, prompt=item.prompt, condition="image", written=value or "", value=value
    )


@pytest.fixture
def whole(task: Task, tmp_path: Path) -> Path:
    if task.name == "path-vqa":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
    task.example(tmp_path)
    return tmp_path


# --- What holds for every task -------------------------------------------------------------------------------------


def test_the_numbers_are_those_published():
    assert {task.name: task.n for task in TASKS} == NUMBERS
    for task in TASKS:
        assert task.n_source and task.licence and task.url and task.citation and task.faults


@each
def test_the_example_is_read_whole(task: Task, whole: Path):
    loaded = load(task, whole, partial=True)
    assert loaded.bad == () and len(loaded.items) >= 24
    assert len({item.sample.patient_id for item in loaded.items}) >= 5
    assert {item.sample.split for item in loaded.items} == {"test"}
    for item in loaded.items:
        assert item.sample.metadata["language"] in ("en", "zh") and item.dimension == "2d"
        assert "modality" in item.sample.metadata
    pictures = {ref.path: ref for item in loaded.items for ref in item.sample.visuals()}
    for ref in pictures.values():
        picture = read(ref, whole)
        assert isinstance(picture, Image) and picture.pixels.shape[-2:] == (HEIGHT, WIDTH)
    assert len(pictures) >= 5


@each
def test_another_number_of_questions_is_refused_with_the_reason(task: Task, whole: Path):
    with pytest.raises(ValueError, match=f"{task.n} were published") as refused:
        load(task, whole)
    assert "--partial" in str(refused.value)
    assert load(task, whole, partial=True).differs != ""


@each
def test_the_fingerprint_repeats(task: Task, whole: Path):
    rows = example_rows(task)
    assert fingerprint(task, rows) == fingerprint(task)
    assert len(rows) == len(asked(task, whole))


@each
def test_an_empty_folder_says_what_is_missing(task: Task, tmp_path: Path):
    with pytest.raises(ValueError, match="Mend: "):
        load(task, tmp_path)


@each
def test_a_missing_picture_is_named_and_the_rest_is_asked(task: Task, whole: Path):
    before = asked(task, whole)
    lost = Path(before[0].sample.visuals()[0].path)
    if task.name == "path-vqa":
        pytest.skip("its pictures lie inside of the rows and are written again")
    lost.unlink()
    loaded = load(task, whole, partial=True)
    assert loaded.bad and all(lost.name in bad.reason for bad in loaded.bad)
    assert len(loaded.items) == len(before) - len(loaded.bad)


def test_recipes_know_the_examples_of_datasets_with_training_rows(tmp_path: Path):
    pytest.importorskip("pyarrow")
    for name in ("vqa-rad", "path-vqa", "pmc-vqa", "kvasir-vqa"):
        BY_NAME[name].example(tmp_path / name) if (tmp_path / name).mkdir() is None else None
        assert [recipe.name for recipe in RECIPES if recipe.matches(tmp_path / name)] == [name]


# --- VQA-RAD -------------------------------------------------------------------------------------------------------


def test_vqa_rad_keeps_the_official_closed_rows_countable(tmp_path: Path):
    BY_NAME["vqa-rad"].example(tmp_path)
    items = asked(BY_NAME["vqa-rad"], tmp_path)
    closed = [item for item in items if item.sample.metadata["official_closed"]]
    assert len(closed) == 20 and {item.question.kind for item in closed} == {"closed", "open"}
    assert {item.question.choices for item in closed} == {("yes", "no"), ("cystic", "solid"), ()}
    known = ("yes", "solid")
    answers = [
        answer_of(item, item.question.answers[0] if item.question.answers[0] in known else "T2 weighted")
        for item in items
    ]
    marks = together._score(answers)
    flagged = [mark["official_closed_correct"] for mark in marks if mark and "official_closed_correct" in mark]
    yes = sum(item.question.answers == ("yes",) for item in closed)
    assert len(flagged) == 20 and sum(flagged) == yes + 5 + 5  # solid five times, and the open one by exact match
    assert all(mark is not None and "strictly_correct" in mark for mark in marks)


def test_vqa_rad_reads_numbers_and_trailing_blanks(tmp_path: Path):
    BY_NAME["vqa-rad"].example(tmp_path)
    items = asked(BY_NAME["vqa-rad"], tmp_path)
    assert sum(item.question.answers == ("2",) for item in items) == 5
    assert sum(item.question.choices == ("yes", "no") for item in items) == 10  # "CLOSED " is closed
    assert strata_of(items[0]) == {"body_part": "HEAD", "language": "en", "source": "vqa-rad"}


def test_vqa_rad_in_the_form_of_mevf_asks_the_same_questions(tmp_path: Path):
    task = BY_NAME["vqa-rad"]
    (tmp_path / "a").mkdir()
    task.example(tmp_path / "a")
    rows = json.loads((tmp_path / "a" / "VQA_RAD Dataset Public.json").read_text())
    folder = tmp_path / "b"
    shutil.copytree(tmp_path / "a" / "VQA_RAD Image Folder", folder / "images")
    test = [row for row in rows if row["phrase_type"].startswith("test_")]
    (folder / "testset.json").write_text(json.dumps(test))
    (folder / "trainset.json").write_text(json.dumps([row for row in rows if row not in test]))
    first, second = load(task, tmp_path / "a", partial=True), load(task, folder, partial=True)
    assert first.ids_sha256 == second.ids_sha256 and len(first.items) == len(second.items)


def test_vqa_rad_on_the_hub_has_no_flag_of_closed_questions(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"image": {"bytes": png_bytes(f"p{n % 5}"), "path": None}, "question": "is it there?", "answer": answer}
        for n, answer in enumerate(["yes", "No", "left"] * 10)
    ]
    (tmp_path / "data").mkdir()
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "data" / "test-00000-of-00001.parquet")
    items = asked(BY_NAME["vqa-rad"], tmp_path)
    assert len(items) == 30 and [item.question.kind for item in items[:3]] == ["closed", "closed", "open"]
    assert "official_closed" not in items[0].sample.metadata
    assert len({item.sample.patient_id for item in items}) == 5
    marks = together._score([answer_of(item, "yes") for item in items])
    assert marks[:2] == [{"strictly_correct": 1.0}, {"strictly_correct": 0.0}]


# --- SLAKE ---------------------------------------------------------------------------------------------------------


def test_slake_tasks_part_the_languages(tmp_path: Path):
    BY_NAME["slake-en"].example(tmp_path)
    english, chinese = asked(BY_NAME["slake-en"], tmp_path), asked(BY_NAME["slake-zh"], tmp_path)
    assert len(english) == len(chinese) == 30
    ids = [{item.sample.sample_id for item in items} for items in (english, chinese)]
    assert not ids[0] & ids[1]
    expected = {"modality": "CT", "body_part": "Lung", "language": "en", "source": "slake"}
    assert strata_of(english[0]) == expected


def test_slake_closed_questions_beyond_yes_and_no(tmp_path: Path):
    BY_NAME["slake-en"].example(tmp_path)
    items = asked(BY_NAME["slake-en"], tmp_path)
    named = [item for item in items if item.question.choices == ("kidney", "small bowel")]
    odd = [item for item in items if item.question.answers == ("Liver",)]
    assert len(named) == 5 and named[0].question.answers == ("small bowel",)
    assert len(odd) == 5 and {item.question.kind for item in odd} == {"open"}
    assert all(item.sample.metadata["official_closed"] for item in (*named, *odd))


def test_slake_chinese_normal_is_not_yes(tmp_path: Path):
    BY_NAME["slake-zh"].example(tmp_path)
    items = asked(BY_NAME["slake-zh"], tmp_path)
    normal = [item for item in items if item.question.choices == ("正常", "不正常")]
    assert len(normal) == 5 and "请回答正常或不正常。" in normal[0].prompt and "Answer" not in normal[0].prompt
    question = normal[0].question
    assert question.answers == ("不正常",)
    assert extract(question, "不正常", normal[0].prompt).value == "不正常"
    assert extract(question, "正常", normal[0].prompt).value == "正常"
    assert extract(question, "yes", normal[0].prompt).value is None


# --- PathVQA -------------------------------------------------------------------------------------------------------


def test_path_vqa_closed_keys_in_capitals_are_closed(tmp_path: Path):
    pytest.importorskip("pyarrow")
    BY_NAME["path-vqa"].example(tmp_path)
    items = asked(BY_NAME["path-vqa"], tmp_path)
    closed = [item for item in items if item.question.kind == "closed"]
    assert len(closed) == 10 and {item.question.answers for item in closed} == {("yes",), ("no",)}
    assert {item.question.topic for item in items} == {"yes/no", "what", "where", "how", "why"}


def test_path_vqa_pickles_are_not_opened(tmp_path: Path):
    (tmp_path / "qas" / "test").mkdir(parents=True)
    (tmp_path / "qas" / "test" / "test_qas.pkl").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(ValueError, match="a pickle runs code"):
        load(BY_NAME["path-vqa"], tmp_path)


# --- PMC-VQA -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pmc-vqa-clean", "pmc-vqa"])
def test_pmc_vqa_shows_each_letter_once_and_reads_both_spellings_of_the_key(name: str, tmp_path: Path):
    BY_NAME[name].example(tmp_path)
    items = asked(BY_NAME[name], tmp_path)
    assert [item.question.answers for item in items[:9]] == [("A",)] * 3 + [("B",)] * 3 + [("C",)] * 3
    assert items[0].prompt.splitlines()[1:3] == ["A. Computed tomography", "B. Ultrasound"]
    assert items[2].question.choices[3] == "(no text)" and items[1].question.choices[2] == "A cyst"
    assert len({item.sample.patient_id for item in items}) == 5


def test_pmc_vqa_tests_are_not_taken_for_each_other(tmp_path: Path):
    BY_NAME["pmc-vqa-clean"].example(tmp_path)
    with pytest.raises(ValueError, match=r"test_2\.csv is not here"):
        load(BY_NAME["pmc-vqa"], tmp_path, partial=True)


def test_pmc_vqa_keys_that_name_no_single_choice_are_refused(tmp_path: Path):
    folder = tmp_path
    BY_NAME["pmc-vqa-clean"].example(folder)
    table = folder / "test_clean.csv"
    with table.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    rows[0][6:] = ["Elephant", ""]  # none of the choices
    rows[1][2:6], rows[1][6:] = [" A:Liver", " B:Liver", " C:x", " D:y"], ["Liver", ""]  # two of them
    rows[2][6:] = ["green", ""]  # told by its text alone
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    loaded = load(BY_NAME["pmc-vqa-clean"], folder, partial=True)
    assert [bad.reason for bad in loaded.bad] == [
        "the answer is none of the four choices", "the answer is 2 of the four choices",
    ]  # fmt: skip
    assert loaded.items[0].question.answers == ("C",)


def test_pmc_vqa_keeps_a_choice_that_begins_like_a_letter():
    from medvlm.data_recipes.tables import Row

    values = {"Choice A": " A: A: type", "Choice B": "B cell", "Choice C": " C:CT", "Choice D": " D:"}
    row = Row(where="here", number=1, values=values)
    assert pmc_vqa.choice_texts(row) == ("A: type", "B cell", "CT", "(no text)")


# --- OmniMedVQA ----------------------------------------------------------------------------------------------------


def test_omnimedvqa_the_same_option_twice_is_right_at_either_letter(tmp_path: Path):
    BY_NAME["omnimedvqa"].example(tmp_path)
    items = asked(BY_NAME["omnimedvqa"], tmp_path)
    twice = [item for item in items if item.sample.metadata["same_text_twice"]]
    assert len(twice) == 8 and {item.question.answers for item in twice} == {("A", "C")}
    for letter, right in (("A", 1.0), ("C", 1.0), ("B", 0.0)):
        value = extract(twice[0].question, letter, twice[0].prompt).value
        assert together._right(answer_of(twice[0], value)) == right


def test_omnimedvqa_reads_the_row_that_names_its_modality_otherwise(tmp_path: Path):
    BY_NAME["omnimedvqa"].example(tmp_path)
    items = asked(BY_NAME["omnimedvqa"], tmp_path)
    assert {item.sample.metadata["modality"] for item in items} == {"CT(Computed Tomography)", "X-Ray"}
    assert {item.question.topic for item in items} == {
        "modality recognition", "disease diagnosis", "anatomy identification", "lesion grading",
    }  # fmt: skip
    assert {len(item.question.choices) for item in items} == {2, 3, 4}


def test_omnimedvqa_answers_outside_the_options_are_refused(tmp_path: Path):
    BY_NAME["omnimedvqa"].example(tmp_path)
    table = tmp_path / "QA_information" / "Open-access" / "Fracture.json"
    rows = json.loads(table.read_text())
    rows[0]["gt_answer"] = "PET"
    rows[1]["option_B"] = None
    table.write_text(json.dumps(rows))
    loaded = load(BY_NAME["omnimedvqa"], tmp_path, partial=True)
    assert [bad.reason for bad in loaded.bad] == [
        "gt_answer is none of the options", "1 options, expected two to four from option_A on",
    ]  # fmt: skip


# --- VQA-Med -------------------------------------------------------------------------------------------------------


def test_vqa_med_2019_alternatives_and_optional_parts(tmp_path: Path):
    BY_NAME["vqa-med-2019"].example(tmp_path)
    items = asked(BY_NAME["vqa-med-2019"], tmp_path)
    several = [item for item in items if len(item.question.answers) > 1]
    assert len(several) == 6
    assert several[0].question.answers == ("pleural effusion on the left", "pleural effusion", "hydrothorax")
    assert {item.question.topic for item in items} == {"modality", "plane", "organ", "abnormality"}
    assert items[0].sample.sample_id == "vqa-med-2019/synpic0"


def test_vqa_med_2020_and_2021_keep_brackets_and_part_answers_by_bars(tmp_path: Path):
    BY_NAME["vqa-med-2020"].example(tmp_path)
    items = asked(BY_NAME["vqa-med-2020"], tmp_path)
    assert ("simple cyst", "benign cyst") in {item.question.answers for item in items}
    assert ("Large mass (right lung)",) in {item.question.answers for item in items}
    assert {item.sample.metadata["modality"] for item in items} == {"CT", "CR", "MR", "unknown"}


def test_vqa_med_files_of_two_releases_are_refused_row_by_row(tmp_path: Path):
    BY_NAME["vqa-med-2021"].example(tmp_path)
    answers = tmp_path / YEARS[1].answers
    lines = answers.read_text().split("\n")
    answers.write_text("\n".join([lines[0], *lines[2:]]))
    loaded = load(BY_NAME["vqa-med-2021"], tmp_path, partial=True)
    assert len(loaded.bad) == 1 and "has no answer to it" in loaded.bad[0].reason and len(loaded.items) == 27


# --- Kvasir-VQA ----------------------------------------------------------------------------------------------------


def test_kvasir_vqa_the_rule_parts_pictures(tmp_path: Path):
    BY_NAME["kvasir-vqa"].example(tmp_path)
    samples = [sample for sample in kvasir_vqa.RECIPE.build(tmp_path) if isinstance(sample, Sample)]
    test = {sample.patient_id for sample in samples if sample.split == "test"}
    train = {sample.patient_id for sample in samples if sample.split == "train"}
    assert len(samples) < 540 and len(train) == 60 - len(test) and not test & train
    assert sum(sample.split == "test" for sample in samples) == round(540 * 5000 / 58849) == 46


def test_kvasir_vqa_the_published_table_has_5000_questions_and_nearly_that_is_refused(tmp_path: Path):
    names = [f"picture{number % 6500}" for number in range(kvasir_vqa.ROWS)]
    splits = kvasir_vqa.split_rows(names)
    assert splits.count("test") == 5000 and splits.count("train") + splits.count(None) == kvasir_vqa.ROWS - 5000
    by_name: dict[str, set] = {}
    for name, split in zip(names, splits, strict=True):
        by_name.setdefault(name, set()).add(split)
    assert sum("test" in found and "train" in found for found in by_name.values()) == 0
    assert kvasir_vqa.split_rows(names[::-1])[::-1].count("test") == 5000
    with pytest.raises(Exception, match="58,849 were published"):
        kvasir_vqa.split_rows(names[:-1])


def test_kvasir_vqa_forms_are_told_from_the_table(tmp_path: Path):
    BY_NAME["kvasir-vqa"].example(tmp_path)
    items = asked(BY_NAME["kvasir-vqa"], tmp_path)
    by_topic = {item.question.topic: item.question for item in items}
    assert by_topic["abnormality"].kind == "labels" and by_topic["abnormality"].choices == ("oesophagitis", "polyp")
    assert by_topic["count"].kind == "open" and by_topic["text"].choices == ("no", "yes")
    assert by_topic["removal"].choices == ("no", "not relevant", "yes")
    assert by_topic["location"].choices == ("center", "center-left", "upper-right")
    assert ("none",) in {item.question.answers for item in items if item.question.topic == "location"}


def test_kvasir_vqa_on_the_hub_asks_the_same_questions(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    task = BY_NAME["kvasir-vqa"]
    (tmp_path / "a").mkdir()
    task.example(tmp_path / "a")
    with (tmp_path / "a" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = [row | {"image": {"bytes": png_bytes(row["img_id"]), "path": None}} for row in csv.DictReader(file)]
    (tmp_path / "b" / "data").mkdir(parents=True)
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "b" / "data" / "raw-00000-of-00001.parquet")
    first, second = load(task, tmp_path / "a", partial=True), load(task, tmp_path / "b", partial=True)
    assert first.ids_sha256 == second.ids_sha256
    assert [item.question for item in first.items] == [item.question for item in second.items]


# --- Real files ----------------------------------------------------------------------------------------------------

SHARED = os.environ.get("MEDVLM_SHARED_DATA")
real = pytest.mark.skipif(SHARED is None, reason="MEDVLM_SHARED_DATA names no folder of real public files")


@real
@pytest.mark.parametrize("folder", ["vqa-rad", "vqa-rad-mevf-format"])
def test_real_vqa_rad_rows(folder: str):
    loaded = load(BY_NAME["vqa-rad"], Path(str(SHARED)) / folder, partial=True)
    assert loaded.bad == () and len(loaded.items) == 236
    closed = [item for item in loaded.items if item.sample.metadata["official_closed"]]
    assert len(closed) == 132 and sum(item.question.kind == "closed" for item in closed) == 125


@real
@pytest.mark.parametrize(("name", "rows"), [("slake-en", 53), ("slake-zh", 34)])
def test_real_slake_rows_with_stand_in_pictures(name: str, rows: int, tmp_path: Path):
    table = Path(str(SHARED)) / "slake-text-only" / "Slake1.0" / "test.json"
    for row in json.loads(table.read_text(encoding="utf-8")):
        path = tmp_path / "imgs" / row["img_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png_bytes(row["img_name"]))
    shutil.copy(table, tmp_path)
    loaded = load(BY_NAME[name], tmp_path, partial=True)
    assert loaded.bad == () and len(loaded.items) == rows


@real
def test_real_vqa_med_2019_rows_are_refused_by_the_missing_picture():
    with pytest.raises(ValueError, match=r"synpic\d+\.jpg is missing"):
        load(BY_NAME["vqa-med-2019"], Path(str(SHARED)) / "vqa-med-2019", partial=True)
