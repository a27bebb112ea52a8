"""A folder of DICOM studies and their reports -> one sample per study (or series) and question."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.draft import Workshop
from medvlm.data_recipes.own.reports import ReportStore
from medvlm.data_recipes.own.rows import SourceRow
from medvlm.data_recipes.own.settings import Filled
from medvlm.data_recipes.own.table import answers, asking
from medvlm.data_recipes.readers import sniff
from medvlm.data_recipes.readers.content import format_of
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS
from medvlm.data_recipes.readers.refusals import decoding
from medvlm.data_recipes.sample import Sample, VisualRef
from medvlm.data_recipes.series import Header, group, hashed

_TAGS = {"study_uid": "StudyInstanceUID", "accession": "AccessionNumber", "patient": "PatientID"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One image, clip or series: what shows it, whose it is (a hash), and the key of its report."""

    ref: VisualRef
    patient: str | None
    key: str


def samples_of_studies(workshop: Workshop) -> Iterator[Sample | BadSample]:
    """Every study of the recipe with its report.

    Files without a key, studies without a report and reports without a study come out as BadSample.
    """
    filled = workshop.filled
    try:
        store = ReportStore(filled)
    except BadSample as bad:
        yield bad
        return
    yield from store.fill()
    studies: dict[str, list[Shown]] = defaultdict(list)
    for found in _find(filled, store):
        if isinstance(found, BadSample):
            yield found
        else:
            studies[found.key].append(found)
    for key in sorted(studies, key=hashed):
        try:
            yield from _study(key, studies[key], store, workshop)
        except BadSample as bad:
            yield bad
    yield from store.unused()


def _study(key: str, shown: list[Shown], store: ReportStore, workshop: Workshop) -> Iterator[Sample]:
    recipe = workshop.recipe
    shown = sorted(shown, key=lambda one: (one.ref.path, str(one.ref.options)))
    where = shown[0].ref.path
    row = store.take(key)
    if row is None:
        raise BadSample(
            f"{len(shown)} images or series without a report", where=where, mend="add the report, or remove the images"
        )
    if len({one.patient for one in shown}) > 1:
        raise BadSample(
            "images of different patients share the key of one report",
            where=where,
            mend="check reports.by in the recipe; study_uid is unique",
        )
    together = [shown] if recipe.one_sample_per == "study" else [[one] for one in shown]
    if recipe.one_sample_per == "study" and len(shown) > recipe.most_visuals:
        raise BadSample(
            f"the study has {len(shown)} images or series, more than most_visuals: {recipe.most_visuals}",
            where=where,
            mend="write one_sample_per: series, kinds: [volume], or a larger most_visuals in the recipe",
        )
    for number, part in enumerate(together, start=1):
        name = hashed(key) if len(together) == 1 else f"{hashed(key)}-{number}"
        source = SourceRow(row=row, key=name, file="")
        refs = tuple(one.ref for one in part)
        owner = workshop.owners.of(source, refs, stated=part[0].patient)
        yield from asking(source, answers(row, recipe.ask), refs, owner, workshop)


def _find(filled: Filled, store: ReportStore) -> Iterator[Shown | BadSample]:
    """Images and series, folder by folder."""
    for written in filled.recipe.paths:
        root = filled.path(written)
        if not root.is_dir():
            yield BadSample("no such folder", where=str(root), mend="correct paths in the recipe")
            continue
        for place, names, leaves in os.walk(root):
            names[:] = sorted(name for name in names if not name.startswith("."))
            files = [Path(place) / leaf for leaf in sorted(leaves) if not leaf.startswith(".")]
            yield from _in_folder([file for file in files if _is_dicom(file)], root, filled, store)


def _is_dicom(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0 and format_of(path) == "dicom"


def _in_folder(files: list[Path], root: Path, filled: Filled, store: ReportStore) -> Iterator[Shown | BadSample]:
    series, singles, _, refused = group(files)
    yield from refused
    options = filled.recipe.reader
    if "volume" in filled.recipe.kinds:
        for one in series:
            ref = VisualRef(
                kind="volume",
                path=str(one.folder.resolve()),
                options={"series_uid": one.series_uid, **options.get("volume", {})},
            )
            yield _shown(ref, one.headers[0], one.headers[0].path, root, filled, store)
    for path, header in singles:
        try:
            kind = sniff(path)
        except BadSample as bad:
            yield bad
            continue
        if kind is None:
            yield BadSample("DICOM without an image (a report, a plan, a presentation state)", where=str(path),
                            mend="leave it out")  # fmt: skip
        elif kind in filled.recipe.kinds:
            ref = VisualRef(kind=kind, path=str(path.resolve()), options=dict(options.get(kind, {})))
            yield _shown(ref, header, path, root, filled, store)


def _shown(
    ref: VisualRef, header: Header | None, path: Path, root: Path, filled: Filled, store: ReportStore
) -> Shown | BadSample:
    assert filled.recipe.reports is not None
    patient = header.patient if header is not None else None
    by = filled.recipe.reports.by
    try:
        key = _folder_key(path, root, store) if by == "folder" else _tag(path, _TAGS[by])
    except BadSample as bad:
        return bad
    if not key:
        what = "no folder above it is the key of a report" if by == "folder" else f"it has no {_TAGS[by]}"
        return BadSample(what, where=str(path), mend="check reports.by in the recipe, or remove the file")
    return Shown(ref=ref, patient=patient, key=key)


def _folder_key(path: Path, root: Path, store: ReportStore) -> str:
    """The name of the innermost folder that has a report."""
    names = path.parent.resolve().relative_to(root.resolve().parent).parts
    return next((name for name in reversed(names) if name in store), "")


def _tag(path: Path, name: str) -> str:
    with decoding(path, "a DICOM header", "export the file again", also=DICOM_ERRORS, quote=False):
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=[name])
        return str(data.get(name) or "").strip()
