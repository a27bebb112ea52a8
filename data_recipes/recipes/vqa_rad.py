"""VQA-RAD in the layout of its OSF archive: one JSON list and one folder of images.

Lau et al., A dataset of clinically generated visual questions and answers about radiology images, Scientific
Data 5:180251 (2018). The official test rows are those whose ``phrase_type`` begins with ``test_``. The authors
put questions about the same image into both splits; the split is kept because every published score uses it,
and samples carry ``official_split`` so that ``manifest.verify`` can tell it from a mistake of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, make_samples, read_json_list

TABLE = "VQA_RAD Dataset Public.json"
IMAGES = "VQA_RAD Image Folder"
DOWNLOAD = "download the image folder from https://osf.io/89kps"

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
    """One VQA-RAD row. Official CLOSED rows with an answer beyond yes and no are asked as open questions."""
    answer = row.text("answer")
    official_closed = row.text("answer_type").upper() == "CLOSED"
    decided = yes_no(answer) if official_closed else None
    return ask(
        sample_id=sample_id,
        # MedPix names are shared by VQA-RAD and VQA-Med: the same picture is the same patient in both.
        patient_id=f"medpix/{image.stem}",
        source=source,
        licence=licence,
        split=split,
        visuals=[visual_at(image, kind="image", where=row.where, mend=DOWNLOAD)],
        prompt=row.text("question"),
        answers=[decided or answer],
        kind="closed" if decided else "open",
        choices=YES_NO if decided else (),
        topic=topic_of(row.optional("question_type")),
        where=row.where,
        metadata={
            "official_split": True,
            "official_closed": official_closed,
            "phrase_type": row.text("phrase_type"),
            "organ": organ or "unknown",
            "modality": row.optional("modality") or "unknown",
        },
    )


def _make(row: Row, *, folder: Path) -> Iterable[Sample]:
    phrase = row.text("phrase_type")
    yield question_sample(
        row,
        source=RECIPE.name,
        licence=RECIPE.licence,
        sample_id=f"{RECIPE.name}/{row.text('qid')}",
        split="test" if phrase.startswith("test_") else "train",
        image=folder / IMAGES / row.text("image_name"),
        organ=row.optional("image_organ"),
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    yield from make_samples(read_json_list(folder / TABLE), partial(_make, folder=folder))


RECIPE = Recipe(
    name="vqa-rad",
    version="OSF 89kps (2018)",
    licence="CC0-1.0",
    url="https://osf.io/89kps",
    citation="Lau et al., Scientific Data 5:180251 (2018)",
    owned=(TABLE, f"{IMAGES}/**/*"),
    matches=lambda folder: (folder / TABLE).is_file(),
    build=_build,
    about=(
        "Questions that clinicians asked about radiographs, CT and MR slices of MedPix, with the official test rows. "
        "The most used benchmark of radiology question answering."
    ),
    layout=("FOLDER/\n  VQA_RAD Dataset Public.json\n  VQA_RAD Image Folder/\n    synpic<N>.jpg"),
    questions=(
        "closed: yes/no questions",
        "open: everything else, also official closed questions whose answer is neither yes nor no (they keep "
        "`official_closed`)",
    ),
    faults=(
        "The authors put questions about the same picture into training and test. The split is kept, because every "
        "published score uses it; samples say `official_split`.",
        '`answer_type` is "CLOSED " with a space in some rows, and answers are numbers in others; both are read.',
        "`question_type` has typing errors (PRSE, ATRIB); they are read as meant.",
        "Of the official closed rows about one in ten is no yes/no question.",
    ),
    measured=(
        "A public subset of 1,105 rows with their 157 pictures: 1,105 samples (869 training, 236 test), none "
        "refused; 616 official closed rows, of which 60 are asked as open questions; 107 of 157 pictures are in both "
        "splits."
    ),
)
