"""M3D-Cap: CT volumes of Radiopaedia cases, resized and windowed, with the text of their case.

Bai et al., M3D: advancing 3D medical image analysis with multi-modal large language models (2024), arXiv:2404.00578.
M3D_Cap.json holds train, validation and test: lists of {image, text}, two paths. The volumes are those that the
authors' m3d_cap_data_prepare.py makes of the published slices: (1, 32, 256, 256), display values from 0 to 1, without
spacing and orientation. All volumes of a case (planes, phases) have one text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.reports.priors import speaks_of_prior
from medvlm.data_recipes.sample import Sample, Split, VisualRef
from medvlm.data_recipes.tables import Row, object_row, read_json, read_text

TABLE = "M3D_Cap.json"
PLACES = ("", "M3D_Cap_npy")
"""Where the table lies: beside the folder of the volumes, or in it."""
SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
SMALLER_TESTS = {"test1k", "test500", "test100", "hard_test"}
"""Parts of the test split that the authors' retrieval code names; they add nothing."""
PROMPT = "Describe the findings of this CT volume."
MEND = "prepare the volumes with m3d_cap_data_prepare.py of the authors, and keep their names"


def table_of(folder: Path) -> Path | None:
    """M3D_Cap.json below ``folder``."""
    return next((path for place in PLACES if (path := folder / place / TABLE).is_file()), None)


def placed(folder: Path, name: str) -> Path:
    """Where a path of the tables lies: they start from the data folder of the authors, or from that of the volumes.

    Published paths begin with M3D_Cap/ or M3D_Cap_npy/ or with ct_case/ and ct_quizze/; a file that is nowhere is named
    as it was first looked for.
    """
    parts = PurePosixPath(name.removeprefix("./")).parts
    inner = parts[1:] if parts and parts[0] in ("M3D_Cap", "M3D_Cap_npy") else parts
    places = [folder.joinpath(*parts), *(folder.joinpath(top, *inner) for top in ("M3D_Cap_npy", "M3D_Cap", ""))]
    return next((place for place in places if place.is_file()), places[0])


def case_of(name: str, where: str) -> str:
    """The case of a volume or text: its last two folders, such as ct_case/000006.

    Raises:
        BadSample: it lies in no such folder.
    """
    parts = PurePosixPath(name.removeprefix("./")).parts
    if len(parts) < 3:
        raise BadSample(f"{name!r} does not tell its case", where=where, mend="use the paths as published")
    return "/".join(parts[-3:-1])


def volume_at(folder: Path, name: str, where: str) -> VisualRef:
    """A prepared volume.

    Raises:
        BadSample: it is not there.
    """
    return visual_at(placed(folder, name), kind="volume", where=where, mend=MEND, modality="CT", unit="display")


def _row(row: Row, number: int, split: Split, folder: Path) -> Sample:
    image, text = row.text("image"), row.text("text")
    case = case_of(image, row.where)
    answer = " ".join(read_text(placed(folder, text)).split())
    if not answer:
        raise BadSample(f"the text {text} is empty", where=row.where, mend="leave the volume out")
    return ask(
        sample_id=f"{RECIPE.name}/{split}/{number}",
        patient_id=f"radiopaedia/{case}",
        study_id=f"radiopaedia/{case}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        visuals=[volume_at(folder, image, row.where)],
        prompt=PROMPT,
        answers=[answer],
        kind="report",
        topic="report",
        where=row.where,
        metadata={
            "official_split": True, "modality": "CT", "language": "en", "series": PurePosixPath(image).stem,
            "speaks_of_unseen_prior": bool(speaks_of_prior(answer)),
        },
    )  # fmt: skip


def table_samples(folder: Path, *, only: Split | None = None) -> Iterator[Sample | BadSample]:
    """The samples of the table, or of one split of it; nothing where there is no table."""
    table = table_of(folder)
    if table is None:
        return
    content: Any = read_json(table)
    mend = "use the file as published"
    if not isinstance(content, dict):
        raise BadSample("expected an object of splits", where=str(table), mend=mend)
    for name, rows in content.items():
        split = SPLITS.get(name)
        if split is None or not isinstance(rows, list):
            if name not in SMALLER_TESTS:
                yield BadSample(f"{name!r} is no list of train, validation or test", where=str(table), mend=mend)
            continue
        if only is not None and split != only:
            continue
        for number, item in enumerate(rows, start=1):
            row = object_row(item, where=f"{table}:{name}[{number}]", number=number)
            try:
                if isinstance(row, BadSample):
                    raise row
                yield _row(row, number, split, folder)
            except BadSample as bad:
                yield bad


RECIPE = Recipe(
    name="m3d-cap",
    version="GoodBaiBai88/M3D-Cap (2024)",
    licence="Apache-2.0 as stated by M3D; the cases are Radiopaedia's, for non-commercial use",
    url="https://huggingface.co/datasets/GoodBaiBai88/M3D-Cap",
    citation="Bai et al., arXiv:2404.00578 (2024)",
    owned=(TABLE, "M3D_Cap_npy/**/*", "M3D_Cap/**/*"),
    matches=lambda folder: table_of(folder) is not None,
    build=table_samples,
    about=(
        "120,092 CT volumes of Radiopaedia cases with 42,496 texts of study findings, prepared by the authors' script: "
        "foreground cropped, 32 x 256 x 256, display values."
    ),
    layout=(
        "FOLDER/\n"
        "  M3D_Cap.json                                   or M3D_Cap_npy/M3D_Cap.json\n"
        "  M3D_Cap_npy/{ct_case,ct_quizze}/<case>/<series>.npy\n"
        "  M3D_Cap_npy/{ct_case,ct_quizze}/<case>/text.txt"
    ),
    questions=("report: the findings of the case, asked with one and the same sentence",),
    faults=(
        "All volumes of a case share one text, whichever plane or phase they are; they have one patient_id.",
        "A quiz case and a case may be of one patient; nothing tells.",
        "The pictures were windowed before they were published: no Hounsfield units, no spacing, no orientation, and "
        "the same 32 x 256 x 256 for every field of view.",
        "Where a case has no findings, the authors' script took its discussion instead, or the whole page.",
    ),
)
