"""MedMNIST v2 and MedMNIST+: 12 sets of small pictures and 6 of small volumes, each one .npz file.

Yang et al., MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image classification, Scientific
Data 10:41 (2023). ``<flag>[_<size>].npz`` holds train, val and test images (N, 28, 28[, 3]) or (N, 28, 28, 28) and
labels (N, L) of 8-bit numbers; what a number means stands in medmnist/info.py (version 3.0.2) of the authors. Several
classes are asked as a choice and as an open question, two classes as a closed question, the 14 findings of ChestMNIST
one by one (see label_questions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data_recipes.asking import YES_NO, ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.label_questions import labels_to_ask
from medvlm.data_recipes.readers import numpy_archive
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes.medmnist_flags import FLAGS, Flag
from medvlm.data_recipes.sample import Sample, Split, VisualRef

SPLITS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
NAME = re.compile(r"(?P<flag>[a-z0-9]+mnist(3d)?)(_(?P<size>64|128|224))?\.npz")
MEND = "download the file again; its MD5 stands in medmnist/info.py"


def _archives(folder: Path) -> list[tuple[Path, str]]:
    found = ((path, NAME.fullmatch(path.name)) for path in sorted(folder.glob("*mnist*.npz")))
    return [(path, match["flag"]) for path, match in found if match and match["flag"] in FLAGS]


def _numbers(path: Path, part: str, flag: Flag) -> np.ndarray:
    """Labels (N, L) of one split, after a look at the shapes of both arrays.

    Raises:
        BadSample: a missing array, or labels that do not belong to the images.
    """
    shapes = numpy_archive.shapes_of(path)
    missing = [name for name in (f"{part}_images", f"{part}_labels") if name not in shapes]
    if missing:
        raise BadSample(f"no array {missing[0]!r} in the archive", where=str(path), mend=MEND)
    images, labels = shapes[f"{part}_images"], shapes[f"{part}_labels"]
    columns = len(flag.answers) if flag.findings else 1
    if labels != (images[0], columns):
        raise BadSample(
            f"{part}_labels has shape {labels}, expected {(images[0], columns)}", where=str(path), mend=MEND
        )
    return np.asarray(numpy_archive.member_of(path, f"{part}_labels"))


def _asked(flag: Flag, numbers: np.ndarray, shared: dict[str, Any], stem: str) -> Iterator[Sample]:
    where = shared["where"]
    if flag.findings:
        if not np.isin(numbers, (0, 1)).all():
            raise BadSample(f"labels {numbers.tolist()} are not 0 or 1", where=where, mend=MEND)
        present = [name for name, value in zip(flag.answers, numbers, strict=True) if value]
        for name in labels_to_ask(present, flag.answers, key=stem, split=shared["split"]):
            bare = name.removeprefix("a ").removeprefix("an ").replace(" ", "-")
            yield ask(
                sample_id=f"{stem}/{bare}", prompt=flag.prompt.format(name),
                answers=["yes" if name in present else "no"], kind="closed", choices=YES_NO, topic="presence", **shared,
            )  # fmt: skip
        return
    number = int(numbers[0])
    if number >= len(flag.answers):
        raise BadSample(
            f"label {number} means nothing: the labels run from 0 to {len(flag.answers) - 1}", where=where, mend=MEND
        )
    answer = flag.answers[number]
    if len(flag.answers) == 2 or answer.isdigit():
        choices = YES_NO if set(flag.answers) == set(YES_NO) else flag.answers
        yield ask(
            sample_id=f"{stem}/class", prompt=flag.prompt, answers=[answer], kind="closed", choices=choices,
            topic="class", **shared,
        )  # fmt: skip
        return
    letter = chr(ord("A") + number)
    yield ask(
        sample_id=f"{stem}/choice", prompt=flag.prompt, answers=[letter], kind="choice", choices=flag.answers,
        topic="class", **shared,
    )  # fmt: skip
    yield ask(
        sample_id=f"{stem}/open", prompt=f"{flag.prompt} Answer briefly.", answers=[answer], topic="class", **shared
    )


def archive_samples(path: Path, name: str, splits: Mapping[str, Split] = SPLITS) -> Iterator[Sample | BadSample]:
    """The samples of one file of the set ``name``.

    Args:
        splits: those that are wanted, by their name in the archive.
    """
    flag = FLAGS[name]
    solid = name.endswith("3d")
    for part, split in splits.items():
        try:
            labels = _numbers(path, part, flag)
        except BadSample as bad:
            yield bad
            continue
        options: dict[str, Any] = {"member": f"{part}_images", "modality": flag.modality, "unit": "display"}
        for item, numbers in enumerate(labels):
            patient = f"{RECIPE.name}/{name}/{part}/{item}"
            ref = VisualRef(
                kind="volume" if solid else "image", path=str(path.resolve()), options={**options, "item": item}
            )
            shared: dict[str, Any] = {
                "patient_id": patient, "source": RECIPE.name, "licence": flag.licence, "split": split,
                "visuals": [ref], "where": f"{path}:{part}_labels[{item}]",
                "metadata": {"official_split": True, "modality": flag.modality, "set": name},
            }  # fmt: skip
            try:
                yield from list(_asked(flag, numbers, shared, f"{RECIPE.name}/{path.stem}/{part}/{item}"))
            except BadSample as bad:
                yield bad


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for path, name in _archives(folder):
        yield from archive_samples(path, name)


RECIPE = Recipe(
    name="medmnist",
    version="MedMNIST v2 and + (Zenodo 10519652, 2024)",
    licence="CC BY 4.0; DermaMNIST CC BY-NC 4.0",
    url="https://zenodo.org/records/10519652",
    citation="Yang et al., Scientific Data 10:41 (2023)",
    owned=("*mnist*.npz",),
    matches=lambda folder: bool(_archives(folder)),
    build=_build,
    about=(
        "12 sets of small pictures (histology, radiographs, dermatoscopy, retina, ultrasound, blood and kidney cells, "
        "slices of CT) and 6 sets of small volumes (CT crops, shapes of glands and vessels, electron microscopy), each "
        "with the class of every item. Any subset of the files will do, in any of their sizes; a folder that holds one "
        "set in two sizes gives both."
    ),
    layout="FOLDER/\n  <flag>.npz        28 x 28 or 28 x 28 x 28: pathmnist.npz, organmnist3d.npz, ...\n"
    "  <flag>_64.npz     MedMNIST+: also _128 and _224 for pictures, _64 for volumes",
    questions=(
        "choice: which of the 3 to 11 classes (lettered), for sets of more than two classes",
        "open: the same question, answered in words",
        "closed: yes or no (or inhibitory or excitatory) for sets of two classes, a grade from 0 to 4 for RetinaMNIST",
        "closed: one yes/no question per finding of ChestMNIST; training asks for the present findings and as many "
        "absent ones, validation and test for all 14",
    ),
    faults=(
        "No file names patients: each item counts as its own patient, and the authors' split is kept.",
        "Where an archive is compressed, each process that reads pictures unpacks the array it needs once into a "
        "temporary file. `python -m medvlm.data_recipes.readers.numpy_archive FILE --out FILE` stores a file unpacked; "
        "then pictures are read where they lie.",
        "Neither spacing nor orientation of the volumes is stated, so both are unknown.",
        "The labels of ChestMNIST were mined from reports; its pictures are those of ChestX-ray14, under no common "
        "name: do not train on one and test on the other.",
        "AdrenalMNIST3D and VesselMNIST3D hold shapes (masks), not intensities.",
    ),
)  # fmt: skip
