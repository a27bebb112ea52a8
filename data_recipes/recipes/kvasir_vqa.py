"""Kvasir-VQA: questions about endoscopic pictures of the digestive tract, as metadata.csv and images or as Parquet.

Gautam et al., Kvasir-VQA: a text-image pair GI tract dataset, VLM4Bio (2024): 58,849 questions of six kinds about 6,500
pictures of HyperKvasir and Kvasir-Instrument. The authors publish ONE split. So that everybody tests on the same
pictures, they are ranked by the SHA-256 of ``img_id``, and the questions of the first ones are the test, TEST of ROWS;
of the picture at which the test ends, the other questions are in neither part.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.asking import NONE_OF_THEM, SEPARATOR, ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import OWNED, card_name, parquet_of, read_split
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import QuestionKind, Sample, Split
from medvlm.data_recipes.tables import Row, read_csv

HUB, CARD, HUB_SPLIT = "SimulaMet-HOST/Kvasir-VQA", "Kvasir-VQA", "raw"
TABLE, IMAGES = "metadata.csv", "images"
COLUMNS = ("source", "question", "answer", "img_id")
ROWS, TEST = 58_849, 5_000
MOST_CHOICES = 12
"""A question with more distinct answers than these is asked openly."""
TOPICS = {
    "how many": "count", "what color": "color", "where in": "location", "are there any abnormalities": "abnormality",
    "are there any anatomical": "landmark", "are there any instruments": "instrument", "have all polyps": "removal",
    "is this finding": "difficulty", "is there a green": "artefact", "is there text": "text",
    "what type of polyp": "type", "what type of procedure": "procedure", "what is the size": "size",
}  # fmt: skip
"""Beginning of the question -> topic."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a question is asked, of all pictures alike: its kind, and the answers that the whole table gives to it."""

    kind: QuestionKind
    choices: tuple[str, ...] = ()


def _parts(answer: str) -> list[str]:
    return [part for part in (piece.strip().lower() for piece in answer.split(";")) if part]


def forms_of(rows: Iterable[Row]) -> dict[str, Form]:
    """question -> form, told from the wording and from all answers of the table.

    Labels where several may hold (the question says so, or an answer has a semicolon), closed where there are few
    answers and none is a number, else open.
    """
    answers: dict[str, set[str]] = defaultdict(set)
    several: set[str] = set()
    for row in rows:
        question, parts = row.text("question"), _parts(row.text("answer"))
        answers[question].update(parts)
        if len(parts) > 1 or "check all" in question.lower() or "separate with" in question.lower():
            several.add(question)
    forms: dict[str, Form] = {}
    for question, found in answers.items():
        labels = tuple(sorted(found - {NONE_OF_THEM}))
        if question in several and len(labels) > 1:
            forms[question] = Form(kind="labels", choices=labels)
        elif 1 < len(found) <= MOST_CHOICES and not any(text.isdigit() for text in found) and question not in several:
            forms[question] = Form(kind="closed", choices=tuple(sorted(found)))
        else:
            forms[question] = Form(kind="open")
    return forms


