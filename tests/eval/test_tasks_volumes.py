"""Tasks of volumes: every example is read whole with its scans, and what others get wrong about them is each a test."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.readers.numpy_array import header_size, kind_of_file
from medvlm.data_recipes.recipes import RECIPES, m3d_cap, m3d_vqa
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.eval.extract import extract
from medvlm.eval.metric import Answered
from medvlm.eval.plan import Item
from medvlm.eval.scorers import catalogue
from medvlm.eval.task import Task, load
from medvlm.eval.tasks.ct_rate import PART
from medvlm.eval.tasks.drawn_volumes import SHAPE, draw_npy
from medvlm.eval.tasks.volumes import TASKS
from medvlm.model.visual import Volume

BY_NAME = {task.name: task for task in TASKS}
NUMBERS = {
    "m3d-vqa": 13791, "m3d-vqa-open": 13791, "m3d-vqa-5k": 5000, "m3d-vqa-5k-open": 5000, "m3d-cap": 2000,
    "m3d-positioning": 555, "3d-rad-observation": 1024, "3d-rad-anomaly": 2666, "3d-rad-measurement": 1002,
    "3d-rad-existence": 23472, "3d-rad-static-change": 2873, "3d-rad-longitudinal-change": 2873,
    "ct-rate-report": 1564, "ct-rate-labels": 1564,
}  # fmt: skip
each = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def asked(name: str, folder: Path) -> list[Item]:
    return list(load(BY_NAME[name], folder, partial=True).items)


def marks(item: Item, written: str, key: str) -> float | None:
    """What the scorers say of one answer, under ``key``."""
    value = extract(item.question, written, item.prompt).value
    answered = Answered(
        item=item, question=item.question, prompt=item.prompt, condition="image", written=written, value=value
    )
    for scorer in catalogue.SCORERS:
        if item.question.kind in scorer.kinds and not scorer.added:
            mark = scorer.score([answered])[0]
            if mark and key in mark:
                return mark[key]
    raise AssertionError(f"no scorer says {key}")


def table(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def write_table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


# --- What holds for every task -------------------------------------------------------------------------------------


def test_the_numbers_are_those_published():
    assert {task.name: task.n for task in TASKS} == NUMBERS
    assert sum(task.n for task in TASKS if task.name.startswith("3d-rad")) == 33910
    for task in TASKS:
        counted = task.ids_sha256 is not None
        assert (
            counted == ("counted;" in task.n_source) != ("not counted" in task.n_source or "ESTIMATE" in task.n_source)
        )
        assert task.faults and task.cluster == "patient"


@each
def test_the_example_is_read_whole(task: Task, tmp_path: Path):
    task.example(tmp_path)
    loaded = load(task, tmp_path, partial=True)
    assert loaded.bad == () and len(loaded.items) >= 24
    assert {item.sample.split for item in loaded.items} == {"test"} and {i.dimension for i in loaded.items} == {"3d"}
    patients = {item.sample.patient_id for item in loaded.items}
    assert 5 <= len(patients) < len(loaded.items), "several questions of a patient, so that clusters matter"
    seen = {ref.path: ref for item in loaded.items for ref in item.sample.visuals()}
    for ref in seen.values():
        volume = read(ref, tmp_path)
        assert isinstance(volume, Volume) and volume.voxels.shape == SHAPE and volume.modality == "CT"
        if ref.path.endswith(".npy"):
            assert volume.unit == "display" and volume.voxels.min() >= 0 and volume.voxels.max() == 1
        else:
            assert volume.unit == "HU" and volume.voxels.min() < -500 and volume.voxels.max() == 400
            assert volume.spacing_mm == (5.0, 2.0, 2.0)
    with pytest.raises(ValueError, match=f"{task.n} were published"):
        load(task, tmp_path)


@each
def test_a_missing_volume_is_named_and_the_rest_is_asked(task: Task, tmp_path: Path):
    task.example(tmp_path)
    before = load(task, tmp_path, partial=True).items
    lost = Path(before[0].sample.visuals()[0].path)
    lost.unlink()
    loaded = load(task, tmp_path, partial=True)
    gone = [item for item in before if item.sample.visuals()[0].path == str(lost)]
    assert loaded.bad and any(lost.name in bad.reason for bad in loaded.bad)
    assert len(loaded.items) == len(before) - len(gone)


@each
def test_an_empty_folder_says_what_is_missing(task: Task, tmp_path: Path):
    with pytest.raises(ValueError, match="Mend: "):
        load(task, tmp_path)


def test_recipes_know_the_examples(tmp_path: Path):
    for name, recipe in (("m3d-vqa", "m3d-vqa"), ("m3d-cap", "m3d-cap"), ("m3d-positioning", "m3d-refseg"),
                         ("3d-rad-anomaly", "3d-rad"), ("ct-rate-report", "ct-rate")):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        BY_NAME[name].example(folder)
        (matching,) = [one for one in RECIPES if one.matches(folder)]
        assert matching.name == recipe
        assert {path for path in folder.rglob("*") if path.is_file()} == matching.files(folder)
        rows = list(matching.build(folder))
        assert rows and not [row for row in rows if isinstance(row, BadSample)]


# --- M3D ---------------------------------------------------------------------------------------------------------


def test_a_letter_with_a_full_stop_somewhere_is_no_answer(tmp_path: Path):
    """M3D and 3D-RAD count an answer as right when "B." stands anywhere in it."""
    BY_NAME["m3d-vqa"].example(tmp_path)
    item = next(item for item in asked("m3d-vqa", tmp_path) if item.question.answers == ("B",))
    said = f"A. {item.question.choices[0]}, not B. {item.question.choices[1]}"
    assert "B." in said and not marks(item, said, "correct")
    assert not marks(item, "A. or B.", "correct") and not marks(item, "", "correct")
    assert marks(item, f"B. {item.question.choices[1]}", "correct") == 1


def test_questions_of_m3d_vqa_have_their_topic_and_no_unfilled_choice(tmp_path: Path):
    BY_NAME["m3d-vqa"].example(tmp_path)
    items = asked("m3d-vqa", tmp_path)
    assert [item.question.topic for item in items[:5]] == ["plane", "phase", "organ", "abnormality", "location"]
    assert items[3].question.choices == ("yes", "no") and "NA" not in items[3].prompt
    (tmp_path / "M3D-VQA/M3D_VQA_test.csv").rename(tmp_path / "M3D_VQA_test5k.csv")
    assert [item.prompt for item in asked("m3d-vqa-5k", tmp_path)] == [item.prompt for item in items]
    opened = asked("m3d-vqa-5k-open", tmp_path)
    assert opened[3].question.answers == (items[3].question.choices["AB".index(items[3].question.answers[0])],)
    with pytest.raises(ValueError, match=r"no M3D_VQA_test\.csv is here"):
        load(BY_NAME["m3d-vqa"], tmp_path)


def test_a_letter_that_does_not_point_at_its_answer_is_marked_and_not_trained_on(tmp_path: Path):
    BY_NAME["m3d-vqa"].example(tmp_path)
    place = tmp_path / "M3D-VQA/M3D_VQA_test.csv"
    header, rows = table(place)
    rows[0][header.index("Answer")] = "something else"
    rows[1][header.index("Answer Choice")] = "E"
    rows[2][header.index("Question Type")] = "6"
    write_table(place, header, rows)
    loaded = load(BY_NAME["m3d-vqa"], tmp_path, partial=True)
    first = loaded.items[0].sample
    assert first.metadata["letter_and_answer_differ"] is True and first.question.answers == ("A",)
    assert [bad.reason.split(",")[0] for bad in loaded.bad] == [
        "Answer Choice 'E' names none of 4 choices", "Question Type is '6'",
    ]  # fmt: skip
    place.rename(place.with_name("M3D_VQA_train.csv"))
    built = list(m3d_vqa.RECIPE.build(tmp_path))
    refused = [row for row in built if isinstance(row, BadSample)]
    assert len(refused) == 3 and refused[0].reason.startswith("choice A is not the Answer 'something else'")
    trained = [row for row in built if isinstance(row, Sample)]
    assert len(trained) == 2 * 27 and {row.split for row in trained} == {"train"}
    assert {row.sample_id.rsplit("/", 1)[1] for row in trained} == {"choice", "open"}


def test_every_caption_is_asked_with_one_sentence(tmp_path: Path):
    """The authors draw one of many prompts at random for every volume."""
    task = BY_NAME["m3d-cap"]
    task.example(tmp_path)
    items = asked("m3d-cap", tmp_path)
    assert {item.prompt for item in items} == {m3d_cap.PROMPT} and len(items) == 30
    assert len({item.question.answers for item in items}) == 15, "two volumes of a case share its text"
    assert len({item.sample.patient_id for item in items}) == 15
    place = tmp_path / "M3D_Cap_npy/M3D_Cap.json"
    content = json.loads(place.read_text())
    (tmp_path / content["test"][0]["text"]).write_text("\n")
    content |= {"test1k": content["test"][:2], "more": []}
    place.write_text(json.dumps(content))
    loaded = load(task, tmp_path, partial=True)
    assert len(loaded.items) == 28 and len(loaded.bad) == 3
    assert {bad.reason for bad in loaded.bad} >= {"'more' is no list of train, validation or test"}
    assert [row.split for row in m3d_cap.RECIPE.build(tmp_path) if isinstance(row, Sample)].count("train") == 2


@pytest.mark.parametrize("start", ["M3D_Cap_npy/", "M3D_Cap/", "./M3D_Cap/", ""])
@pytest.mark.parametrize("lies", ["M3D_Cap_npy", "M3D_Cap", "."])
def test_published_paths_are_found_wherever_they_start(start: str, lies: str, tmp_path: Path):
    draw_npy(tmp_path / lies / "ct_case/000007/Axial.npy")
    name = f"{start}ct_case/000007/Axial.npy"
    assert m3d_cap.placed(tmp_path, name) == tmp_path / lies / "ct_case/000007/Axial.npy"
    assert m3d_cap.case_of(name, "x") == "ct_case/000007"
    with pytest.raises(BadSample, match=r"M3D_Cap_npy/ct_case/8/Axial\.npy is missing"):
        m3d_cap.volume_at(tmp_path, "M3D_Cap_npy/ct_case/8/Axial.npy", "x")


def test_a_volume_with_one_channel_is_that_volume(tmp_path: Path):
    path = tmp_path / "one.npy"
    values = np.linspace(0, 1 + 1e-7, 2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    np.save(path, values)
    volume = read(VisualRef(kind="volume", path=str(path), options={"unit": "display"}), tmp_path)
    assert isinstance(volume, Volume) and volume.voxels.shape == (2, 3, 4) and volume.voxels.max() == 1
    assert header_size(path) == (2, 3, 4) and kind_of_file(path) == "volume"
    for wrong in (np.zeros((2, 2, 3, 4), np.float32), np.zeros((1, 3, 4, 3), np.uint8)):
        np.save(path, wrong)
        with pytest.raises(BadSample, match="an array of shape"):
            read(VisualRef(kind="volume", path=str(path)), tmp_path)
    np.save(path, values * 1.01)
    with pytest.raises(BadSample, match=r"values run from 0 to 1\.01"):
        read(VisualRef(kind="volume", path=str(path), options={"unit": "display"}), tmp_path)


def test_what_is_no_box_counts_nothing_instead_of_minus_one(tmp_path: Path):
    BY_NAME["m3d-positioning"].example(tmp_path)
    items = asked("m3d-positioning", tmp_path)
    assert len(items) == 30 and {item.question.extent_mm for item in items} == {(24.0, 20.0, 30.0)}
    box = items[0].question.answers[0]
    assert marks(items[0], box, "iou") == 1 and marks(items[0], "It is in the liver.", "iou") == 0
    assert marks(items[0], "", "iou") == 0
    assert not any("s9006" in item.sample.sample_id for item in items), "a case of the training table"
    (tmp_path / "M3D_RefSeg_train.csv").unlink()
    with pytest.raises(ValueError, match=r"no M3D_RefSeg_train\.csv is here"):
        load(BY_NAME["m3d-positioning"], tmp_path)


# --- 3D-RAD ------------------------------------------------------------------------------------------------------


def test_an_empty_open_answer_counts_and_counts_nothing(tmp_path: Path):
    """The authors' evaluation passes it over, so that the mean rises."""
    BY_NAME["3d-rad-anomaly"].example(tmp_path)
    item = asked("3d-rad-anomaly", tmp_path)[0]
    assert marks(item, "", "token_f1") == 0 and marks(item, item.question.answers[0], "token_f1") == 1
    assert "A. -" not in item.prompt, "the authors show the empty choices of the table"


