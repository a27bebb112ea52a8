"""PathVQA: 6,719 test questions about pathology pictures."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, place_of
from medvlm.data_recipes.recipes import path_vqa
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks.drawn_pictures import png_bytes
from medvlm.eval.tasks.published_vqa import HULU, LINGSHU, judged


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """Test questions of the copy on the hub.

    Raises:
        BadSample: it is not here; or only the authors' pickles are.
    """
    if parquet_of(folder, "test"):
        yield from path_vqa.split_samples(folder, "test")
        return
    pickles = place_of(folder, "**/*qas.pkl", "**/*qa.pkl") is not None
    raise BadSample(
        "the authors' pickles are not read, because a pickle runs code"
        if pickles
        else "data/test-*.parquet is not here",
        where=str(folder),
        mend=f"run medvlm eval fetch path-vqa, or download {path_vqa.RECIPE.url}",
    )


QUESTIONS = (
    ("is the nodule present?", "yes"),
    ("are the walls thickened?", "No"),
    ("what is present?", "liver"),
    ("where are the cells?", "in the lumen"),
    ("how does the cut surface look?", "grey-white"),
    ("why does this rise?", "due to necrosis"),
)
"""Of the example: question, answer; one yes is capitalised, as MedEvalKit's test for closed questions overlooks."""


def example(folder: Path) -> None:
    """30 questions about five pictures, in two Parquet files as on the hub."""
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    rows = []
    for picture in range(5):
        image = {"bytes": png_bytes(f"path{picture}"), "path": None}
        for question, answer in QUESTIONS:
            if picture % 2 and answer in ("yes", "No"):
                answer = {"yes": "no", "No": "Yes"}[answer]
            rows.append({"image": image, "question": question, "answer": answer})
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\npretty_name: {path_vqa.CARD}\n---\n", encoding="utf-8")
    for part in range(2):
        table = arrow.Table.from_pylist(rows[part * 15 : part * 15 + 15])
        parquet.write_table(table, folder / "data" / f"test-0000{part}-of-00002.parquet")


TASK = Task(
    name="path-vqa",
    version=1,
    title="PathVQA: questions about pathology pictures",
    about="Yes/no and open questions that rules made from captions of pathology textbooks and of the PEIR library.",
    folder="path-vqa",
    read=read,
    n=6719,
    n_source="dataset card of flaviagiammarino/path-vqa on the hub: test 6,719, after repeated rows were dropped",
    example=example,
    licence="MIT",
    url=path_vqa.RECIPE.url,
    citation="He et al., arXiv 2003.10286 (2020)",
    hub=path_vqa.HUB,
    published=(
        judged("GPT-4.1", 55.5, LINGSHU),
        judged("Gemini-2.5-Flash", 55.4, LINGSHU),
        judged("Lingshu-32B", 65.9, LINGSHU),
        judged("Hulu-Med-32B", 67.3, HULU),
    ),
    faults=(
        "Older work tests on 6,761 questions of the authors' pickles, with repeated rows and another split; figures on "
        "6,719 and 6,761 are not of the same questions.",
        "MedEvalKit asks for yes or no only where the key is written in lower case, but marks in lower case: a "
        "capitalised key is asked openly and marked as closed. Here the case of the key does not matter.",
        "With a judge, three perfect answers score 0.333 in MedEvalKit (closed 0.0).",
        "The copy on the hub has no ids: a question is named by its row, so only the number of rows can be checked.",
        "Open answers are words of a caption; exact match asks for the very words.",
        "Pictures of one patient cannot be told: a picture counts as a patient.",
    ),
)
