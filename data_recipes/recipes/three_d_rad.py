"""3D-RAD: open, yes/no and multiple choice questions about chest CT volumes of CT-RATE.

Gai et al., 3D-RAD: a comprehensive 3D radiology Med-VQA dataset with multi-temporal analysis and diverse
diagnostic tasks (2025). Volumes come from CT-RATE (Hamamci et al., CC BY-NC-SA) under their own names, such as
test_1016_d_2.nii.gz; they are looked for anywhere under the folder. CT-RATE volumes hold Hounsfield units.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import QuestionKind, Sample, Split
from medvlm.data_recipes.tables import Row, make_samples, read_csv

COLUMNS = (
    "Task", "Subtask", "VolumeName", "Question", "Answer", "QuestionType", "AnswerChoice", "Choice A", "Choice B",
    "Choice C", "Choice D",
)  # fmt: skip
TASKS = {
    "1": "observation", "2": "anomaly", "3": "measurement", "4": "presence", "5": "static_change",
    "6": "longitudinal_change",
}  # fmt: skip
SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
PATIENT = re.compile(r"(?P<patient>[a-z]+_\d+)_(?P<study>[a-z]+)_\d+\.nii\.gz$")


def _root(folder: Path) -> Path | None:
    places = (folder / "3DRAD", folder)
    return next((place for place in places if any(place.glob("*/Task[1-6]_*/*.csv"))), None)


def _answer(row: Row) -> tuple[str, QuestionKind, tuple[str, ...]]:
    """Reference, kind and choices; the stated letter must point at the stated answer."""
    if row.text("QuestionType").lower() == "open":
        return row.text("Answer"), "open", ()
    options = (row.written(f"Choice {letter}") for letter in "ABCD")
    choices = tuple(option for option in options if option not in ("", "-"))
    letter, answer = row.text("AnswerChoice"), row.text("Answer")
    place = "ABCD".find(letter)
    if place < 0 or place >= len(choices) or choices[place] != answer:
        raise BadSample(
            f"AnswerChoice {letter!r} does not name the Answer {answer!r} among {len(choices)} choices",
            where=row.where,
            mend="correct the row",
        )
    if sorted(choice.lower() for choice in choices) == sorted(YES_NO):
        return yes_no(answer) or answer, "closed", YES_NO
    return letter, "choice", choices


def _make(row: Row, *, sample_id: str, split: Split, volumes: dict[str, Path], folder: Path) -> Iterable[Sample]:
    name = row.text("VolumeName")
    match = PATIENT.match(name)
    if match is None:
        raise BadSample(f"volume name {name!r} does not tell its patient", where=row.where, mend="use CT-RATE names")
    place = volumes.get(name) or volumes.get(f"{name.removesuffix('.nii.gz')}.npy") or folder / name
    volume = visual_at(
        place,
        kind="volume",
        where=row.where,
        mend="download the volume from CT-RATE and put it under the folder",
        modality="CT",
        # The authors' .npy copies are scaled to 0..1 as M3D's are; which numbers that were is not told.
        unit="arbitrary" if place.suffix == ".npy" else "HU",
    )
    answer, kind, choices = _answer(row)
    yield ask(
        sample_id=f"{sample_id}/{row.number}",
        patient_id=f"ct-rate/{match['patient']}",
        study_id=f"ct-rate/{match['patient']}_{match['study']}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        visuals=[volume],
        prompt=row.text("Question"),
        answers=[answer],
        kind=kind,
        choices=choices,
        topic=TASKS.get(row.text("Task"), "other"),
        where=row.where,
        metadata={"official_split": True, "modality": "CT"},
    )


def table_samples(folder: Path, *, only: Split | None = None, task: str = "") -> Iterator[Sample | BadSample]:
    """The questions of all tables, or of those of one split, or of one task.

    Args:
        task: "1" to "6", see TASKS; "": all.
    """
    root = _root(folder)
    if root is None:
        yield BadSample("no Task folders with tables", where=str(folder), mend=f"see {RECIPE.url}")
        return
    volumes = {path.name: path for suffix in ("npy", "nii.gz") for path in sorted(folder.rglob(f"*.{suffix}"))}
    for table in sorted(root.glob(f"*/Task{task or '[1-6]'}_*/*.csv")):
        place = table.relative_to(root)
        split = SPLITS.get(place.parts[0])
        if only is not None and split is not None and split != only:
            continue
        if split is None:
            yield BadSample(
                f"folder {place.parts[0]!r} is neither train nor test", where=str(table), mend="rename the folder"
            )
            continue
        sample_id = f"{RECIPE.name}/{place.with_suffix('').as_posix()}"
        make = partial(_make, sample_id=sample_id, split=split, volumes=volumes, folder=folder)
        yield from make_samples(read_csv(table, required=COLUMNS), make)


RECIPE = Recipe(
    name="3d-rad",
    version="Tang-xiaoxiao/3D-RAD (2025)",
    licence="CC BY-NC-SA 4.0 (CT-RATE)",
    url="https://github.com/Tang-xiaoxiao/3D-RAD",
    citation="Gai et al., 3D-RAD (2025); Hamamci et al., CT-RATE (2024)",
    owned=(
        "**/Task[1-6]_*/*.csv",
        *(f"**/{part}_[0-9]*_[a-z]*_[0-9]*.{end}" for part in ("train", "valid", "test") for end in ("nii.gz", "npy")),
    ),
    matches=lambda folder: _root(folder) is not None,
    build=table_samples,
    about=(
        "Open, yes/no and multiple choice questions about chest CT volumes of CT-RATE in six tasks: observations, "
        "measurements, presence, and change over time."
    ),
    layout=(
        "FOLDER/\n"
        "  3DRAD/{train,test}/Task<N>_<name>/<subtask>.csv\n"
        "  <volume>.nii.gz                                   anywhere below the folder"
    ),
    questions=(
        "open: observations and measurements",
        "closed: yes/no questions about presence",
        "choice: questions about change, lettered",
    ),
    faults=(
        "The volumes are CT-RATE's and are downloaded there; the authors' own copies as .npy are read where the NIfTI "
        "files are not there, but hold no Hounsfield units.",
        "A row whose letter does not point at its answer is refused.",
        "Questions about change over time name one volume; the earlier one is not shown.",
    ),
    measured=(
        "A public subset of 394 test rows without volumes: all 394 refused by the name of the missing volume. With "
        "stand-in files: 394 samples of 156 patients (240 open, 120 closed, 34 choice), none refused."
    ),
)
