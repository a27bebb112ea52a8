"""CheXpert Plus: chest radiographs with the sections of their reports, in one table of one row per image.

Chambon et al., CheXpert Plus: augmenting a large chest X-ray dataset with text radiology reports, patient demographics
and additional image formats, arXiv:2405.19538 (2024). df_chexpert_plus_240401.csv holds ``path_to_image``
(train/patient00001/study1/view1_frontal.jpg; the PNG archive holds the same names in .png), ``frontal_lateral``,
``ap_pa``, ``deid_patient_id``, ``patient_report_date_order``, ``report`` and columns ``section_*``. One sample is one
study.

There are no dates of studies. ``patient_report_date_order`` numbers the reports of a patient; a public project reports
that it does not agree with the dates in the texts, so priors are linked only when ``samples(priors="order")`` asks for
it. The table is read twice; paths and views are held, reports are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from medvlm.data_recipes.asking import visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.reports.cleaning import Policy
from medvlm.data_recipes.reports.large_tables import stream_csv
from medvlm.data_recipes.reports.sections import Report, from_parts, sections
from medvlm.data_recipes.reports.studies import UNNAMED, PriorStudy, View, ask_study, view_name
from medvlm.data_recipes.reports.written import answer_of, context_of
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row

TABLE = "df_chexpert_plus_240401.csv"
COLUMNS = (
    "path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order", "report",
    "section_findings", "section_impression", "split",
)  # fmt: skip
SECTIONS = (
    "section_clinical_history", "section_history", "section_comparison", "section_technique",
    "section_procedure_comments", "section_findings", "section_impression",
)  # fmt: skip
SPLITS: dict[str, Split] = {"train": "train", "valid": "validation"}
ROOTS = (Path("PNG"), Path("PNG") / "PNG", Path(), Path("CheXpert-v1.0"), Path("CheXpert-v1.0-small"))


@dataclass(kw_only=True, slots=True)
class _Study:
    patient: str
    order: str
    split: Split
    last_row: int
    report_hash: bytes
    conflict: str = ""
    images: list[tuple[str, str]] = field(default_factory=list)
    """(path_to_image, name of the view)."""


def _key(path: str) -> str:
    """ "train/patient00001/study1" of a path to an image."""
    return path.replace("\\", "/").rpartition("/")[0]


def _cell(row: Row, key: str) -> str | None:
    """A cell as it is written, line breaks kept (Row.text joins them); None when it is empty."""
    text = str(row.values.get(key) or "").strip()
    return None if text.lower() in ("", "nan", "none") else text


def _digest(row: Row) -> bytes:
    texts = (_cell(row, key) or "" for key in ("report", *SECTIONS))
    return hashlib.sha256("\0".join(texts).encode()).digest()[:8]


def _add(row: Row, studies: dict[str, _Study]) -> None:
    path = row.text("path_to_image")
    split = SPLITS.get(row.text("split"))
    if split is None:
        raise BadSample(f"the split is {row.text('split')!r}", where=row.where, mend=f"use one of {', '.join(SPLITS)}")
    study = studies.setdefault(
        _key(path),
        _Study(
            patient=row.text("deid_patient_id"), order=row.written("patient_report_date_order").removesuffix(".0"),
            split=split, last_row=row.number, report_hash=_digest(row),
        ),
    )  # fmt: skip
    if study.patient != row.text("deid_patient_id") or study.split != split:
        study.conflict = "rows of one study name several patients or splits"
    elif study.report_hash != _digest(row):
        study.conflict = "rows of one study hold different reports"
    study.last_row = row.number
    name = view_name(row.optional("frontal_lateral"), row.optional("ap_pa")) or UNNAMED
    study.images.append((path, name))


def _views(study: _Study, folder: Path, where: str) -> tuple[View, ...]:
    """Raises BadSample when an image is missing."""
    views = []
    for name, view in study.images:
        stem = Path(name)
        paths = [folder / root / stem.with_suffix(suffix) for root in ROOTS for suffix in (".png", ".jpg")]
        path = next((path for path in paths if path.is_file()), paths[0])
        visual = visual_at(
            path, kind="image", where=where, mend=f"unpack the PNG archive of {RECIPE.url}", modality="DX"
        )
        views.append(View(name=view, visual=visual))
    return tuple(views)


def _report(row: Row) -> Report:
    """The sections of the columns; of the whole report where neither findings nor impression has a column."""
    columns = from_parts((key, _cell(row, key)) for key in SECTIONS)
    return columns if columns.findings or columns.impression else sections(_cell(row, "report") or "")


def _orders(studies: dict[str, _Study]) -> dict[str, str]:
    """Study -> the study of the same patient whose number is the next smaller one; a number used twice links none."""
    patients: dict[str, dict[int, list[str]]] = {}
    for key, study in studies.items():
        if study.order.isdigit():
            patients.setdefault(study.patient, {}).setdefault(int(study.order), []).append(key)
    priors: dict[str, str] = {}
    for numbers in patients.values():
        ordered = sorted(numbers.items())
        for (_, before), (_, now) in pairwise(ordered):
            if len(before) == len(now) == 1:
                priors[now[0]] = before[0]
    return priors


def _sample(
    row: Row, key: str, study: _Study, prior: tuple[str, _Study] | None, folder: Path, *,
    marks: Policy, unseen_prior: Policy,
) -> Sample:  # fmt: skip
    if study.conflict:
        raise BadSample(study.conflict, where=row.where, mend="use the table as published")
    name = f"{RECIPE.name}/{key}"
    views = _views(study, folder, row.where)
    shown, reason = None, "the table has no dates of studies"
    if prior is not None:
        try:
            shown = PriorStudy(
                study_id=f"{RECIPE.name}/{prior[0]}", views=_views(prior[1], folder, row.where), days=None
            )
            reason = "linked by patient_report_date_order"
        except BadSample as bad:
            reason = f"the prior is not shown: {bad.reason}"
    report = _report(row)
    written = answer_of(
        report, where=row.where, prior_shown=shown is not None, marks=marks, unseen_prior=unseen_prior,
        last_paragraph=False,
    )  # fmt: skip
    context = context_of(report)
    prompt = f"Write the report of {'the current' if shown else 'this'} chest X-ray study."
    return ask_study(
        sample_id=f"{name}/report",
        patient_id=f"{RECIPE.name}/{study.patient}",
        study_id=name,
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=study.split,
        views=views,
        prior=shown,
        prompt=f"{context}\n{prompt}" if context else prompt,
        answers=[written.text],
        where=row.where,
        metadata={"modality": "DX", "official_split": True, "prior": reason, **written.metadata},
    )


def samples(
    folder: Path,
    *,
    marks: Policy = "keep",
    unseen_prior: Policy = "keep",
    priors: Literal["none", "order"] = "none",
) -> Iterator[Sample | BadSample]:
    """One sample per study; see reports.written.answer_of for the policies.

    Args:
        priors: "order" shows the study with the next smaller ``patient_report_date_order`` as the prior, without days.

    Raises:
        ValueError: another word for ``priors``.
    """
    if priors not in ("none", "order"):
        raise ValueError(f"chexpert_plus.samples: priors is {priors!r}; use none or order")
    studies: dict[str, _Study] = {}
    for row in stream_csv(folder / TABLE, required=COLUMNS):
        try:
            if isinstance(row, BadSample):
                raise row
            _add(row, studies)
        except BadSample as bad:
            yield bad
    links = _orders(studies) if priors == "order" else {}
    for row in stream_csv(folder / TABLE, required=COLUMNS):
        if isinstance(row, BadSample):
            continue  # It came out above.
        key = _key(row.written("path_to_image"))
        study = studies.get(key)
        if study is None or study.last_row != row.number:
            continue
        before = links.get(key)
        try:
            yield _sample(
                row, key, study, None if before is None else (before, studies[before]), folder,
                marks=marks, unseen_prior=unseen_prior,
            )  # fmt: skip
        except BadSample as bad:
            yield bad


RECIPE = Recipe(
    name="chexpert-plus",
    version="CheXpert Plus 1.0, table 240401 (2024)",
    licence="Stanford University Dataset Research Use Agreement",
    url="https://aimi.stanford.edu/datasets/chexpert-plus",
    citation="Chambon et al., arXiv:2405.19538 (2024)",
    owned=(TABLE, "PNG/**/*", "train/patient*/**/*", "valid/patient*/**/*", "CheXpert-v1.0*/**/*"),
    matches=lambda folder: (folder / TABLE).is_file(),
    build=samples,
    about="223,462 chest radiographs with 187,711 reports of 64,725 patients, cut into sections by the authors. One "
    "sample per study: its views, named; findings and impression are the answer, clinical history is the context.",
    layout=(
        "FOLDER/\n"
        f"  {TABLE}\n"
        "  PNG/train/patient00001/study1/view1_frontal.png    or the same names in .jpg, with or without PNG/\n"
        "  PNG/valid/patient64541/study1/view1_frontal.png"
    ),
    questions=("report: findings and impression of all views of a study",),
    faults=(
        "The table names .jpg; the PNG archive holds the same names in .png.",
        "The split has train and valid only: valid becomes validation, there is no test split.",
        "There are no dates of studies; priors are linked by patient_report_date_order only when asked for.",
        "Reports compare with images that are not shown; metadata.speaks_of_unseen_prior marks them.",
    ),
)