def split_rows(pictures: Sequence[str]) -> list[Split | None]:
    """The split of each row, given its img_id; None for the rest of the picture at which the test ends.

    Raises:
        BadSample: a copy that has not all rows, but so nearly that its test could be taken for the published one.
    """
    wanted = round(len(pictures) * TEST / ROWS)
    if wanted == TEST and len(pictures) != ROWS:
        raise BadSample(
            f"{len(pictures):,} rows, {ROWS:,} were published", where=TABLE, mend="use the table as published"
        )
    ranked = sorted(set(pictures), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    members: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(pictures):
        members[name].append(place)
    splits: list[Split | None] = ["train"] * len(pictures)
    for name in ranked:
        if wanted <= 0:
            break
        for count, place in enumerate(members[name]):
            splits[place] = "test" if count < wanted else None
        wanted -= len(members[name])
    return splits


def _rows(folder: Path) -> tuple[list[Row], list[BadSample]]:
    """The rows of the table whose four columns say something, and why the others cannot be used."""
    table: Iterable[Row | BadSample]
    if (folder / TABLE).is_file():
        table = read_csv(folder / TABLE, required=COLUMNS)
    else:
        table = read_split(folder, HUB_SPLIT, required=("image", *COLUMNS))
    rows: list[Row] = []
    bad: list[BadSample] = []
    for row in table:
        if isinstance(row, BadSample):
            bad.append(row)
            continue
        try:
            for column in COLUMNS:
                row.text(column)
            rows.append(row)
        except BadSample as empty:
            bad.append(empty)
    return rows, bad


def _picture(row: Row, folder: Path) -> Path:
    return Path(row.text("image")) if "image" in row.values else folder / IMAGES / f"{row.text('img_id')}.jpg"


def _sample(row: Row, folder: Path, form: Form, split: Split, count: int) -> Sample:
    question, name = row.text("question"), row.text("img_id")
    parts = _parts(row.text("answer"))
    answers = list(dict.fromkeys(parts)) if form.kind == "labels" else [SEPARATOR.join(parts)]
    topic = next((topic for start, topic in TOPICS.items() if question.lower().startswith(start)), "other")
    return ask(
        sample_id=f"{RECIPE.name}/{name}/{count}",
        patient_id=f"{RECIPE.name}/{name}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        visuals=[
            visual_at(_picture(row, folder), kind="image", where=row.where, mend=f"get the picture: {RECIPE.url}")
        ],
        prompt=question,
        answers=answers,
        kind=form.kind,
        choices=form.choices,
        topic=topic,
        where=row.where,
        metadata={
            "official_split": False,
            "modality": "endoscopy",
            "organ": "digestive tract",
            "category": row.text("source"),
            "language": "en",
        },
    )


def split_samples(folder: Path, *, only: Split | None = None) -> Iterator[Sample | BadSample]:
    """Samples of the table; of one split, when one is given. Rows without a word in a column are no part of any."""
    rows, bad = _rows(folder)
    yield from bad
    forms = forms_of(rows)
    counts: dict[str, int] = defaultdict(int)
    splits = split_rows([row.text("img_id") for row in rows])
    for row, split in zip(rows, splits, strict=True):
        counts[row.text("img_id")] += 1
        if split is None or only not in (None, split):
            continue
        form, count = forms[row.text("question")], counts[row.text("img_id")]
        try:
            yield _sample(row, folder, form, split, count)
        except BadSample as refused:
            yield refused


def _matches(folder: Path) -> bool:
    if (folder / TABLE).is_file():
        with (folder / TABLE).open(encoding="utf-8-sig", errors="replace") as lines:
            return set(COLUMNS) <= set(next(lines, "").strip().split(","))
    return card_name(folder) == CARD and bool(parquet_of(folder, HUB_SPLIT))


RECIPE = Recipe(
    name="kvasir-vqa",
    version="2024",
    licence="CC BY-NC 4.0",
    url="https://datasets.simula.no/kvasir-vqa",
    citation="Gautam et al., VLM4Bio (2024), doi 10.1145/3689096.3689458",
    owned=(TABLE, f"{IMAGES}/*.jpg", *OWNED),
    matches=_matches,
    build=split_samples,
    about=(
        "Questions about abnormalities, landmarks, instruments, colours, places and counts in pictures of gastroscopy, "
        "colonoscopy and capsule endoscopy."
    ),
    layout=(
        "FOLDER/\n  metadata.csv                  source, question, answer, img_id: as the authors' page exports it\n"
        f"  images/<img_id>.jpg\nor a snapshot of hub dataset {HUB}:\nFOLDER/\n  README.md\n  data/raw-*.parquet"
    ),
    questions=(
        "closed: yes/no questions (also not relevant), procedure, type and size of a polyp",
        "labels: what may hold several times (abnormalities, landmarks, instruments, colours, places)",
        "open: counts",
    ),
    faults=(
        "One split is published. The test here is 5,000 questions by a rule: pictures in the order of the SHA-256 of "
        "img_id. Kvasir-VQA-x1, another dataset about the same pictures, has a test of its own.",
        "Pictures name no patient, and frames of one examination may lie in both parts.",
        "Which answers a question may have is told from the whole table, so a part of the table asks differently.",
        '"none" is written where nothing is there, "not relevant" where there is nothing to be asked.',
        '"How many instrumnets are in the image?" and "lower-rigth" are written so.',
    ),
)
