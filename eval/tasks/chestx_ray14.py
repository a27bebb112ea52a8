"""ChestX-ray14: which of 14 findings a chest radiograph shows, the 25,596 pictures of the official test list.

Wang et al., CVPR (2017). Read by the recipe chestx-ray14 from Data_Entry_2017*.csv, test_list.txt and the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes import chestx_ray14
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks.examination import missing
from medvlm.eval.tasks.label_sets import together
from medvlm.eval.tasks.made_up import COUNT, png

PROMPT = "Which findings does this chest radiograph show?"


def _tested(folder: Path) -> Iterator[Sample | BadSample]:
    for sample in chestx_ray14.RECIPE.build(folder):
        if isinstance(sample, BadSample) or (
            sample.split == "test" and sample.question is not None and sample.question.topic == "presence"
        ):
            yield sample


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """A question for each picture of the test list in ``folder``."""
    if not any(folder.glob(chestx_ray14.LABELS)):
        yield missing(folder, "Data_Entry_2017.csv", chestx_ray14.RECIPE.url)
        return
    where = str(folder / chestx_ray14.LABELS)
    yield from together(_tested(folder), prompt=PROMPT, labels=len(chestx_ray14.FINDINGS), where=where)


def example(folder: Path) -> None:
    names = [f"{patient:08d}_{visit:03d}.png" for patient in range(1, COUNT // 2 + 2) for visit in range(2)]
    (folder / "images").mkdir()
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    for number, name in enumerate(names):
        (folder / "images" / name).write_bytes(png(number))
        found = [label for place, label in enumerate(chestx_ray14.FINDINGS) if (place * 5 + number) % 14 < number % 3]
        labels = "|".join(found) or chestx_ray14.NOTHING
        lines.append(f"{name},{labels},{number % 2},{int(name[:8])},50,{'FM'[number % 2]},{('PA', 'AP')[number % 2]}")
    (folder / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "test_list.txt").write_text("\n".join(names[:COUNT]) + "\n", encoding="utf-8")
    (folder / "train_val_list.txt").write_text("\n".join(names[COUNT:]) + "\n", encoding="utf-8")


TASKS = (
    Task(
        name="chestx-ray14-labels",
        version=1,
        title="ChestX-ray14, 14 findings, official test list",
        about="All findings of a radiograph at once: micro and macro F1 and the exact set.",
        folder="chestx-ray14",
        read=read,
        n=25596,
        n_source="lines of the official test_list.txt (86,524 pictures are in train_val_list.txt)",
        example=example,
        licence=chestx_ray14.RECIPE.licence,
        url=chestx_ray14.RECIPE.url,
        citation=chestx_ray14.RECIPE.citation,
        faults=(
            "Labels were mined from reports by rules; radiologists who looked again disagree with many of them.",
            "Many test pictures are 'No Finding': answering none is a strong constant for the exact set.",
            "Published figures are AUC over probabilities, and many are of random splits that share patients.",
            "Hernia holds in few pictures: its F1, and with it macro F1, is unsure.",
        ),
    ),
)
