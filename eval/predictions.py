"""Answers that somebody else's program wrote: a file of predictions instead of a model.

    medvlm eval run --model predictions:FILE --task ...

JSON lines or CSV with ``sample_id`` (or ``id``, ``question_id``, ``study_id``) and ``prediction`` (or ``text``,
``response``, ``answer``, ``report``), or a JSON object id -> text or id -> {"model_prediction": text}, as ReXrank takes
it. They answer the questions as they are, so controls are not asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.tables import Row, object_row, read_csv, read_json, read_json_lines, read_json_list
from medvlm.eval.controls import Condition
from medvlm.eval.models import Request, Response

IDS = ("sample_id", "id", "question_id", "study_id")
TEXTS = ("prediction", "model_prediction", "text", "response", "answer", "report")


class PredictionsModel:
    """Answers from a file.

    A prediction belongs to the sample whose id it states, or whose id without the name of the data set ("vqa-rad/12" is
    also "12").

    Raises:
        ValueError: the file cannot be read, names no id or text, or an id twice; or, when asked, lacks a sample.
    """

    only_conditions: tuple[Condition, ...] = ("image",)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        try:
            for row in _rows(path):
                if isinstance(row, BadSample):
                    raise ValueError(str(row))
                name, text = _first(row, IDS), _text(row)
                if name in self.texts:
                    raise ValueError(f"{row.where}: {name!r} was predicted before; keep one prediction of each sample")
                self.texts[name] = text
        except BadSample as bad:
            raise ValueError(str(bad)) from bad
        if not self.texts:
            raise ValueError(f"{path} holds no prediction")

    @property
    def name(self) -> str:
        return f"predictions:{self.path}"

    @property
    def settings(self) -> dict[str, str]:
        """A file that was written again holds other answers: they belong into another run folder."""
        return {"sha256": sha256_of(self.path)}

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        twice = [request.sample_id for request in requests if self._is_twice(request.sample_id)]
        if twice:
            raise ValueError(
                f"{self.path} predicts {twice[0]!r} twice, with and without the name of the data set; keep one of them"
            )
        found = [self._of(request.sample_id) for request in requests]
        missing = [request.sample_id for request, text in zip(requests, found, strict=True) if text is None]
        if missing:
            raise ValueError(
                f"{self.path} has no prediction for {len(missing)} of {len(requests)} samples, first {missing[0]!r}; "
                "predict all of them: an empty text is a prediction, and is counted as one"
            )
        return [Response(text=text) for text in found if text is not None]

    def _is_twice(self, sample_id: str) -> bool:
        return sample_id in self.texts and sample_id.partition("/")[2] in self.texts

    def _of(self, sample_id: str) -> str | None:
        short = sample_id.partition("/")[2]
        return self.texts.get(sample_id, self.texts.get(short) if short else None)


def _rows(path: Path) -> Iterator[Row | BadSample]:
    if not path.is_file():
        raise ValueError(f"{path} is no file of predictions")
    if path.suffix == ".csv":
        yield from read_csv(path, required=())
    elif path.suffix == ".jsonl":
        yield from read_json_lines(path)
    else:
        content = read_json(path)
        if isinstance(content, list):
            yield from read_json_list(path)
        elif isinstance(content, dict):
            yield from (_of_object(path, number, *pair) for number, pair in enumerate(content.items(), start=1))
        else:
            raise ValueError(f"{path} holds a {type(content).__name__}; write an object or a list of objects")


def _of_object(path: Path, number: int, name: str, value: Any) -> Row | BadSample:
    where = f"{path}:{number}"
    if isinstance(value, str):
        return Row(where=where, number=number, values={"id": name, "prediction": value})
    row = object_row(value, where=where, number=number)
    return (
        row if isinstance(row, BadSample) else Row(where=where, number=number, values={**row.values, "sample_id": name})
    )


def _first(row: Row, keys: Sequence[str]) -> str:
    for key in keys:
        if row.written(key):
            return row.text(key)
    raise ValueError(f"{row.where} has none of {', '.join(keys)}; it has {', '.join(row.values)}")


def _text(row: Row) -> str:
    """What was predicted, which may be empty, with its line breaks."""
    present = [key for key in TEXTS if key in row.values]
    if not present:
        raise ValueError(f"{row.where} has none of {', '.join(TEXTS)}; it has {', '.join(row.values)}")
    value = row.values[present[0]]
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{row.where}: {present[0]!r} is no text")
    return "" if value is None else str(value).strip()


def unused(model: PredictionsModel, asked: Sequence[str]) -> list[str]:
    """Ids of predictions that belong to none of the samples ``asked``."""
    known = Counter([*asked, *(name.partition("/")[2] for name in asked)])
    return [name for name in model.texts if name not in known]
