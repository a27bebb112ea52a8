"""SLAKE: questions in English and Chinese about CT, MR and X-ray slices; a task for each language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import place_of
from medvlm.data_recipes.recipes import slake
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks.drawn_pictures import draw
from medvlm.eval.tasks.published_vqa import HULU, LINGSHU, judged

TABLE = "test.json"


def read(folder: Path, *, language: str) -> Iterator[Sample | BadSample]:
    """Test questions of one language.

    Raises:
        BadSample: there is no test.json.
    """
    place = place_of(folder, TABLE)
    if place is None:
        raise BadSample(
            f"{TABLE} is not here",
            where=str(folder),
            mend=f"download {slake.RECIPE.url}, or run medvlm eval fetch slake-en, and unpack imgs.zip beside {TABLE}",
        )
    yield from slake.table_samples(place, TABLE, language=language)


QUESTIONS = (
    ("en", "Is the lung healthy?", "Yes", "CLOSED", "Abnormality"),
    ("en", "Does the picture contain a kidney?", "No", "CLOSED", "Organ"),
    ("en", "Which is bigger in this picture, kidney or small bowel?", "Small Bowel", "CLOSED", "Size"),
    ("en", "Which is bigger in this picture, spleen or kidney?", "Liver", "CLOSED", "Size"),
    ("en", "What modality is used?", "MRI", "OPEN", "Modality"),
    ("en", "Where is the heart?", "Center", "OPEN", "Position"),
    ("zh", "图片中包含心脏吗?", "包含", "CLOSED", "Organ"),
    ("zh", "肝脏看起来正常吗?", "不正常", "CLOSED", "Abnormality"),
    ("zh", "哪一侧是异常的,左侧还是右侧?", "右侧", "CLOSED", "Position"),
    ("zh", "图中肾脏和脾脏哪个更大?", "脾脏", "CLOSED", "Size"),
    ("zh", "这张图片是用什么方式拍摄的?", "核磁共振", "OPEN", "Modality"),
    ("zh", "图中最大的器官是什么?", "肝脏", "OPEN", "Size"),
)
"""Of the example: language, question, answer, answer_type, content_type."""
OTHERWISE = {"Yes": "No", "No": "Yes", "包含": "不包含", "不正常": "正常", "右侧": "左侧"}


def example(folder: Path) -> None:
    """30 questions in each language about five pictures, in the published layout."""
    rows: list[dict[str, object]] = []
    for picture in range(5):
        name = f"xmlab{picture}/source.jpg"
        draw(folder / "imgs" / name)
        for language, question, answer, answer_type, content in QUESTIONS:
            if picture % 2:
                answer = OTHERWISE.get(answer, answer)
            rows.append(
                {
                    "img_id": picture, "img_name": name, "question": question, "answer": answer, "q_lang": language,
                    "location": ("Lung", "Abdomen", "Brain_Tissue")[picture % 3],
                    "modality": ("CT", "MRI", "X-Ray")[picture % 3], "answer_type": answer_type, "base_type": "vqa",
                    "triple": ["vhead", "_", "_"], "qid": len(rows), "content_type": content,
                }
            )  # fmt: skip
    (folder / TABLE).write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


_COMMON = (
    "MedEvalKit asks all 2,094 questions of both languages and calls the result SLAKE; most papers mean the 1,061 "
    "English ones. Two tables give one model (Lingshu-32B) 89.2 and 86.7.",
    "With a judge, MedEvalKit counts closed answers twice: three perfect answers score 1.667.",
    "`answer_type` CLOSED does not mean yes or no; `official_closed_accuracy` is over the flag ({closed} rows).",
    "In some closed rows the key is no organ that the question offers; they are asked openly, as published.",
    "The split is by picture; pictures of one patient cannot be told.",
)


def _task(language: str, name: str, number: int, closed: int, ids: str, faults: tuple[str, ...] = ()) -> Task:
    return Task(
        name=f"slake-{language}",
        version=1,
        title=f"SLAKE, {name} questions",
        about=(
            f"The {name} test questions about CT, MR and X-ray slices; some need knowledge beyond the picture. Closed "
            "questions are asked with the answers that their wording names or implies."
        ),
        folder="slake",
        read=partial(read, language=language),
        n=number,
        n_source=f'rows with q_lang "{language}" in test.json of Slake1.0 (2,094 rows in all), counted',
        example=example,
        licence="CC BY 4.0",
        url="https://www.med-vqa.com/slake",
        citation="Liu et al., ISBI (2021)",
        hub=slake.HUB,
        ids_sha256=ids,
        published=()
        if language == "zh"
        else tuple(
            judged(model, value, source, "English and Chinese together, closed answers counted twice with the judge on")
            for model, value, source in (
                ("GPT-4.1", 72.2, LINGSHU), ("Gemini-2.5-Flash", 75.8, LINGSHU), ("Hulu-Med-7B", 86.8, HULU),
            )
        ),
        faults=(*(text.format(closed=closed) for text in _COMMON), *faults),
    )  # fmt: skip


TASKS = (
    _task("en", "English", 1061, 416, "58cb2ab16b0016e08dcf75ecee3165270b026e98422630784daed4465e0edc68"),
    _task(
        "zh",
        "Chinese",
        1033,
        420,
        "9430ab6df38e04ac2fc3bb4cd13c271dcf28a7d709b8498f2b0c0a7a84014918",
        (
            "lmms-eval maps 正常 (normal) to yes and 异常 (abnormal) to no, whatever was asked; here a closed question "
            "has the words of its own wording as choices (包含 or 不包含).",
            "Chinese has no blanks, so an open answer is one token: token F1 is exact match.",
        ),
    ),
)
