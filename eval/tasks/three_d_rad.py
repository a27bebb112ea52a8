"""3D-RAD: six tasks about chest CT volumes of CT-RATE, 33,910 questions; each task on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes.three_d_rad import COLUMNS, RECIPE, table_samples
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks.drawn_volumes import draw_ct, write_csv

CHANGES = (
    "Refractory Lesion (Persistent or recurrent, now present)",
    "Resolved Lesion (Previously present or recurrent, now absent)",
    "New Lesion (Absent previously, now present)",
    "No Abnormality (Always absent)",
)
"""The four choices of the tasks about change, in the published order."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the six tasks.

    Attributes:
        number: in names of folders and in the column Task.
        folder, table: of the example.
        question, answers: of the example; ``choices`` as in the columns Choice A to D, empty for open questions.
        n, ids: of the published test tables.
    """

    number: str
    name: str
    title: str
    about: str
    folder: str
    table: str
    question: str
    answers: tuple[str, ...]
    choices: tuple[str, ...]
    n: int
    ids: str


PARTS = (
    Part(
        number="1", name="3d-rad-observation", title="what is observed, openly",
        about="Open questions about devices, organs and findings.", folder="Task1_Image_Observation",
        table="Anatomical_observation", question="What invented device is observed?",
        answers=("A drawn pacemaker.", "A drawn port.", "A drawn clip."), choices=(), n=1024,
        ids="7fc37e1448315ae0bc1a384f8f31bac5eda6797862c7635008655cb0a4ce7f4b",
    ),
    Part(
        number="2", name="3d-rad-anomaly", title="type, place and features of anomalies, openly",
        about="Open questions about what an anomaly is, where it lies and how it looks.",
        folder="Task2_Anomaly_Detection", table="Abnormality_position", question="Where is the invented block?",
        answers=("Left upper lobe.", "Right lower lobe.", "Lingula."), choices=(), n=2666,
        ids="2eb2b82df50ccb09322c774ca36a939222646976986cdd280dcee19f6a2d740b",
    ),
    Part(
        number="3", name="3d-rad-measurement", title="sizes, openly",
        about="Open questions about diameter, size and thickness; answers are written with their unit.",
        folder="Task3_Medical_Computation", table="Size", question="What is the size of the invented block?",
        answers=("30x13 mm", "8 mm", "2 cm"), choices=(), n=1002,
        ids="4da1784698b149cf324ea8d2892e63d061b6b557dab2bb465c8aa37ba4d1fef6",
    ),
    Part(
        number="4", name="3d-rad-existence", title="18 abnormalities, yes or no",
        about="For each of the 18 labels of CT-RATE and every patient: is it there?",
        folder="Task4_Existence_Detection", table="Emphysema", question="Is emphysema drawn in this scan?",
        answers=("No", "Yes", "No"), choices=("Yes", "No"), n=23472,
        ids="9affcf5f54b20c9d012ccb443a3a1603033a2540756de528d0cf6aade0ae6642",
    ),
    Part(
        number="5", name="3d-rad-static-change", title="change over time from one scan",
        about="Four choices (new, resolved, persistent, never there) from the present scan alone.",
        folder="Task5_Static_Temporal_Diagnosis", table="b", question="How would you classify the drawn block?",
        answers=CHANGES, choices=CHANGES, n=2873,
        ids="c76d61b3f1a9dcaf5788a6dede75b351f45feed86c8570fffab9b65780d29c23",
    ),
    Part(
        number="6", name="3d-rad-longitudinal-change", title="change over time with earlier findings told",
        about="The same questions; the presence in the earlier scans is told as a list of 0 and 1.",
        folder="Task6_Longitudinal_Temporal_Diagnosis", table="b",
        question="Past sequences of the drawn block: [0]. What has become of it?", answers=CHANGES, choices=CHANGES,
        n=2873, ids="052b000d7472f045991d15419ccf039973960d9154d9bbb2776d5f115043c92c",
    ),
)  # fmt: skip


def reading(number: str) -> Callable[[Path], Iterator[Sample | BadSample]]:
    """The function that reads the test tables of one task."""

    def read(folder: Path) -> Iterator[Sample | BadSample]:
        if not any((folder / place / "test").glob(f"Task{number}_*/*.csv") for place in ("3DRAD", "")):
            raise BadSample(
                f"no test tables of task {number} are here", where=str(folder), mend=f"put 3DRAD/ of {RECIPE.url} there"
            )
        for sample in table_samples(folder, only="test", task=number):
            if isinstance(sample, Sample):
                subtask = sample.sample_id.split("/")[-2]
                told = {**sample.metadata, "language": "en", "subtask": subtask}
                sample = replace(sample, metadata=told)
            yield sample

    return read


def example(part: Part) -> Callable[[Path], None]:
    """The function that writes 26 rows about thirteen scans of twelve patients, in the published layout."""

    def write(folder: Path) -> None:
        rows: list[list[str]] = []
        for number in range(13):
            volume = f"test_{7000 + number % 12}_{'ab'[number // 12]}_1.nii.gz"
            draw_ct(folder / "volumes" / volume)
            for again in range(2):
                answer = part.answers[(number + again) % len(part.answers)]
                letter = "ABCD"[part.choices.index(answer)] if part.choices else "-"
                question = part.question if not again else f"Once more: {part.question}"
                kind = "Close" if part.choices else "Open"
                choices = [*part.choices, *["-"] * (4 - len(part.choices))]
                rows.append([part.number, "1", volume, question, answer, kind, letter, *choices])
        write_csv(folder / "3DRAD" / "test" / part.folder / f"{part.table}.csv", COLUMNS, rows)

    return write


_FAULTS = (
    "Volumes are named test_<patient>_<scan>_<reconstruction>; they are CT-RATE's, whose names begin with train_ and "
    "valid_. The test has 1,304 patients, as many as the validation split of CT-RATE; which is which is not told. Do "
    "not train on CT-RATE's validation split and test here.",
    'The authors count an answer as right when "{letter}." stands anywhere in it.',
    "In the authors' open evaluation empty answers are passed over, so that they raise the mean; here they count 0.",
    'The authors\' prompts show the empty choices of the table ("C. - D. -"), also under open questions, because their '
    "test for choices looks at columns and not at what they hold.",
    "The README calls anomaly detection task 1 and image observation task 2; folders and tables number them the other "
    "way round.",
    "Three questions stand twice in the test tables, with the same volume; they are asked twice, as published.",
    *RECIPE.faults[:1],
    RECIPE.faults[2],
)


def _task(part: Part) -> Task:
    return Task(
        name=part.name,
        version=1,
        title=f"3D-RAD, task {part.number}: {part.title}",
        about=part.about,
        folder="3d-rad",
        read=reading(part.number),
        n=part.n,
        n_source="rows of the test tables in github.com/Tang-xiaoxiao/3D-RAD at 2e66113, counted; 33,910 in all six",
        example=example(part),
        licence=RECIPE.licence,
        url=RECIPE.url,
        citation="Gai et al., arXiv:2506.11147 (NeurIPS 2025); Hamamci et al., arXiv:2403.17834 (2024)",
        access="gated",
        ids_sha256=part.ids,
        faults=_FAULTS,
    )


TASKS: tuple[Task, ...] = tuple(_task(part) for part in PARTS)
