"""VQA-RAD: 451 test questions of clinicians about radiographs, CT and MR slices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, place_of
from medvlm.data_recipes.recipes import vqa_rad, vqa_rad_mevf
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task, ids_sha256
from medvlm.eval.tasks.drawn_pictures import draw
from medvlm.eval.tasks.published_vqa import HULU, LINGSHU, judged

NUMBER = 451


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """Test questions of the OSF archive, of the form of MEVF, or of the copy on the hub: the first that is there.

    Raises:
        BadSample: none of them is.
    """
    if place := place_of(folder, vqa_rad.TABLE):
        yield from vqa_rad.table_samples(place, split="test")
    elif place := place_of(folder, "testset.json"):
        for sample in vqa_rad_mevf.table_samples(place, "testset.json"):
            if isinstance(sample, Sample):
                number = sample.sample_id.rpartition("/")[2]
                sample = replace(sample, sample_id=f"{vqa_rad.RECIPE.name}/{number}", source=vqa_rad.RECIPE.name)
            yield sample
    elif parquet_of(folder, "test"):
        yield from vqa_rad.hub_split(folder, "test")
    else:
        raise BadSample(
            f"neither {vqa_rad.TABLE!r} nor testset.json nor data/test-*.parquet is here",
            where=str(folder),
            mend=f"download {vqa_rad.RECIPE.url}, or run medvlm eval fetch vqa-rad",
        )


QUESTIONS = (
    ("Is there a nodule?", "PRES", "CLOSED ", "Yes"),
    ("Is the heart enlarged?", "SIZE", "CLOSED", "No"),
    ("Is the mass cystic or solid?", "ATTRIB", "CLOSED", "Solid"),
    ("Is this a T1 or T2 weighted image?", "MODALITY", "CLOSED", "T2 weighted"),
    ("In which plane is the picture?", "PLANE", "OPEN", "axial"),
    ("How many nodules are there?", "COUNT", "OPEN", 2),
)
"""Of the example: question, question_type, answer_type with the published space, answer; a number is a number."""


def example(folder: Path) -> None:
    """30 test questions about five pictures, and a training row for each, in the layout of the OSF archive."""
    rows: list[dict[str, object]] = []
    for picture in range(5):
        name = f"synpic{picture}.jpg"
        draw(folder / vqa_rad.IMAGES / name)
        for number, (question, kind, answer_type, answer) in enumerate(QUESTIONS):
            if picture % 2 and answer in ("Yes", "No"):
                answer = {"Yes": "no", "No": "yes"}[str(answer)]
            for phrase in ("test_freeform", "freeform")[: 1 + (number == 0)]:
                rows.append(
                    {
                        "qid": len(rows) + 1, "phrase_type": phrase, "image_name": name, "question": question,
                        "image_organ": ("HEAD", "CHEST", "ABD")[picture % 3], "question_type": kind,
                        "answer_type": answer_type, "answer": answer,
                    }
                )  # fmt: skip
    (folder / vqa_rad.TABLE).write_text(json.dumps(rows, indent=1), encoding="utf-8")


TASK = Task(
    name="vqa-rad",
    version=1,
    title="VQA-RAD: questions of clinicians about radiology pictures",
    about=(
        "Closed and open questions about radiographs, CT and MR slices of MedPix. `official_closed_accuracy` is over "
        "the 272 rows that the authors flag as closed, `closed_accuracy` over those asked as closed: 251 yes/no "
        "questions and 10 that end with their alternatives (cystic or solid?); the other 11 are asked openly, because "
        "their wording does not say plainly what may be answered."
    ),
    folder="vqa-rad",
    read=read,
    n=NUMBER,
    n_source='rows whose phrase_type begins with "test_" in VQA_RAD Dataset Public.json of osf.io/89kps, counted; the '
    "copy "
    "on the hub has as many",
    example=example,
    licence="CC0-1.0",
    url="https://osf.io/89kps",
    citation="Lau et al., Scientific Data 5:180251 (2018)",
    hub=vqa_rad.HUB,
    ids_sha256=(
        "1c5a4611d0aa0262f41ca569c23a49a4a9bc7a6e189de3d0ef66651913344355",
        # The copy on the hub has no ids of the authors, so its rows are known by their numbers alone.
        ids_sha256([f"vqa-rad/hub/test/{number}" for number in range(1, NUMBER + 1)]),
    ),
    published=(
        judged("GPT-4.1", 65.0, LINGSHU, "copy on the hub"),
        judged("Gemini-2.5-Flash", 68.5, LINGSHU, "copy on the hub"),
        judged("Lingshu-32B", 76.5, LINGSHU, "copy on the hub"),
        judged("Hulu-Med-32B", 81.4, HULU, "copy on the hub"),
    ),
    faults=(
        "The test shares pictures with training: 202 of its 203. A model trained on VQA-RAD has seen them.",
        'Closed accuracy is published over 272 rows (the flag, "CLOSED " with a space in some) or over 251 (answers '
        "yes "
        "and no); the copy on the hub has no flag, so that official_closed_accuracy cannot be computed from it.",
        "The same model is published with 49.9, 72.3 and 72.5 (MedGemma 4B): other splits, prompts, judges.",
        "The copy on the hub says 2,244 rows, the archive 2,248, the paper 3,515 (with free-form pairs counted apart); "
        "the test is the same.",
        "Some answers are numbers in the JSON file; they are read as their digits.",
        "The organ (HEAD, CHEST, ABD) is told, the modality is not.",
    ),
)