def test_tasks_of_3d_rad_read_their_own_tables(tmp_path: Path):
    for name in ("3d-rad-existence", "3d-rad-static-change", "3d-rad-longitudinal-change"):
        BY_NAME[name].example(tmp_path)
    train = tmp_path / "3DRAD/train/Task4_Existence_Detection"
    train.mkdir(parents=True)
    (train / "Emphysema.csv").write_text((tmp_path / "3DRAD/test/Task4_Existence_Detection/Emphysema.csv").read_text())
    existence = asked("3d-rad-existence", tmp_path)
    assert len(existence) == 26 and {item.question.kind for item in existence} == {"closed"}
    assert {item.sample.metadata["subtask"] for item in existence} == {"Emphysema"}
    assert len({item.sample.patient_id for item in existence}) == 12, "two scans of one patient are one cluster"
    assert len({item.sample.study_id for item in existence}) == 13
    changes = [asked(f"3d-rad-{kind}-change", tmp_path) for kind in ("static", "longitudinal")]
    assert [{item.question.topic for item in items} for items in changes] == [
        {"static_change"}, {"longitudinal_change"},
    ]  # fmt: skip
    assert not {i.sample.sample_id for i in changes[0]} & {i.sample.sample_id for i in changes[1]}


def test_copies_of_the_authors_are_read_but_hold_no_hounsfield_units(tmp_path: Path):
    BY_NAME["3d-rad-measurement"].example(tmp_path)
    first = Path(asked("3d-rad-measurement", tmp_path)[0].sample.visuals()[0].path)
    copy = tmp_path / "npy" / f"{first.name.removesuffix('.nii.gz')}.npy"
    draw_npy(copy)
    assert asked("3d-rad-measurement", tmp_path)[0].sample.visuals()[0].path == str(first), "the scan itself first"
    first.unlink()
    shown = asked("3d-rad-measurement", tmp_path)[0].sample.visuals()[0]
    assert shown.path == str(copy) and shown.options["unit"] == "arbitrary"


