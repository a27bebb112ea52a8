"""Kvasir-VQA: 5,000 questions about endoscopic pictures, picked by a stated rule because no test split is published."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, place_of
from medvlm.data_recipes.recipes import kvasir_vqa
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks.drawn_pictures import draw


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The test questions of metadata.csv and its pictures, or of the snapshot of the hub.

    Raises:
        BadSample: neither is here, or the table is nearly, but not wholly, the published one.
    """
    place = place_of(folder, kvasir_vqa.TABLE) or (folder if parquet_of(folder, kvasir_vqa.HUB_SPLIT) else None)
    if place is None:
        raise BadSample(
            f"neither {kvasir_vqa.TABLE} nor data/{kvasir_vqa.HUB_SPLIT}-*.parquet is here",
            where=str(folder),
            mend="run medvlm eval fetch kvasir-vqa",
        )
    yield from kvasir_vqa.split_samples(place, only="test")


QUESTIONS = (
    ("Are there any abnormalities in the image? Check all that are present.", ("polyp", "none", "polyp; oesophagitis")),
    ("Are there any instruments in the image? Check all that are present.", ("none", "tube", "polyp snare; tube")),
    ("Where in the image is the abnormality?", ("center; center-left", "none", "upper-right")),
    ("What color is the abnormality? If more than one separate with ;", ("pink; red", "none", "red")),
    ("How many polyps are in the image?", ("1", "0", "2")),
    ("Is there text?", ("yes", "no", "yes")),
    ("Have all polyps been removed?", ("no", "not relevant", "yes")),
    ("What type of procedure is the image taken from?", ("colonoscopy", "gastroscopy", "capsule endoscopy")),
    ("What is the size of the polyp?", ("<5mm", "none", "11-20mm")),
)
"""Of the example: question, its answers in turn."""


def example(folder: Path) -> None:
    """540 questions about 60 pictures in the layout of the authors' export; 46 of them are the test by the rule."""
    (folder / kvasir_vqa.IMAGES).mkdir(parents=True, exist_ok=True)
    with (folder / kvasir_vqa.TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(kvasir_vqa.COLUMNS)
        for picture in range(60):
            name = f"cla{picture:03}"
            draw(folder / kvasir_vqa.IMAGES / f"{name}.jpg")
            for question, answers in QUESTIONS:
                table.writerow(["Polyps", question, answers[picture % 3], name])


TASK = Task(
    name="kvasir-vqa",
    version=1,
    title="Kvasir-VQA, 5,000 questions by a rule",
    about=(
        "Questions about abnormalities, landmarks, instruments, colours, places, counts and procedures in endoscopic "
        "pictures. The authors publish no test split: pictures are ranked by the SHA-256 of img_id, and the questions "
        "of the first ones, in the order of the table, are asked until there are 5,000. The recipe kvasir-vqa trains "
        "on none of these pictures."
    ),
    folder="kvasir-vqa",
    read=read,
    n=kvasir_vqa.TEST,
    n_source="a rule of this project over the 58,849 published questions; no split is published",
    example=example,
    licence="CC BY-NC 4.0",
    url=kvasir_vqa.RECIPE.url,
    citation="Gautam et al., VLM4Bio (2024), doi 10.1145/3689096.3689458",
    hub=kvasir_vqa.HUB,
    faults=(
        "No test split is published, so no figure of others is on these questions; work that splits questions instead "
        "of pictures tests on pictures that it trained on.",
        "Kvasir-VQA-x1 (other questions about the same pictures) has a split of its own, whose sizes its page "
        "(127,587/15,899/15,998) and its paper (159,549 in all) state differently.",
        "Frames of one examination may lie in training and test: pictures name no patient.",
        "The choices of a question are all answers that the whole table gives to it; a part of the table asks "
        "otherwise.",
        '"none" and "not relevant" are frequent: look at majority_accuracy.',
        '"How many instrumnets" and "lower-rigth" stand so in the data.',
    ),
)
