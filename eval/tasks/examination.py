"""One multiple-choice question of an examination -> a Sample: options in any published form, ids by content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample, Split, VisualRef
from medvlm.data_recipes.tables import Row

LETTERS = "ABCDEFGHIJ"
"""Ten options are the most that a published examination shows."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What all questions of a benchmark share.

    Attributes:
        source: ``Sample.source``.
        split: as published; a benchmark that evaluates its validation split says so.
    """

    source: str
    licence: str
    split: Split = "test"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question as read from a table.

    Attributes:
        right: place of the answer among ``options``, from 0.
        name: id of the question where every copy of the benchmark has it; "" names the question by its content.
        case: what questions that are not independent share (a video, a picture); "" is the question with its options.
    """

    question: str
    options: tuple[str, ...]
    right: int
    name: str = ""
    case: str = ""
    topic: str = "knowledge"
    visuals: tuple[VisualRef, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def fingerprint_of(*texts: str) -> str:
    """16 hexadecimal digits over texts, without regard to blanks and line ends, which copies of a table differ in."""
    return hashlib.sha256("\n".join(" ".join(text.split()) for text in texts).encode()).hexdigest()[:16]


def sample_of(exam: Examination, asked: Asked, *, where: str) -> Sample:
    """The choice question.

    Raises:
        BadSample: fewer than two or more than ten options, an empty one, or an answer that is none of them.
    """
    if not 2 <= len(asked.options) <= len(LETTERS):
        raise BadSample(
            f"{len(asked.options)} options; 2 to {len(LETTERS)} can be lettered", where=where, mend="correct the row"
        )
    if not all(option.strip() for option in asked.options):
        raise BadSample("an option is empty", where=where, mend="use the table as published")
    if not 0 <= asked.right < len(asked.options):
        raise BadSample(
            f"the answer is number {asked.right + 1} of {len(asked.options)} options",
            where=where,
            mend="correct the answer",
        )
    content = fingerprint_of(asked.question, *asked.options)
    case = asked.case or fingerprint_of(asked.question.lower(), *sorted(option.lower() for option in asked.options))
    return ask(
        sample_id=f"{exam.source}/{asked.name or content}",
        patient_id=f"{exam.source}/{case}",
        source=exam.source,
        licence=exam.licence,
        split=exam.split,
        prompt=asked.question,
        answers=[LETTERS[asked.right]],
        kind="choice",
        choices=asked.options,
        topic=asked.topic,
        visuals=asked.visuals,
        where=where,
        metadata={"options": len(asked.options), **{key: value for key, value in asked.metadata.items() if value}},
    )


def numbered(samples: Iterable[Sample | BadSample]) -> Iterator[Sample | BadSample]:
    """The same samples; one that a table holds twice keeps its case, and its second id ends in "/2".

    A benchmark that asks a question twice is scored so by all; the interval knows that it is one question.
    """
    seen: Counter[str] = Counter()
    for sample in samples:
        if isinstance(sample, Sample):
            seen[sample.sample_id] += 1
            if seen[sample.sample_id] > 1:
                sample = replace(sample, sample_id=f"{sample.sample_id}/{seen[sample.sample_id]}")
        yield sample


def all_of(rows: Iterable[Row | BadSample], make: Callable[[Row], Sample | None]) -> Iterator[Sample | BadSample]:
    """A sample per row, numbered where a row stands twice; what ``make`` leaves out (None) does not belong here."""

    def made() -> Iterator[Sample | BadSample]:
        for row in rows:
            if isinstance(row, BadSample):
                yield row
                continue
            try:
                sample = make(row)
            except BadSample as bad:
                yield bad
                continue
            if sample is not None:
                yield sample

    yield from numbered(made())


def option_texts(row: Row, key: str) -> tuple[str, ...]:
    """The options of ``row[key]``: a list of texts, {"A": text, ...} or [{"letter": "A", "content": text}, ...].

    Letters that hold nothing or "" (a struct of Parquet has all of them in each row) are left out at the end.

    Raises:
        BadSample: another form, or letters that do not follow one another.
    """
    value = row.values.get(key)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {item.get("letter"): item.get("content") for item in value}
    if isinstance(value, list):
        value = dict(zip(LETTERS, value, strict=False)) if len(value) <= len(LETTERS) else None
    if isinstance(value, dict):
        filled = {letter: text for letter, text in value.items() if text is not None and str(text).strip()}
        if filled and sorted(map(str, filled)) == list(LETTERS[: len(filled)]):
            texts = Row(where=row.where, number=row.number, values=filled)
            return tuple(texts.text(letter) for letter in LETTERS[: len(filled)])
    raise BadSample(
        f"{key!r} must be a list of 2 to {len(LETTERS)} texts, or map A, B, C, ... to texts",
        where=row.where,
        mend="use the table as published",
    )


def option_columns(row: Row, columns: Sequence[str], absent: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The options of one column each; the last ones may be empty, a gap between two may not.

    Args:
        absent: lower-case texts that stand for nothing in this table. "None" is a real option of examinations.

    Raises:
        BadSample: a gap.
    """
    texts = [row.written(column) for column in columns]
    texts = ["" if text.lower() in absent else text for text in texts]
    while texts and not texts[-1]:
        texts.pop()
    if "" in texts:
        raise BadSample(
            f"{columns[texts.index('')]!r} is empty and a later option is not", where=row.where, mend="correct the row"
        )
    return tuple(texts)


def place_of_letter(row: Row, key: str) -> int:
    """The place that a letter names; a list of one letter is that letter.

    Raises:
        BadSample: no single letter from A to J.
    """
    value = row.values.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    letter = Row(where=row.where, number=row.number, values={key: value}).text(key)
    if len(letter) != 1 or letter.upper() not in LETTERS:
        raise BadSample(f"{key!r} is {letter!r}, no letter", where=row.where, mend="use the table as published")
    return LETTERS.index(letter.upper())


def agree(row: Row, options: Sequence[str], place: int, said: str | None) -> int:
    """``place``, when the option there reads as the answer that the table also writes out.

    Raises:
        BadSample: it does not.
    """
    written = " ".join(options[place].split()) if 0 <= place < len(options) else None
    if said is not None and written != " ".join(said.split()):
        raise BadSample(
            "the letter of the answer names another option than its text", where=row.where, mend="correct the row"
        )
    return place


def first_file(folder: Path, *names: str) -> Path | None:
    """The first of ``names`` (patterns) that is a file below ``folder``."""
    for name in names:
        found = sorted(path for path in folder.glob(name) if path.is_file())
        if found:
            return found[0]
    return None


def missing(folder: Path, what: str, url: str) -> BadSample:
    """Nothing of the published layout is there."""
    return BadSample(f"no {what} is there", where=str(folder), mend=f"get it from {url}")