# --- CT-RATE -----------------------------------------------------------------------------------------------------


def test_one_reconstruction_stands_for_its_scan(tmp_path: Path):
    BY_NAME["ct-rate-report"].example(tmp_path)
    _, rows = table(tmp_path / "radiology_text_reports" / PART.reports)
    assert len(rows) == 35 and rows[0][0] == "valid_8000_a_2.nii.gz", "the second reconstruction stands first"
    items = asked("ct-rate-report", tmp_path)
    assert len(items) == 26 and {item.sample.metadata["reconstruction"] for item in items} == {"1"}
    assert len({item.sample.study_id for item in items}) == 26
    assert len({item.sample.patient_id for item in items}) == 24
    # Its lowest reconstruction is missing: the scan is refused, no other volume takes its place unseen.
    Path(items[0].sample.visuals()[0].path).unlink()
    loaded = load(BY_NAME["ct-rate-report"], tmp_path, partial=True)
    assert len(loaded.items) == 25 and "valid_8000_a_1.nii.gz is missing" in loaded.bad[0].reason


def test_all_abnormalities_of_a_scan_are_one_question(tmp_path: Path):
    BY_NAME["ct-rate-labels"].example(tmp_path)
    items = asked("ct-rate-labels", tmp_path)
    assert items[0].question.answers == ("none",) and len(items[0].question.choices) == 18
    held = next(item for item in items if len(item.question.answers) > 1)
    assert marks(held, "; ".join(held.question.answers), "labels_exact") == 1
    assert marks(held, held.question.answers[0], "labels_exact") == 0
    place = tmp_path / "multi_abnormality_labels" / PART.labels
    header, rows = table(place)
    lost = items[3].sample.study_id.rpartition("/")[2]
    last = items[-1].sample.study_id.rpartition("/")[2]
    write_table(place, header, [row for row in rows if not row[0].startswith((lost, last))])
    loaded = load(BY_NAME["ct-rate-labels"], tmp_path, partial=True)
    assert [bad.reason for bad in loaded.bad] == [f"no labels of {name}_1.nii.gz" for name in (lost, last)]
    assert len(loaded.items) == len(items) - 2
    place.unlink()
    with pytest.raises(ValueError, match=f"no {PART.labels} is here"):
        load(BY_NAME["ct-rate-labels"], tmp_path)


def test_scans_of_other_body_parts_are_asked_and_marked(tmp_path: Path):
    BY_NAME["ct-rate-report"].example(tmp_path)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / PART.no_chest).write_text("valid_8001_a_1.nii.gz\n")
    items = asked("ct-rate-report", tmp_path)
    assert [item.sample.study_id for item in items if item.sample.metadata["no_chest"]] == ["ct-rate/valid_8001_a"]
    (recipe,) = [one for one in RECIPES if one.name == "ct-rate"]
    assert any(isinstance(row, BadSample) and "no chest CT" in row.reason for row in recipe.build(tmp_path))
