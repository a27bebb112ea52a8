"""MedICaT: figures of open-access papers with their captions.

Subramanian et al., MedICaT: a dataset of medical images, captions, and textual references, Findings of EMNLP
(2020). Rows of a .jsonl name figures/<pdf_hash>_<fig_uri>. A paper is one "patient": figures of one paper show
the same cases. The data are for non-commercial use; the licence of the paper is named beside that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.splits import split_patients
from medvlm.data_recipes.tables import Row, first_keys, make_samples, read_json_lines

NUMBER = re.compile(r"^(fig(ure)?s?\.?\s*\d+\s*[.:]?\s*)", re.IGNORECASE)
"""The figure's number in its paper, which nobody can see in the picture."""


def _tables(folder: Path) -> list[Path]:
    if not (folder / "figures").is_dir():
        return []
    return [path for path in sorted(folder.glob("*.jsonl")) if {"pdf_hash", "fig_uri"} <= first_keys(path)]


def _licence(row: Row) -> str:
    info = row.values.get("oa_info")
    access = info.get("oa") if isinstance(info, dict) else None
    stated = access.get("license") if isinstance(access, dict) else None
    return f"{RECIPE.licence}; paper: {stated or 'not stated'}"


def _make(row: Row, *, folder: Path, splits: dict[str, Split]) -> Iterable[Sample]:
    paper, figure = row.text("pdf_hash"), row.text("fig_uri")
    caption = row.optional("s2_caption") or row.text("s2orc_caption")
    path = folder / "figures" / f"{paper}_{figure}"
    yield ask(
        sample_id=f"{RECIPE.name}/{paper}/{figure}",
        patient_id=f"{RECIPE.name}/{paper}",
        source=RECIPE.name,
        licence=_licence(row),
        split=splits[paper],
        visuals=[visual_at(path, kind="image", where=row.where, mend=f"put the figures of {RECIPE.url} into figures")],
        prompt="Write the caption of this figure.",
        answers=[NUMBER.sub("", caption)],
        kind="report",
        topic="caption",
        where=row.where,
        metadata={"modality": "unknown", "radiology": bool(row.values.get("radiology"))},
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    rows = [row for table in _tables(folder) for row in read_json_lines(table)]
    splits = split_patients(row.text("pdf_hash") for row in rows if isinstance(row, Row) and row.optional("pdf_hash"))
    yield from make_samples(rows, partial(_make, folder=folder, splits=splits))


RECIPE = Recipe(
    name="medicat",
    version="allenai/medicat (2020)",
    licence="non-commercial use (MedICaT)",
    url="https://github.com/allenai/medicat",
    citation="Subramanian et al., Findings of EMNLP (2020)",
    owned=("*.jsonl", "figures/**/*"),
    matches=lambda folder: bool(_tables(folder)),
    build=_build,
    about="Figures of open-access medical papers with their captions.",
    layout=("FOLDER/\n  <name>.jsonl\n  figures/<pdf_hash>_<fig_uri>"),
    questions=("report: the caption, without the figure's number",),
    faults=(
        "Captions describe compound figures as a whole.",
        "The data are for non-commercial use; the licence of the paper is named beside that.",
        "There is no official split; ours keeps a paper in one part.",
    ),
    measured="A public subset of 6 figures of 2 papers: 6 samples, none refused.",
)
