"""PathVQA: questions about pathology pictures of textbooks and of a digital library, from its copy on the hub.

He et al., PathVQA: 30000+ questions for medical visual question answering, arXiv 2003.10286 (2020). The authors keep
questions as pickles, which are not read here: a pickle runs code. The copy on the hub (Parquet) holds the authors'
three splits of February 2023 without repeated rows: 19,654 for training, 6,259 for validation and 6,719 for test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import OWNED, card_name, parquet_of, read_split
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, make_samples

HUB, CARD = "flaviagiammarino/path-vqa", "PathVQA"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
QUESTION_WORDS = ("what", "where", "when", "whose", "how", "why")
"""The authors' categories beside yes/no, by the first word of the question."""


def topic_of(question: str, *, closed: bool) -> str:
    """The authors' category of a question."""
    words = question.lower().split()
    if closed:
        return "yes/no"
    return next((word for word in QUESTION_WORDS if words[:1] == [word]), "other")


def _sample(row: Row, split: Split) -> Sample:
    picture = Path(row.text("image"))
    question, answer = row.text("question"), row.text("answer")
    decided = yes_no(answer)
    return ask(
        sample_id=f"{RECIPE.name}/{split}/{row.number}",
        patient_id=f"{RECIPE.name}/{picture.stem[:16]}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        visuals=[visual_at(picture, kind="image", where=row.where, mend="remove the folder of pictures, read again")],
        prompt=question,
        answers=[decided or answer],
        kind="closed" if decided else "open",
        choices=YES_NO if decided else (),
        topic=topic_of(question, closed=bool(decided)),
        where=row.where,
        metadata={"official_split": True, "modality": "pathology", "language": "en"},
    )


def split_samples(folder: Path, split: Split) -> Iterator[Sample | BadSample]:
    """Samples of one split."""
    rows = read_split(folder, split, required=("image", "question", "answer"))
    yield from make_samples(rows, lambda row: [_sample(row, split)])


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for split in SPLITS:
        yield from split_samples(folder, split)


RECIPE = Recipe(
    name="path-vqa",
    version="hub copy of February 2023",
    licence="MIT",
    url="https://huggingface.co/datasets/flaviagiammarino/path-vqa",
    citation="He et al., arXiv 2003.10286 (2020)",
    owned=OWNED,
    matches=lambda folder: card_name(folder) == CARD and any(parquet_of(folder, split) for split in SPLITS),
    build=_build,
    about=(
        "Questions about histology and gross pathology pictures of two textbooks and of the PEIR library, half of them "
        "yes/no. The questions were made from captions by rules, so many answers are words of a caption."
    ),
    layout=f"a snapshot of hub dataset {HUB}:\nFOLDER/\n  README.md\n  data/train-*.parquet\n"
    "  data/validation-*.parquet\n  data/test-*.parquet",
    questions=(
        "closed: yes/no questions",
        "open: what, where, when, whose, how and why questions",
    ),
    faults=(
        "The authors' own files are pickles; they are not read, because a pickle runs code.",
        "The copy on the hub has no ids: a sample is named by its split and row.",
        "The licence is that of the repository; the pictures belong to publishers and to the PEIR library.",
        "Questions were made from captions by rules and read so; some are ungrammatical.",
        "Pictures of one patient cannot be told: a picture counts as a patient.",
        "Pictures are written once out of the Parquet files into `pictures_of_parquet`.",
    ),
)
