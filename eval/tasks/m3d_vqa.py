"""M3D-VQA: questions about CT volumes of Radiopaedia cases, with choices and openly; the whole test, and 5,000."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes import m3d_vqa
from medvlm.data_recipes.recipes.m3d_vqa import COLUMNS, RECIPE, UNFILLED, Form
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.drawn_volumes import draw_npy, write_csv

TEST, TEST_5K = "M3D_VQA_test.csv", "M3D_VQA_test5k.csv"


def reading(table: str, form: Form) -> Callable[[Path], Iterator[Sample | BadSample]]:
    """The function that reads ``table``, every row asked in ``form``."""

    def read(folder: Path) -> Iterator[Sample | BadSample]:
        if m3d_vqa.table_of(folder, table) is None:
            raise BadSample(f"no {table} is here", where=str(folder), mend=f"download it from {RECIPE.url}")
        yield from m3d_vqa.table_samples(folder, table, "test", (form,))

    return read


_QUESTIONS = (
    ("1", "In which plane are the slices?", ("axial", "coronal", "sagittal", "oblique")),
    ("2", "Which phase is shown?", ("plain", "arterial", "portal venous", "delayed")),
    ("3", "Which organ holds the bright block?", ("the liver", "the spleen", "a kidney", "the pancreas")),
    ("4", "Is the block brighter than all around it?", ("yes", "no", UNFILLED, UNFILLED)),
    ("5", "Where is the block?", ("upper left", "upper right", "lower left", "lower right")),
)


def example(table: str) -> Callable[[Path], None]:
    """The function that writes 30 rows about six volumes of six cases."""

    def write(folder: Path) -> None:
        rows: list[list[str]] = []
        for case in range(6):
            image = f"M3D_Cap_npy/ct_{'case' if case % 2 else 'quizze'}/{900 + case:06d}/Axial_drawn.npy"
            draw_npy(folder / image)
            for number, (kind, question, choices) in enumerate(_QUESTIONS):
                place = (case * 3 + number) % sum(choice != UNFILLED for choice in choices)
                said = f"Invented findings of case {case}."
                rows.append([image, said, kind, question, *choices, choices[place], "ABCD"[place]])
        header = [COLUMNS[0], "Text", *COLUMNS[1:]]
        write_csv(folder / "M3D-VQA" / table, header, rows)

    return write


_SOURCE = "Med3DVLM (2025), as quoted by reports on it"
_CLOSED = (
    'differs: right when the answer holds the letter with a full stop anywhere ("A. ... not B." is right for both); '
    "choices on one line; the mean of five question types or of all questions is not said"
)
_FAULTS = (
    *RECIPE.faults[:2],
    'The authors count an answer as right when "{letter}." stands anywhere in it; here the letter is extracted, and an '
    "answer that names two is unread.",
    "One case has several volumes and several questions; intervals are over cases.",
    "The authors' loader replaces a volume that cannot be read by another, drawn at random; here it is refused.",
    "A last choice of NA is not shown; the authors show it.",
    "Open answers are published as METEOR of the evaluate library (parameters of 2005, mean of sentences): 33.58 of "
    "M3D-LaMed, 36.76 of Med3DVLM; that is no score of ours, so no gap to it is shown.",
)
_README = "the page of the dataset says that 13,729 of 13,814 test questions passed a review"


def _task(name: str, table: str, form: Form, n: int, n_source: str, published: tuple[Published, ...] = ()) -> Task:
    part = "test" if table == TEST else "part of 5,000 of the test"
    return Task(
        name=name,
        version=1,
        title=f"M3D-VQA, {part}: {'multiple choice' if form == 'choice' else 'the same questions without choices'}",
        about=(
            "Questions about plane, phase, organ, abnormality and location (the topics of the tables) in CT volumes of "
            "32 x 256 x 256 display values, written by a language model from the text of the case. "
            + (
                "Asked with the choices of the row, lettered."
                if form == "choice"
                else "Asked without choices; scored by the words of the answer."
            )
        ),
        folder="m3d",
        read=reading(table, form),
        n=n,
        n_source=n_source,
        example=example(table),
        licence=RECIPE.licence,
        url=RECIPE.url,
        citation=RECIPE.citation,
        access="gated",
        published=published,
        faults=_FAULTS,
    )


_N_SOURCE = f"as evaluations of others report for {TEST}; not counted here (no copy was seen), and {_README}"
_N_5K_SOURCE = f"the name {TEST_5K}, and its size against that of the whole test; not counted here (no copy was seen)"

TASKS: tuple[Task, ...] = (
    _task(
        "m3d-vqa", TEST, "choice", 13791, _N_SOURCE,
        tuple(
            Published(metric="choice_accuracy", value=value, model=model, source=_SOURCE, how=_CLOSED)
            for model, value in (("M3D-LaMed", 0.7578), ("Med3DVLM", 0.7995))
        ),
    ),
    _task("m3d-vqa-open", TEST, "open", 13791, _N_SOURCE),
    _task("m3d-vqa-5k", TEST_5K, "choice", 5000, _N_5K_SOURCE),
    _task("m3d-vqa-5k-open", TEST_5K, "open", 5000, _N_5K_SOURCE),
)  # fmt: skip
