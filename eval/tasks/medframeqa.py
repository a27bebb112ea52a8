"""MedFrameQA: 2,851 questions about two to five frames of one medical video.

Yu et al., arXiv:2505.16964 (2025). Read from SuhaoYu1020/MedFrameQA (data/test-*.parquet): question_id, question,
options, image_1 to image_5, correct_answer, system, organ, modality, video_id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row
from medvlm.eval.task import Task
from medvlm.eval.tasks.examination import Asked, Examination, all_of, missing, option_texts, place_of_letter, sample_of
from medvlm.eval.tasks.made_up import CASES, COUNT, options_of, png, vignette, write_parquet

EXAM = Examination(source="medframeqa", licence="CC BY 4.0 (card of the dataset); frames are of public videos")
URL = "https://huggingface.co/datasets/SuhaoYu1020/MedFrameQA"
FRAMES = tuple(f"image_{place}" for place in range(1, 6))


def _make(row: Row) -> Sample:
    paths = [row.optional(name) for name in FRAMES]
    shown = [path for path in paths if path is not None]
    if len(shown) < 2 or paths[: len(shown)] != shown:
        raise BadSample(
            f"{len(shown)} frames; a question shows two to five, image_1 first",
            where=row.where,
            mend="use the table as published",
        )
    organ = row.optional("organ")
    asked = Asked(
        question=row.text("question"),
        options=option_texts(row, "options"),
        right=place_of_letter(row, "correct_answer"),
        name=row.text("question_id"),
        case=row.text("video_id"),
        topic=(row.optional("system") or "other").lower(),
        visuals=tuple(visual_at(Path(path), kind="image", where=row.where, mend="read again") for path in shown),
        metadata={
            "modality": row.optional("modality"), "body_part": organ, "subject": row.optional("system"),
            "frames": len(shown),
        },
    )  # fmt: skip
    return sample_of(EXAM, asked, where=row.where)


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The questions in ``folder``."""
    if not parquet_of(folder, "test"):
        yield missing(folder, "data/test-*.parquet", URL)
        return
    columns = ("question_id", "question", "options", "correct_answer", "video_id", *FRAMES)
    yield from all_of(read_split(folder, "test", required=columns), _make)


def example(folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    for number in range(COUNT):
        options, right = options_of(number, 5 + number % 2)
        frames = 2 + number % 4
        rows.append(
            {
                "question_id": f"made-up-{number}",
                "question": f"Across these frames: {vignette(number)}",
                "options": options,
                "correct_answer": "ABCDEF"[right],
                "system": ("respiratory", "musculoskeletal")[number % 2],
                "organ": CASES[number % len(CASES)][3],
                "modality": ("CT", "MRI")[number % 2],
                "video_id": f"video-{number // 2}",
                **{
                    name: {"bytes": png(number * 5 + place), "path": None} if place < frames else None
                    for place, name in enumerate(FRAMES)
                },
            }
        )
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


TASKS = (
    Task(
        name="medframeqa",
        version=1,
        title="MedFrameQA (two to five frames)",
        about="Questions that need several frames of a medical video; by organ system and modality.",
        folder="medframeqa",
        read=read,
        n=2851,
        n_source="Yu et al. 2025 and the card of the dataset; not counted here",
        example=example,
        licence=EXAM.licence,
        url=URL,
        citation="Yu et al., arXiv:2505.16964 (2025)",
        hub="SuhaoYu1020/MedFrameQA",
        faults=(
            "Questions and answers were written by a language model from what is said; physicians checked some.",
            "Several questions come from one video: the interval draws videos.",
            "Some questions have six options: a reader that stops at E makes some right answers impossible.",
            "Frames carry text and arrows of the videos, which can give the answer away.",
        ),
    ),
)  # fmt: skip
