"""CT-RATE: reports and 18 abnormalities of the 1,564 chest CT scans of the validation split, one volume of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes.ct_rate import (
    COLUMNS,
    COUNTED,
    LABELS,
    NAME,
    PARTS,
    RECIPE,
    not_chest,
    part_samples,
)
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_csv
from medvlm.eval.task import Task
from medvlm.eval.tasks.drawn_volumes import draw_ct, write_csv
from medvlm.eval.tasks.label_sets import together

PART = next(part for part in PARTS if part.split == "test")
QUESTION = "Which of these abnormalities does this chest CT show?"


def _one_each(table: Path) -> Iterator[Row | BadSample]:
    """Of each scan the row of its reconstruction with the lowest number; rows that cannot be read as they are."""
    chosen: dict[str, tuple[int, Row]] = {}
    for row in read_csv(table, required=COLUMNS):
        match = NAME.fullmatch(row.written("VolumeName")) if isinstance(row, Row) else None
        if isinstance(row, BadSample) or match is None:
            yield row  # refused by the recipe, in its words
            continue
        scan, number = f"{match['patient']}_{match['scan']}", int(match["reconstruction"])
        if scan not in chosen or number < chosen[scan][0]:
            chosen[scan] = (number, row)
    yield from (row for _, row in chosen.values())


def _samples(folder: Path) -> Iterator[Sample | BadSample]:
    table = folder / "radiology_text_reports" / PART.reports
    if not table.is_file():
        raise BadSample(f"no {PART.reports} is here", where=str(folder), mend=f"download it from {RECIPE.url}")
    others = not_chest(folder, PART)
    # The published split keeps the few scans of other body parts, so they are asked, and marked.
    for sample in part_samples(folder, PART, _one_each(table), no_chest=set()):
        if isinstance(sample, Sample):
            volume = Path(sample.visuals()[0].path).name
            sample = replace(sample, metadata={**sample.metadata, "language": "en", "no_chest": volume in others})
        yield sample


def read_reports(folder: Path) -> Iterator[Sample | BadSample]:
    """The report question of each scan.

    Raises:
        BadSample: there is no table of reports.
    """
    for sample in _samples(folder):
        if isinstance(sample, BadSample) or sample.sample_id.endswith("/report"):
            yield sample


def read_labels(folder: Path) -> Iterator[Sample | BadSample]:
    """All 18 abnormalities of each scan in one question.

    Raises:
        BadSample: a table is missing.
    """
    table = folder / "multi_abnormality_labels" / PART.labels
    if not table.is_file():
        raise BadSample(f"no {PART.labels} is here", where=str(folder), mend=f"download it from {RECIPE.url}")
    yield from together(_labelled(folder, table), prompt=QUESTION, labels=len(LABELS), where=str(table))


def _labelled(folder: Path, table: Path) -> Iterator[Sample | BadSample]:
    """The 18 yes/no samples of each scan; a scan without labels is named."""
    pending: Sample | None = None
    for sample in (*_samples(folder), None):
        if isinstance(sample, Sample) and not sample.sample_id.endswith("/report"):
            pending = None
            yield sample
            continue
        if pending is not None:
            name = Path(pending.visuals()[0].path).name
            yield BadSample(f"no labels of {name}", where=str(table), mend="use the table as published")
            pending = None
        if isinstance(sample, Sample):
            pending = sample
        elif sample is not None:
            yield sample


def example(folder: Path) -> None:
    """Twenty-six scans of 24 patients, some with two reconstructions of which the second stands first, as NIfTI."""
    reports: list[list[str]] = []
    labels: list[list[str]] = []
    for scan in range(26):
        stem = f"valid_{8000 + scan % 24}_{'ab'[scan // 24]}"
        present = [label for place, label in enumerate(LABELS) if scan and (place + scan) % 7 == 0]
        said = [label.lower() for label in present if label not in COUNTED] or ["no drawn abnormality"]
        for number in ("2", "1") if scan % 3 == 0 else ("1",):
            name = f"{stem}_{number}.nii.gz"
            draw_ct(folder / f"{PART.folder}_fixed" / stem.rpartition("_")[0] / stem / name)
            reports.append(
                [
                    name, "Not given." if scan % 2 else "Invented cough.", "Non-contrast.",
                    f"Made-up scan {scan}: {', '.join(said)}.", f"{said[0].capitalize()}, {scan + 3} mm.",
                ]
            )  # fmt: skip
            labels.append([name, *(str(int(label in present)) for label in LABELS)])
    write_csv(folder / "radiology_text_reports" / PART.reports, COLUMNS, reports)
    write_csv(folder / "multi_abnormality_labels" / PART.labels, ["VolumeName", *LABELS], labels)


_N_SOURCE = (
    "scans of the validation split (1,304 patients, 3,039 volumes) in the paper; confirmed by its authors in "
    "discussion 65 of the dataset's page; not counted here (access is gated)"
)
_CHOICE = (
    "A scan has up to several reconstructions with one report and one set of labels: of each scan the volume with the "
    "lowest reconstruction number is shown, so that no report counts twice. Intervals are over patients."
)
_FAULTS = (
    "Published figures are about all 3,039 volumes, so that scans with two reconstructions count twice; ours are about "
    "1,564 scans.",
    "CIDEr of CT-CHAT's evaluation is computed of raw words, without the tokenizer of coco; its BLEU and METEOR also "
    "stand for multiple choice answers.",
    "The few scans of other body parts (metadata/no_chest_valid.txt) are in the published split; they are asked, and "
    "metadata.no_chest marks them where the list is there. The recipe for training refuses them.",
    *RECIPE.faults[:1],
    *RECIPE.faults[2:5],
    RECIPE.faults[6],
)


def _task(name: str, title: str, about: str, *, labels: bool) -> Task:
    return Task(
        name=name,
        version=1,
        title=title,
        about=f"{about} {_CHOICE}",
        folder="ct-rate",
        read=read_labels if labels else read_reports,
        n=1564,
        n_source=_N_SOURCE,
        example=example,
        licence=RECIPE.licence,
        url=RECIPE.url,
        citation=RECIPE.citation,
        access="gated",
        faults=_FAULTS,
    )


TASKS: tuple[Task, ...] = (
    _task(
        "ct-rate-report", "CT-RATE: reports of 1,564 chest CT scans",
        "Findings and impression, from the volume in Hounsfield units and the clinical information.", labels=False,
    ),
    _task(
        "ct-rate-labels", "CT-RATE: which of 18 abnormalities 1,564 chest CT scans show",
        "One question for all 18; F1 over all findings and per finding, absent ones named.", labels=True,
    ),
)  # fmt: skip
