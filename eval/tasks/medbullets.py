"""Medbullets: 308 questions in the style of USMLE steps 2 and 3, with four and with five options.

Chen et al., Benchmarking large language models on answering and explaining challenging medical questions, NAACL (2025).
Read from the authors' medbullets_op4.csv and medbullets_op5.csv (link, question, opa.., answer_idx, answer), the .json
beside them (column -> number -> value), or the copies on the hub: LangAGI-Lab/medbullets_op5 with the same columns,
tuenguyen/Medical-Eval-MedBullets_op4 (split "train") and mkieffer/Medbullets with options as letter -> text.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import parquet_of, read_split
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_csv, read_json, read_json_lines
from medvlm.eval.task import Published, Task
from medvlm.eval.tasks.examination import (
    LETTERS,
    Asked,
    Examination,
    agree,
    all_of,
    first_file,
    missing,
    option_columns,
    option_texts,
    place_of_letter,
    sample_of,
)
from medvlm.eval.tasks.made_up import COUNT, options_of, vignette
from medvlm.eval.tasks.published import LETTER, TABLES

URL = "https://github.com/HanjieChen/ChallengeClinicalQA"
LICENCE = "not stated by the authors; questions of medbullets.com"


def _make(row: Row, *, exam: Examination, count: int) -> Sample:
    if "options" in row.values:
        options = option_texts(row, "options")
    else:
        options = option_columns(row, [f"op{letter.lower()}" for letter in LETTERS[:count]])
    if len(options) != count:
        raise BadSample(
            f"{len(options)} options, this form has {count}", where=row.where, mend=f"use medbullets_op{count}"
        )
    if "answer_idx" in row.values:
        right = agree(row, options, place_of_letter(row, "answer_idx"), row.optional("answer"))
    else:
        right = place_of_letter(row, "answer")
    return sample_of(exam, Asked(question=row.text("question"), options=options, right=right), where=row.where)


def _columns(path: Path) -> Iterator[Row | BadSample]:
    """Rows of {"column": {"0": value, ...}, ...}, as pandas writes a table by default."""
    table = read_json(path)
    if isinstance(table, list):
        table = {key: dict(enumerate(row.get(key) for row in table)) for key in table[0]} if table else {}
    if not isinstance(table, dict) or not all(isinstance(column, dict) for column in table.values()) or not table:
        yield BadSample("expected an object of columns", where=str(path), mend="use the file as published")
        return
    for number, key in enumerate(next(iter(table.values())), start=1):
        values = {name: column.get(key) for name, column in table.items()}
        yield Row(where=f"{path}:{number}", number=number, values=values)


def _rows(folder: Path, count: int) -> Iterator[Row | BadSample]:
    stem = f"medbullets_op{count}"
    path = first_file(folder, *(f"**/{stem}{suffix}" for suffix in (".csv", ".jsonl", ".json")))
    if path is not None and path.suffix == ".csv":
        yield from read_csv(path, required=("question", "opa", "answer_idx"))
    elif path is not None:
        yield from read_json_lines(path) if path.suffix == ".jsonl" else _columns(path)
    else:
        places = ((folder, f"op{count}_test"), (folder / stem, "train"), (folder / stem, "test"))
        found = next(((place, split) for place, split in places if parquet_of(place, split)), None)
        if found is None:
            yield missing(folder, f"{stem}.csv", URL)
            return
        yield from read_split(*found, required=("question",))


def _read(folder: Path, *, exam: Examination, count: int) -> Iterator[Sample | BadSample]:
    yield from all_of(_rows(folder, count), partial(_make, exam=exam, count=count))


def _example(folder: Path, *, count: int) -> None:
    names = ["link", "question", *(f"op{letter.lower()}" for letter in LETTERS[:count]), "answer_idx", "answer"]
    lines = [",".join(names)]
    for number in range(COUNT):
        options, right = options_of(number, count)
        cells = ["https://example.org", vignette(number), *options, LETTERS[right], options[right]]
        lines.append(",".join(f'"{cell}"' for cell in cells))
    place = folder / "medbullets"
    place.mkdir(parents=True)
    (place / f"medbullets_op{count}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _task(count: int, ids: str, twice: int, published: tuple[Published, ...]) -> Task:
    exam = Examination(source=f"medbullets-op{count}", licence=LICENCE)
    return Task(
        name=exam.source,
        version=1,
        title=f"Medbullets, {('four', 'five')[count - 4]} options (text)",
        about="Hard questions in the style of USMLE steps 2 and 3, published after most models were trained.",
        folder="medbullets",
        read=partial(_read, exam=exam, count=count),
        n=308,
        n_source="counted in the authors' medbullets_op4.csv and medbullets_op5.csv",
        example=partial(_example, count=count),
        licence=LICENCE,
        url=URL,
        citation="Chen et al., NAACL (2025), arXiv:2402.18060",
        ids_sha256=ids,
        hub="mkieffer/Medbullets",
        published=published,
        faults=(
            f"{twice} of the 308 rows repeat a question with the same options. All count, as everywhere; the interval "
            "draws repeated ones together.",
            "The copies on the hub hold all rows in a split that is called train.",
            "The place of the right option differs between the two forms: answers to one are none to the other.",
        ),
    )


TASKS = (
    _task(
        4, "aabbbb97341d892e25763f8835366dc1f61e1ff125e8883028efa939550eb996", 4, (),
    ),
    _task(
        5, "089eade3ee445f81fd136f144991a0c99d19922c78a03844f9c4e9894acda4fe", 10,
        (
            Published(
                metric="choice_accuracy", value=0.698, model="MedGemma-27B", source=TABLES,
                how=f"the tables do not say whether four or five options. {LETTER}",
            ),
            Published(
                metric="choice_accuracy", value=0.904, model="GPT-5", source=TABLES,
                how=f"the tables do not say whether four or five options. {LETTER}",
            ),
        ),
    ),
)  # fmt: skip
