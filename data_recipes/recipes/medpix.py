"""MedPix 2.0: CT and MR pictures of teaching cases, with captions, findings and diagnoses.

Siragusa et al., MedPix 2.0: a comprehensive multimodal biomedical data set for advanced AI applications, Data Science
and Engineering (2025), arXiv:2407.02994. splitted_dataset/descriptions_{train,dev,test}.jsonl describe one picture per
line (its name in images/ has no ".png"), data_{train,dev,test}.jsonl one case per line. A case (U_id) is a patient; the
authors keep it in one split. The README writes ``location``, the files ``Location``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split, VisualRef
from medvlm.data_recipes.tables import Row, read_json_lines

SPLITS: dict[str, Split] = {"train": "train", "dev": "validation", "test": "test"}
TABLES = "splitted_dataset"
MODALITIES = {"CT": "CT", "MR": "MR"}
PLANES = ("axial", "coronal", "sagittal")
SCANS = {"axial", "coronal", "sagittal", "transverse", "3d reconstruction", "multiple or montage"}
"""Planes of pictures that certainly are CT or MR; others are radiographs, photographs or specimens of the same case,
for which Type names CT or MR all the same."""

REGIONS = ("head", "thorax", "abdomen", "spine and muscles", "reproductive and urinary system")
UNFILLED = re.compile(r"replace this\b.*|in progress\.?|((ct|mri?)\s+)?(image|figure)s?\s*\d*[a-z]?\.?", re.IGNORECASE)
"""Texts that say nothing: the template of the form, "IN PROGRESS", and captions such as "CT image 5" or "Figure 1"."""


def _part(row: Row, key: str) -> Row:
    """The object under ``key`` as a row of its own."""
    values = row.values.get(key)
    if not isinstance(values, dict):
        raise BadSample(f"{key!r} must be an object", where=row.where, mend="use the file as published")
    return Row(where=row.where, number=row.number, values=values)


def _written(row: Row, key: str) -> str:
    """The text of ``key``.

    Raises:
        BadSample: nothing, or what UNFILLED knows.
    """
    text = row.text(key)
    if row.optional(key) is None or UNFILLED.fullmatch(text):
        raise BadSample(f"{key!r} is not filled in ({text[:40]!r})", where=row.where, mend="leave it out")
    return text


def _picture(folder: Path, name: str, row: Row, modality: str) -> VisualRef:
    mend = f"put the folder images of {RECIPE.url} beside {TABLES}"
    return visual_at(folder / "images" / f"{name}.png", kind="image", where=row.where, mend=mend, modality=modality)


def _shared(row: Row, split: Split, visuals: list[VisualRef], **facts: Any) -> dict[str, Any]:
    case = f"{RECIPE.name}/{row.text('U_id')}"
    return {
        "patient_id": case, "study_id": case, "source": RECIPE.name, "licence": RECIPE.licence, "split": split,
        "visuals": visuals, "where": row.where, "metadata": {"official_split": True, **facts},
    }  # fmt: skip


def _described(row: Row, folder: Path, split: Split) -> Iterator[Sample | BadSample]:
    """Questions about one picture; a caption that is a template is refused, the other questions stand."""
    name, about = row.text("image"), _part(row, "Description")
    plane = (about.optional("Plane") or "").lower()
    modality = MODALITIES.get(row.text("Type"), "unknown") if plane in SCANS else "unknown"
    facts = {
        "modality": modality, "location": row.optional("Location") or "unknown",
        "sex": about.optional("Sex") or "unknown", "age": about.optional("Age") or "unknown",
        "medpix": f"medpix/{name.partition('_')[2]}",
    }  # fmt: skip
    shared = _shared(row, split, [_picture(folder, name, row, modality)], **facts)
    stem = f"{RECIPE.name}/{name}"
    try:
        yield ask(
            sample_id=f"{stem}/caption", prompt="Write the caption of this image.",
            answers=[_written(about, "Caption")], kind="report", topic="caption", **shared,
        )  # fmt: skip
    except BadSample as bad:
        yield bad
    if modality != "unknown":
        yield ask(
            sample_id=f"{stem}/modality", prompt="Which modality is this?", answers=[modality], kind="closed",
            choices=tuple(MODALITIES.values()), topic="modality", **shared,
        )  # fmt: skip
    plane = "axial" if plane == "transverse" else plane
    if plane in PLANES:
        yield ask(
            sample_id=f"{stem}/plane", prompt="In which plane is this image?", answers=[plane], kind="closed",
            choices=PLANES, topic="plane", **shared,
        )  # fmt: skip
    region = (row.optional("Location Category") or "").lower()
    if region in REGIONS:
        yield ask(
            sample_id=f"{stem}/region", prompt="Which part of the body is shown?",
            answers=[chr(ord("A") + REGIONS.index(region))], kind="choice", choices=REGIONS, topic="organ", **shared,
        )  # fmt: skip


def _case(row: Row, folder: Path, split: Split) -> Iterator[Sample | BadSample]:
    """Findings and diagnosis of one case from all of its pictures and the history."""
    pictures: list[VisualRef] = []
    for key, modality in (("TAC", "CT"), ("MRI", "MR")):
        names = row.values.get(key) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadSample(f"{key!r} must be a list of names", where=row.where, mend="use the file as published")
        pictures += [_picture(folder, name, row, modality) for name in names]
    if not pictures:
        raise BadSample("the case names no picture", where=row.where, mend="leave the case out")
    case = _part(row, "Case")
    modalities = "+".join(dict.fromkeys(str(ref.options["modality"]) for ref in pictures))
    shared = _shared(row, split, pictures, modality=modalities, pictures=len(pictures))
    history = case.optional("History")
    before = f"History: {history}\n" if history and not UNFILLED.fullmatch(history) else ""
    stem = f"{RECIPE.name}/{row.text('U_id')}"
    for key, name, prompt, kind in (
        ("Findings", "findings", "Write the findings.", "report"),
        ("Case Diagnosis", "diagnosis", "What is the diagnosis? Answer briefly.", "open"),
    ):
        try:
            yield ask(
                sample_id=f"{stem}/{name}", prompt=before + prompt, answers=[_written(case, key)], kind=kind,  # type: ignore[arg-type]
                topic=name, **shared,
            )  # fmt: skip
        except BadSample as bad:
            yield bad


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for table, make in (("descriptions", _described), ("data", _case)):
        for part, split in SPLITS.items():
            path = folder / TABLES / f"{table}_{part}.jsonl"
            if not path.is_file():
                yield BadSample(f"no table {path.name}", where=str(path), mend=f"put it there, from {RECIPE.url}")
                continue
            for row in read_json_lines(path):
                if isinstance(row, BadSample):
                    yield row
                    continue
                try:
                    yield from list(make(row, folder, split))
                except BadSample as bad:
                    yield bad


RECIPE = Recipe(
    name="medpix-2",
    version="CHILab1/MedPix-2.0 (2025)",
    licence="not stated in the repository of the authors; MedPix: terms of the National Library of Medicine",
    url="https://github.com/CHILab1/MedPix-2.0",
    citation="Siragusa et al., Data Science and Engineering (2025), doi 10.1007/s41019-025-00297-8",
    owned=("Case_topic.json", "Descriptions.json", "images_overview.csv", f"{TABLES}/*", "images/**/*"),
    matches=lambda folder: any((folder / TABLES / f"descriptions_{part}.jsonl").is_file() for part in SPLITS),
    build=_build,
    about=(
        "About 2,000 pictures (CT and MR slices) of some 670 teaching cases of MedPix, each picture with a caption, "
        "modality, plane and place, each case with history, findings and diagnosis. The authors' split keeps a case "
        "in one part; dev is the validation split."
    ),
    layout="MedPix-2-0/\n  images/<U_id>_synpic<N>.png\n  splitted_dataset/\n"
    "    descriptions_{train,dev,test}.jsonl    one picture per line\n"
    "    data_{train,dev,test}.jsonl            one case per line\n"
    "  Case_topic.json, Descriptions.json       the same rows unsplit; not read",
    questions=(
        "report: the caption of a picture; the findings of a case from its history and all of its pictures",
        "open: the diagnosis of a case from its history and all of its pictures",
        "closed: modality (CT or MR) and plane (axial, coronal or sagittal) of a picture",
        "choice: which of five parts of the body a picture shows",
    ),
    faults=(
        'Some captions were never filled in ("Replace this - DESCRIPTION OF THE IMAGE OR FINDINGS.", "IN PROGRESS") or '
        'only number the picture ("CT image 5"): they are refused, the other questions about the picture stand.',
        "Type says CT or MR for every picture, also for a few photographs, specimens and radiographs of a case: the "
        "modality is asked, and stated, only where the plane is one of CT or MR.",
        "One caption often stands for several pictures of a case and names what only one of them shows.",
        "Pictures are screenshots of CT and MR: no Hounsfield units, no spacing, and arrows and letters burned in. A "
        "case has up to 31 of them.",
        "VQA-RAD and VQA-Med 2019 ask about pictures of MedPix too; `medpix` in the metadata names the picture as "
        "those recipes do. Look for copies before you score on them.",
    ),
    measured=(
        "The published set as a whole (2,050 pictures, 671 cases): 9,322 samples (7,513 training, 890 validation, 919 "
        "test); 39 captions and 17 findings are refused because nobody filled them in. Every picture loads, no two are "
        "copies, no case is in two splits."
    ),
)
