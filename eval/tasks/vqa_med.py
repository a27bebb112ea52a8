"""VQA-Med 2019, 2020 and 2021 (ImageCLEF): 500 test questions each about radiology pictures of MedPix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import place_of
from medvlm.data_recipes.recipes import vqa_med_2019
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import read_text
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.drawn_pictures import draw

TEST_2019 = vqa_med_2019.PARTS[-1]


@dataclass(frozen=True, kw_only=True)
class Year:
    """The test of one year whose questions and answers are files of their own: "id|question" and "
    ""id|answer[|answer]"."""

    year: int
    questions: str
    answers: str
    images: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"vqa-med-{self.year}"

    @property
    def url(self) -> str:
        return f"https://github.com/abachaa/VQA-Med-{self.year}"


YEARS = (
    Year(
        year=2020,
        questions="VQAMed2020-Task1-VQAnswering-Test-Questions.txt",
        answers="VQAMed2020-Task1-VQAnswering-Test-ReferenceAnswers.txt",
        images=("Task1-2020-VQAnswering-Test-Images",),
    ),
    Year(
        year=2021,
        questions="Task1-VQA-2021-TestSet-Questions.txt",
        answers="Task1-VQA-2021-TestSet-ReferenceAnswers.txt",
        images=("VQA-500-Images", "images/VQA-500-Images", "Task1-VQA-2021-TestSet-Images/VQA-500-Images"),
    ),
)


def read_2019(folder: Path) -> Iterator[Sample | BadSample]:
    """The test of 2019, named by its pictures: there is one question to each.

    Raises:
        BadSample: it is not here.
    """
    place = place_of(folder, TEST_2019.table)
    if place is None:
        raise BadSample(
            f"{TEST_2019.table} is not here",
            where=str(folder),
            mend=f"get it from {vqa_med_2019.RECIPE.url} and unpack {TEST_2019.images}.zip beside it",
        )
    for sample in vqa_med_2019.table_samples(TEST_2019, place):
        if isinstance(sample, Sample):
            picture = sample.patient_id.removeprefix("medpix/")
            sample = replace(sample, sample_id=f"{vqa_med_2019.RECIPE.name}/{picture}")
        yield sample


def read_pair(folder: Path, *, year: Year) -> Iterator[Sample | BadSample]:
    """The test of 2020 or 2021.

    Raises:
        BadSample: a file is not here.
    """
    place = place_of(folder, year.questions)
    if place is None or not (place / year.answers).is_file():
        raise BadSample(
            f"{year.questions} and {year.answers} are not both here",
            where=str(place or folder),
            mend=f"get the archive of the test set with its reference answers from {year.url} and unpack it there",
        )
    answers: dict[str, list[str]] = {}
    for where, cells in _lines(place / year.answers):
        if len(cells) < 2 or cells[0] in answers:
            yield BadSample("not one id with its answers", where=where, mend="use the file as published")
            continue
        answers[cells[0]] = [cell for cell in cells[1:] if cell]
    for where, cells in _lines(place / year.questions):
        try:
            yield _sample(year, place, where, cells, answers)
        except BadSample as bad:
            yield bad


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", [" ".join(cell.split()) for cell in line.split("|")]


def _sample(year: Year, place: Path, where: str, cells: list[str], answers: dict[str, list[str]]) -> Sample:
    if len(cells) != 2:
        raise BadSample(f"{len(cells)} cells, expected 2: id|question", where=where, mend="use the file as published")
    name, question = cells
    if name not in answers:
        raise BadSample(f"{year.answers} has no answer to it", where=where, mend="use both files of one release")
    accepted = answers[name]
    decided = yes_no(accepted[0]) if len(accepted) == 1 else None
    pictures = [place / folder / f"{name}.jpg" for folder in year.images]
    picture = next((path for path in pictures if path.is_file()), pictures[0])
    mend = f"unpack the pictures of the test set into {year.images[0]}"
    return ask(
        sample_id=f"{year.name}/{name}",
        patient_id=f"medpix/{name}",
        source=year.name,
        licence=vqa_med_2019.RECIPE.licence,
        split="test",
        visuals=[visual_at(picture, kind="image", where=where, mend=mend)],
        prompt=question,
        answers=[decided] if decided else accepted,
        kind="closed" if decided else "open",
        choices=YES_NO if decided else (),
        topic="abnormality",
        where=where,
        metadata={"modality": modality_in(question), "language": "en"},
    )


MODALITIES = {
    "ct scan": "CT", "mri": "MR", "x-ray": "CR", "ultrasound": "US", "mammogram": "MG", "mammograph": "MG",
    "angiogram": "XA", "nuclear medicine": "NM", "gastrointestinal image": "RF",
}  # fmt: skip
"""Words of the questions -> DICOM's code of the modality."""


def modality_in(question: str) -> str:
    """The modality that the question names; "unknown" when it says image."""
    lower = question.lower()
    return next((code for words, code in MODALITIES.items() if words in lower), "unknown")


