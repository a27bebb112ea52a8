"""CT-RATE: chest CT volumes with radiology reports and 18 abnormalities.

Hamamci et al., Developing generalist foundation models from a multimodal dataset for 3D computed tomography (2024),
arXiv:2403.17834. A volume is named <split>_<patient>_<scan>_<reconstruction>.nii.gz; the reconstructions of a scan
share one report, so that a scan is the study. Read are the volumes of train_fixed and valid_fixed, whose headers hold
spacing and the rescaling to Hounsfield units; those of the first release (train, valid) lack both, which only the
metadata table had, and are refused. What no_chest_*.txt lists is no chest CT and refused too. The authors publish no
third split: their validation split, which every published score is of, is the test split here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import YES_NO, ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.label_questions import labels_to_ask, spoken
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.reports.priors import speaks_of_prior
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, make_samples, read_csv, read_text

LABELS = (
    "Medical material", "Arterial wall calcification", "Cardiomegaly", "Pericardial effusion",
    "Coronary artery wall calcification", "Hiatal hernia", "Lymphadenopathy", "Emphysema", "Atelectasis", "Lung nodule",
    "Lung opacity", "Pulmonary fibrotic sequela", "Pleural effusion", "Mosaic attenuation pattern",
    "Peribronchial thickening", "Consolidation", "Bronchiectasis", "Interlobular septal thickening",
)  # fmt: skip
COUNTED = {
    "Pericardial effusion", "Hiatal hernia", "Lung nodule", "Lung opacity", "Pulmonary fibrotic sequela",
    "Pleural effusion", "Mosaic attenuation pattern",
}  # fmt: skip
COLUMNS = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
NAME = re.compile(r"(?P<patient>(train|valid)_\d+)_(?P<scan>[a-z]+)_(?P<reconstruction>\d+)\.nii\.gz")
FACTS = {"PatientSex": "sex", "PatientAge": "age", "Manufacturer": "manufacturer", "ConvolutionKernel": "kernel"}
UNSAID = {"not given.", "not given", "none."}
"""What the tables write for no clinical information; seen as such beside what Row.optional knows."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The tables of one of the two published parts."""

    folder: str
    split: Split
    reports: str
    labels: str
    metadata: str
    no_chest: str


PARTS = (
    Part(
        folder="train", split="train", reports="train_reports.csv", labels="train_predicted_labels.csv",
        metadata="train_metadata.csv", no_chest="no_chest_train.txt",
    ),
    Part(
        folder="valid", split="test", reports="validation_reports.csv", labels="valid_predicted_labels.csv",
        metadata="validation_metadata.csv", no_chest="no_chest_valid.txt",
    ),
)  # fmt: skip


def _table(path: Path, required: tuple[str, ...]) -> Iterator[Row | BadSample]:
    """Rows of a table that may be missing."""
    if path.is_file():
        yield from read_csv(path, required=("VolumeName", *required))


def _labels(path: Path) -> tuple[dict[str, list[str]], list[BadSample]]:
    """The present abnormalities by VolumeName, and the rows that say neither 0 nor 1."""
    found: dict[str, list[str]] = {}
    refused: list[BadSample] = []
    for row in _table(path, LABELS):
        try:
            if isinstance(row, BadSample):
                raise row
            found[row.text("VolumeName")] = _present(row)
        except BadSample as bad:
            refused.append(bad)
    return found, refused


def _present(row: Row) -> list[str]:
    values = {label: row.text(label) for label in LABELS}
    strange = next((f"{label!r} is {value!r}" for label, value in values.items() if value not in ("0", "1")), None)
    if strange is not None:
        raise BadSample(f"{strange}, expected 0 or 1", where=row.where, mend="use the table as published")
    return [label for label, value in values.items() if value == "1"]


def _facts(path: Path) -> tuple[dict[str, dict[str, str]], list[BadSample]]:
    """What the metadata table says of patient and scanner, by VolumeName."""
    found: dict[str, dict[str, str]] = {}
    refused: list[BadSample] = []
    for row in _table(path, ()):
        if isinstance(row, BadSample):
            refused.append(row)
        else:
            said = {name: row.optional(key) for key, name in FACTS.items()}
            found[row.written("VolumeName")] = {name: value for name, value in said.items() if value is not None}
    return found, refused


def _make(
    row: Row,
    *,
    folder: Path,
    part: Part,
    labels: dict[str, list[str]],
    facts: dict[str, dict[str, str]],
    no_chest: set[str],
) -> Iterator[Sample]:
    name = row.text("VolumeName")
    match = NAME.fullmatch(name)
    if match is None or not name.startswith(part.folder):
        raise BadSample(
            f"{name!r} is not {part.folder}_<patient>_<scan>_<reconstruction>.nii.gz",
            where=row.where,
            mend="use the tables as published",
        )
    if name in no_chest:
        raise BadSample(f"{name} is no chest CT, says {part.no_chest}", where=row.where, mend="leave the volume out")
    patient, scan = match["patient"], f"{match['patient']}_{match['scan']}"
    place = Path(patient) / scan / name
    if not (folder / f"{part.folder}_fixed" / place).exists() and (folder / part.folder / place).exists():
        raise BadSample(
            f"{name} lies in {part.folder} only, where headers state neither spacing nor Hounsfield units",
            where=row.where,
            mend=f"download it from {part.folder}_fixed",
        )
    shared: dict[str, Any] = {
        "patient_id": f"{RECIPE.name}/{patient}",
        "study_id": f"{RECIPE.name}/{scan}",
        "source": RECIPE.name,
        "licence": RECIPE.licence,
        "split": part.split,
        "visuals": [
            visual_at(
                folder / f"{part.folder}_fixed" / place,
                kind="volume",
                where=row.where,
                mend=f"download it from {RECIPE.url}",
                modality="CT",
                unit="HU",
            )
        ],
        "where": row.where,
        "metadata": {
            "official_split": True,
            "modality": "CT",
            "reconstruction": match["reconstruction"],
            **facts.get(name, {}),
        },
    }
    yield from _asked(row, labels.get(name), f"{RECIPE.name}/{name.removesuffix('.nii.gz')}", shared)


