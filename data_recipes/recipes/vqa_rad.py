"""VQA-RAD as its OSF archive (one JSON list and one folder of images) or as its copy on the hub (Parquet).

Lau et al., A dataset of clinically generated visual questions and answers about radiology images, Scientific
Data 5:180251 (2018). The official test rows are those whose ``phrase_type`` begins with ``test_``. The authors
put questions about the same image into both splits; the split is kept because every published score uses it,
and samples carry ``official_split`` so that ``manifest.verify`` can tell it from a mistake of ours. The copy on the hub
keeps picture, question and answer only: no id, no flag of closed questions, no type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.alternatives import choices_of
from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import OWNED, card_name, parquet_of, read_split
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, make_samples, read_json_list

TABLE = "VQA_RAD Dataset Public.json"
IMAGES = "VQA_RAD Image Folder"
DOWNLOAD = "download the image folder from https://osf.io/89kps"
HUB, CARD = "flaviagiammarino/vqa-rad", "VQA-RAD"
HUB_SPLITS: tuple[Split, ...] = ("train", "test")

TOPICS = {
    "PRES": "presence", "PRSE": "presence", "POS": "position", "ABN": "abnormality", "MODALITY": "modality",
    "PLANE": "plane", "SIZE": "size", "COUNT": "count", "ORGAN": "organ", "ATTRIB": "attribute",
    "ATRIB": "attribute", "COLOR": "color", "OTHER": "other",
}  # fmt: skip
"""``question_type`` -> topic; "PRSE" and "ATRIB" are typing errors of the published file."""


def topic_of(question_type: str | None) -> str:
    """The topic of the first type named ("PRES, POS" is presence)."""
    first = (question_type or "").split(",")[0].strip().upper()
    return TOPICS.get(first, "other")


def question_sample(
    row: Row, *, source: str, licence: str, sample_id: str, split: Split, image: Path, organ: str | None
) -> Sample:
    """One VQA-RAD row.

    Official CLOSED rows with an answer beyond yes and no are closed questions too where the wording names the
    alternatives, and otherwise open ones.
    """
    answer = row.text("answer")
    official_closed = row.text("answer_type").upper() == "CLOSED"
    choices, key = (choices_of(row.text("question"), answer) if official_closed else None) or ((), answer)
    return ask(
        sample_id=sample_id,
        # MedPix names are shared by VQA-RAD and VQA-Med: the same picture is the same patient in both.
        patient_id=f"medpix/{image.stem}",
        source=source,
        licence=licence,
        split=split,
        visuals=[visual_at(image, kind="image", where=row.where, mend=DOWNLOAD)],
        prompt=row.text("question"),
        answers=[key],
        kind="closed" if choices else "open",
        choices=choices,
        topic=topic_of(row.optional("question_type")),
        where=row.where,
        metadata={
            "official_split": True,
            "official_closed": official_closed,
            "phrase_type": row.text("phrase_type"),
            "organ": organ or "unknown",
            "modality": row.optional("modality") or "unknown",
            "language": "en",
        },
    )


def hub_sample(row: Row, *, split: Split) -> Sample:
    """One row of the copy on the hub: closed exactly when the answer is yes or no."""
    picture = Path(row.text("image"))
    answer = row.text("answer")
    decided = yes_no(answer)
    return ask(
        sample_id=f"{RECIPE.name}/hub/{split}/{row.number}",
        patient_id=f"{RECIPE.name}/{picture.stem[:16]}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        visuals=[visual_at(picture, kind="image", where=row.where, mend="remove the folder of pictures, read again")],
        prompt=row.text("question"),
        answers=[decided or answer],
        kind="closed" if decided else "open",
        choices=YES_NO if decided else (),
        where=row.where,
        metadata={"official_split": True, "organ": "unknown", "modality": "unknown", "language": "en"},
    )


def _split_of(phrase_type: str) -> Split:
    return "test" if phrase_type.startswith("test_") else "train"


def _split_of_row(row: Row) -> Split | None:
    phrase = row.values.get("phrase_type")
    return _split_of(phrase) if isinstance(phrase, str) else None


def _make(row: Row, *, folder: Path) -> Iterable[Sample]:
    phrase = row.text("phrase_type")
    yield question_sample(
        row,
        source=RECIPE.name,
        licence=RECIPE.licence,
        sample_id=f"{RECIPE.name}/{row.text('qid')}",
        split=_split_of(phrase),
        image=folder / IMAGES / row.text("image_name"),
        organ=row.optional("image_organ"),
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    if not (folder / TABLE).is_file():
        for split in HUB_SPLITS:
            if parquet_of(folder, split):
                yield from hub_split(folder, split)
        return
    yield from table_samples(folder)


def table_samples(folder: Path, *, split: Split | None = None) -> Iterator[Sample | BadSample]:
    """Samples of the archive's table; of one split, when one is given."""
    rows = read_json_list(folder / TABLE)
    if split is not None:
        # A row whose phrase_type is missing is read, so that it is refused by name.
        rows = (row for row in rows if isinstance(row, BadSample) or _split_of_row(row) in (split, None))
    yield from make_samples(rows, partial(_make, folder=folder))


def hub_split(folder: Path, split: Split) -> Iterator[Sample | BadSample]:
    """Samples of one split of the copy on the hub."""
    rows = read_split(folder, split, required=("image", "question", "answer"))
    yield from make_samples(rows, lambda row: [hub_sample(row, split=split)])


def _matches(folder: Path) -> bool:
    return (folder / TABLE).is_file() or (card_name(folder) == CARD and bool(parquet_of(folder, "test")))


RECIPE = Recipe(
    name="vqa-rad",
    version="OSF 89kps (2018)",
    licence="CC0-1.0",
    url="https://osf.io/89kps",
    citation="Lau et al., Scientific Data 5:180251 (2018)",
    owned=(TABLE, f"{IMAGES}/**/*", *OWNED),
    matches=_matches,
    build=_build,
    about=(
        "Questions that clinicians asked about radiographs, CT and MR slices of MedPix, with the official test rows. "
        "The most used benchmark of radiology question answering."
    ),
    layout=(
        "FOLDER/\n  VQA_RAD Dataset Public.json\n  VQA_RAD Image Folder/\n    synpic<N>.jpg\n"
        f"or a snapshot of hub dataset {HUB}:\nFOLDER/\n  README.md\n  data/train-*.parquet, data/test-*.parquet"
    ),
    questions=(
        "closed: yes/no questions, and official closed questions that name their alternatives (cystic or solid?)",
        "open: everything else, also official closed questions whose alternatives cannot be told (they keep "
        "`official_closed`)",
    ),
    faults=(
        "The authors put questions about the same picture into training and test. The split is kept, because every "
        "published score uses it; samples say `official_split`.",
        '`answer_type` is "CLOSED " with a space in some rows, and answers are numbers in others; both are read.',
        "`question_type` has typing errors (PRSE, ATRIB); they are read as meant.",
        "Of the official closed rows about one in ten is no yes/no question: 21 of 272 test rows.",
        "The copy on the hub has no ids and no flag of closed questions, and 4 training rows fewer (duplicates).",
    ),
    measured=(
        "A public subset of 1,105 rows with their 157 pictures: 1,105 samples (869 training, 236 test), none "
        "refused; 616 official closed rows, of which 45 are asked as open questions; 107 of 157 pictures are in both "
        "splits."
    ),
)