EXAMPLE_2019 = (
    ("modality", "what modality is shown?", "ct - noncontrast"),
    ("modality", "was the mri taken with contrast?", "no"),
    ("plane", "in which plane is the picture?", "axial"),
    ("organ", "what organ system is shown?", "lung, mediastinum, pleura"),
    ("abnormality", "what is abnormal?", "pleural effusion (on the left)#hydrothorax"),
)
EXAMPLE_PAIR = (
    ("is this a normal ct scan?", "no"),
    ("is the x-ray normal?", "yes"),
    ("what is abnormal in the mri?", "simple cyst|benign cyst"),
    ("what abnormality is seen in the image?", "Large mass (right lung)"),
)


def example_2019(folder: Path) -> None:
    """30 questions about as many pictures, in the layout of the test archive."""
    lines = []
    for number in range(30):
        category, question, answer = EXAMPLE_2019[number % 5]
        if number % 10 == 1:
            answer = "yes"
        draw(folder / TEST_2019.images / f"synpic{number}.jpg")
        lines.append(f"synpic{number}|{category}|{question}|{answer}")
    (folder / TEST_2019.table).write_text("\n".join(lines), encoding="utf-8")


def example_pair(folder: Path, *, year: Year) -> None:
    """28 questions about as many pictures, in the layout of the test archive; 2021 has no yes/no questions."""
    asked = EXAMPLE_PAIR if year.year == 2020 else EXAMPLE_PAIR[2:]
    questions, answers = [], []
    for number in range(28):
        question, answer = asked[number % len(asked)]
        draw(folder / year.images[0] / f"synpic{number}.jpg")
        questions.append(f"synpic{number}|{question}")
        answers.append(f"synpic{number}|{answer}")
    (folder / year.questions).write_text("\n".join(questions), encoding="utf-8")
    (folder / year.answers).write_text("\n".join(answers), encoding="utf-8")


_SHARED_FAULTS = (
    "The organisers' strict accuracy compares lower-case words without punctuation; exact match here also leaves out "
    "articles. It is `strict_accuracy`: closed and open questions together.",
    "Pictures come from MedPix, as those of VQA-RAD and of the other years: a patient is named alike in all of them.",
    "One question to each picture, and wording made from templates: the question alone tells much of the answer.",
)


def _pair_task(year: Year, ids: str, published: tuple[Published, ...], faults: tuple[str, ...]) -> Task:
    return Task(
        name=year.name,
        version=1,
        title=f"VQA-Med {year.year} (ImageCLEF), test",
        about="Questions about the abnormality in a radiology picture of MedPix.",
        folder=year.name,
        read=partial(read_pair, year=year),
        n=500,
        n_source=f"README of {year.url}; ids counted from its files",
        example=partial(example_pair, year=year),
        licence="CC BY 4.0, as the authors state for VQA-Med 2019",
        url=year.url,
        citation=f"Ben Abacha et al., Overview of the VQA-Med task at ImageCLEF {year.year}, CLEF working notes",
        ids_sha256=ids,
        published=published,
        faults=(*faults, *_SHARED_FAULTS),
    )


TASKS = (
    Task(
        name="vqa-med-2019",
        version=1,
        title="VQA-Med 2019 (ImageCLEF), test",
        about="Questions about modality, plane, organ system and abnormality of a radiology picture, 125 of each.",
        folder="vqa-med-2019",
        read=read_2019,
        n=500,
        n_source="README of the test set in https://github.com/abachaa/VQA-Med-2019, and counted from its file",
        example=example_2019,
        licence=vqa_med_2019.RECIPE.licence,
        url=vqa_med_2019.RECIPE.url,
        citation="Ben Abacha et al., VQA-Med: overview of the task at ImageCLEF 2019, CLEF working notes",
        ids_sha256="871d7427c6004a6ccfad10256a815f2efcff45adcbf1f8d513fe34e7eeec188e",
        faults=(
            '"#" parts several accepted answers and "(...)" is a part that may be left out: "a (b)#c" accepts "a b", '
            '"a" and "c". Scorers that compare with the whole cell mark right answers wrong.',
            "64 of 500 answers are yes or no; the others are open.",
            *_SHARED_FAULTS,
        ),
    ),
    _pair_task(
        YEARS[0],
        "79a83c5c8357d47b98f0783c68da341633575f8206d321563b72f1b18b4602e0",
        (),
        (
            "32 of 500 questions are yes/no; the README speaks of abnormality questions only.",
            'Unlike in 2019, nothing says that "(...)" may be left out: the answer is compared as it is written.',
        ),
    ),
    _pair_task(
        YEARS[1],
        "2a23d643f56332449675fee089d98dbca21c9d74e012cb54302ba7e33065870b",
        (
            Published(
                metric="strict_accuracy",
                value=0.382,
                model="SYSU-HCP, trained on VQA-Med",
                source="Gong et al., SYSU-HCP at VQA-Med 2021, CEUR Vol-2936 paper 99",
                how="official evaluator: exact match in lower case without punctuation; first place of the challenge",
            ),
        ),
        (
            "75 of 500 rows have two or three accepted answers, parted by the same bar as the id.",
            "All questions are open.",
        ),
    ),
)
