"""VQA-Med 2019 (ImageCLEF): pipe separated questions about MedPix images.

Ben Abacha et al., VQA-Med: overview of the medical visual question answering task at ImageCLEF 2019. Several
accepted answers are parted by "#"; words in round brackets may be left out of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, make_samples, read_text

OPTIONAL = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split as published: its table, its images, and the columns of its table."""

    table: str
    images: str
    split: Split
    columns: tuple[str, ...]


PARTS = (
    Part(table="All_QA_Pairs_train.txt", images="Train_images", split="train", columns=("image", "question", "answer")),
    Part(
        table="All_QA_Pairs_val.txt", images="Val_images", split="validation", columns=("image", "question", "answer")
    ),
    Part(
        table="VQAMed2019_Test_Questions_w_Ref_Answers.txt",
        images="VQAMed2019_Test_Images",
        split="test",
        columns=("image", "category", "question", "answer"),
    ),
)


def accepted(answer: str) -> list[str]:
    """Every accepted form, the fullest first: "a (b)#c" -> ["a b", "a", "c"]."""
    forms: list[str] = []
    for alternative in answer.split("#"):
        forms += (OPTIONAL.sub(r"\1", alternative), OPTIONAL.sub(" ", alternative))
    return list(dict.fromkeys(text for form in forms if (text := " ".join(form.split()))))


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row | BadSample]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where, cells = f"{path}:{number}", line.split("|")
        if len(cells) != len(columns):
            yield BadSample(
                f"{len(cells)} cells, expected {len(columns)}: {'|'.join(columns)}", where=where, mend="fix the row"
            )
            continue
        yield Row(where=where, number=number, values=dict(zip(columns, cells, strict=True)))


def _make(row: Row, *, part: Part, folder: Path) -> Iterable[Sample]:
    name, answers = row.text("image"), accepted(row.text("answer"))
    decided = yes_no(answers[0]) if len(answers) == 1 else None
    image = visual_at(
        folder / part.images / f"{name}.jpg",
        kind="image",
        where=row.where,
        mend=f"put the images of {RECIPE.url} into {part.images}",
    )
    yield ask(
        sample_id=f"{RECIPE.name}/{part.split}/{row.number}",
        patient_id=f"medpix/{name}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=part.split,
        visuals=[image],
        prompt=row.text("question"),
        answers=[decided] if decided else answers,
        kind="closed" if decided else "open",
        choices=YES_NO if decided else (),
        topic=row.optional("category") or "other",
        where=row.where,
        metadata={"official_split": True, "modality": "unknown", "language": "en"},
    )


def _tables(folder: Path) -> list[tuple[Part, Path]]:
    return [(part, folder / part.table) for part in PARTS if (folder / part.table).is_file()]


def table_samples(part: Part, folder: Path) -> Iterator[Sample | BadSample]:
    """Samples of one of PARTS."""
    yield from make_samples(_rows(folder / part.table, part.columns), partial(_make, part=part, folder=folder))


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for part, _ in _tables(folder):
        yield from table_samples(part, folder)


RECIPE = Recipe(
    name="vqa-med-2019",
    version="ImageCLEF 2019",
    licence="CC BY 4.0",
    url="https://github.com/abachaa/VQA-Med-2019",
    citation="Ben Abacha et al., CLEF working notes (2019)",
    owned=(
        *(part.table for part in PARTS),
        *(f"{part.images}/**/*" for part in PARTS),
        "VQAMed2019_Test_Questions.txt",
    ),
    matches=lambda folder: bool(_tables(folder)),
    build=_build,
    about=(
        "Questions about modality, plane, organ and abnormality of MedPix pictures, from the ImageCLEF challenge of "
        "2019."
    ),
    layout=(
        "FOLDER/\n"
        "  All_QA_Pairs_train.txt, Train_images/\n"
        "  All_QA_Pairs_val.txt, Val_images/\n"
        "  VQAMed2019_Test_Questions_w_Ref_Answers.txt, VQAMed2019_Test_Images/\n"
        "(any of the three pairs)"
    ),
    questions=(
        "closed: yes/no questions",
        'open: everything else; "#" separates accepted answers',
    ),
    faults=(
        'Tables are separated by "|" without quoting; a row with another number of cells is refused.',
        "Questions were made from templates: the wording tells the category.",
        "Pictures come from MedPix, as those of VQA-RAD: both recipes name a picture's patient alike.",
    ),
    measured=(
        "A public subset of 245 test rows without pictures: all 245 refused by the name of the missing picture. With "
        "stand-in pictures: 245 samples (30 closed, 215 open), none refused."
    ),
)