def _asked(row: Row, present: list[str] | None, stem: str, shared: dict[str, Any]) -> Iterator[Sample]:
    findings, impression = row.optional("Findings_EN"), row.optional("Impressions_EN")
    if not findings and not impression:
        raise BadSample("the report is empty", where=row.where, mend="leave the volume out")
    clinical = row.optional("ClinicalInformation_EN")
    indication = f"Indication: {clinical}\n" if clinical and clinical.lower() not in UNSAID else ""
    parts = (("Findings", findings), ("Impression", impression))
    answer = " ".join(f"{name}: {text}" for name, text in parts if text)
    compares = {"speaks_of_unseen_prior": bool(speaks_of_prior(answer))}
    yield ask(
        sample_id=f"{stem}/report", prompt=f"{indication}Write the report of this chest CT.", answers=[answer],
        kind="report", topic="report", **{**shared, "metadata": {**shared["metadata"], **compares}},
    )  # fmt: skip
    if present is None:
        return
    for label in labels_to_ask(present, LABELS, key=stem, split=shared["split"]):
        yield ask(
            sample_id=f"{stem}/{label.lower().replace(' ', '-')}",
            prompt=f"Does this chest CT show {spoken(label, COUNTED)}?",
            answers=["yes" if label in present else "no"], kind="closed", choices=YES_NO, topic="presence", **shared,
        )  # fmt: skip


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for part in PARTS:
        reports = folder / "radiology_text_reports" / part.reports
        if reports.is_file():
            rows = read_csv(reports, required=COLUMNS)
            yield from part_samples(folder, part, rows, no_chest=not_chest(folder, part))


def not_chest(folder: Path, part: Part) -> set[str]:
    """Names of the volumes that the list of scans of other body parts holds; empty without the list."""
    listed = folder / "metadata" / part.no_chest
    return {Path(line).name for line in read_text(listed).split()} if listed.is_file() else set()


def part_samples(
    folder: Path, part: Part, rows: Iterable[Row | BadSample], *, no_chest: set[str]
) -> Iterator[Sample | BadSample]:
    """The samples of ``rows`` of the report table of ``part``; volumes in ``no_chest`` are refused."""
    labels, refused = _labels(folder / "multi_abnormality_labels" / part.labels)
    facts, damaged = _facts(folder / "metadata" / part.metadata)
    yield from (*refused, *damaged)
    make = partial(_make, folder=folder, part=part, labels=labels, facts=facts, no_chest=no_chest)
    yield from make_samples(rows, make)


RECIPE = Recipe(
    name="ct-rate",
    version="ibrahimhamamci/CT-RATE, fixed volumes",
    licence="CC BY-NC-SA 4.0",
    url="https://huggingface.co/datasets/ibrahimhamamci/CT-RATE",
    citation="Hamamci et al., arXiv:2403.17834 (2024)",
    owned=(
        "radiology_text_reports/*", "multi_abnormality_labels/*", "metadata/*",
        *(f"{place}/**/*.nii.gz" for part in PARTS for place in (part.folder, f"{part.folder}_fixed")),
    ),
    matches=lambda folder: any((folder / "radiology_text_reports" / part.reports).is_file() for part in PARTS),
    build=_build,
    about=(
        "50,188 volumes of 25,692 non-contrast chest CT scans of 21,304 patients, with reports translated into English "
        "and 18 abnormalities per volume. Access is gated: the terms on the page of the dataset are accepted by you. "
        "Any part of the volumes will do; a volume that a table names and that is not there is refused by name."
    ),
    layout="dataset/\n  train_fixed/train_1/train_1_a/train_1_a_1.nii.gz\n"
    "  valid_fixed/valid_1/valid_1_a/valid_1_a_1.nii.gz\n"
    "  radiology_text_reports/{train,validation}_reports.csv\n"
    "  multi_abnormality_labels/{train,valid}_predicted_labels.csv    optional\n"
    "  metadata/{train,validation}_metadata.csv                       optional\n"
    "  metadata/no_chest_{train,valid}.txt                            optional",
    questions=(
        "report: findings and impression, from the volume and the clinical information",
        "closed: one yes/no question per abnormality; training asks for the present ones and as many absent ones, "
        "test for all 18",
    ),
    faults=(
        "Volumes of the first release (train, valid) have blank headers (no spacing, orientation or rescaling): they "
        "are refused, use train_fixed and valid_fixed.",
        "Some scans are no chest CT (mostly heads); metadata/no_chest_*.txt lists them, and they are refused when the "
        "list is there.",
        "The labels are predictions of a text classifier from the reports, not readings of the images.",
        "Several reconstructions of a scan share one report: they have one `study_id`, and scores should be summed up "
        "by patient.",
        "Some reports compare with earlier scans that are not shown; `speaks_of_unseen_prior` marks them.",
        "There is no third split; valid is the test split here. Keep some patients of train for validation yourself.",
        "3D-RAD asks about volumes of CT-RATE under names of its own (test_*): do not train on one and test on the "
        "other.",
    ),
)  # fmt: skip
