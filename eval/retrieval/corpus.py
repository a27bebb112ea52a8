"""Queries, documents and judgements of a retrieval benchmark, in the layouts in which they are published.

BEIR: corpus.jsonl ({_id, title, text}), queries.jsonl ({_id, text}), qrels/test.tsv (query-id, corpus-id, score).
CMIRB: corpus.jsonl, queries.jsonl ({id, text}), qrels/test.jsonl ({q_id, p_id, score}).
R2MED: corpus.jsonl, query.jsonl, qrels.jsonl or qrels.txt.
Queries and documents may hold "image" or "image_path" (one file or a list), relative to the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.tables import Row, read_json_lines, read_lines

CORPUS = ("corpus.jsonl",)
QUERIES = ("queries.jsonl", "query.jsonl")
JUDGEMENTS = ("qrels/test.tsv", "qrels/test.jsonl", "qrels.jsonl", "qrels.txt", "qrels.tsv")
ID_KEYS, IMAGE_KEYS = ("_id", "id"), ("image", "image_path", "images")
TRIPLES = (("query-id", "corpus-id", "score"), ("q_id", "p_id", "score"), ("qid", "docid", "score"))


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A query or a document.

    Attributes:
        text: title and text with a blank between them, as BEIR's own models read them; "" when it has only pictures.
        images: existing files.
    """

    name: str
    text: str
    images: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What judgements speak of and the folder does not hold.

    Attributes:
        queries, documents: how many ids.
        first: one of them.
    """

    queries: int
    documents: int
    first: str


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A benchmark in memory.

    Attributes:
        queries: those that have at least one relevant document, in the order of the file.
        grades: for each of them, number of a document -> grade.
        absent: for each of them, grades of judged documents that are not in the corpus.
        unjudged: queries without any judgement; they are not asked.
        nothing_relevant: queries whose judged documents are all irrelevant; they are not asked.
        missing: None when every id is there.
        sha256: of the three files together.
    """

    documents: tuple[Passage, ...]
    queries: tuple[Passage, ...]
    grades: tuple[Mapping[int, int], ...]
    absent: tuple[tuple[int, ...], ...]
    unjudged: int
    nothing_relevant: int
    missing: Missing | None
    sha256: dict[str, str]

    @property
    def has_images(self) -> bool:
        """Whether any query or document holds a picture."""
        return any(passage.images for passage in (*self.queries, *self.documents))


def read_collection(folder: Path, *, partial: bool = False) -> Collection:
    """Read ``folder``.

    Args:
        partial: go on where judgements speak of queries or documents that are not there.

    Raises:
        BadSample: a file is missing or damaged, an id stands twice, a judgement is malformed.
        ValueError: nothing can be asked, or ids are missing and ``partial`` is not set.
    """
    files = {"corpus": _one(folder, CORPUS), "queries": _one(folder, QUERIES), "qrels": _one(folder, JUDGEMENTS)}
    documents = _passages(files["corpus"], folder)
    queries = _passages(files["queries"], folder)
    places = {document.name: place for place, document in enumerate(documents)}
    known = {query.name for query in queries}
    judged: dict[str, dict[int, int]] = {}
    absent: dict[str, list[int]] = {}
    lost_queries: set[str] = set()
    lost_documents: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for query, document, grade, where in _judgements(files["qrels"]):
        if (query, document) in seen:
            raise BadSample(
                f"document {document!r} is judged twice for query {query!r}", where=where, mend="keep one of them"
            )
        seen.add((query, document))
        if query not in known:
            lost_queries.add(query)
        elif document not in places:
            lost_documents.add(document)
            absent.setdefault(query, []).append(grade)
        else:
            judged.setdefault(query, {})[places[document]] = grade
    missing = None
    if lost_queries or lost_documents:
        first = sorted(lost_queries or lost_documents)[0]
        missing = Missing(queries=len(lost_queries), documents=len(lost_documents), first=first)
        if not partial:
            raise ValueError(
                f"{files['qrels']} judges {missing.queries} queries and {missing.documents} documents that are not in "
                f"{folder} ({first!r} is one): get the whole benchmark, or go on with --partial; the figures are then "
                "not those of the benchmark"
            )
    asked = [query for query in queries if any(grade > 0 for grade in judged.get(query.name, {}).values())]
    if not asked:
        raise ValueError(f"no query of {folder} has a relevant document among the {len(documents)} that are there")
    touched = set(judged) | set(absent)
    return Collection(
        documents=documents,
        queries=tuple(asked),
        grades=tuple(judged[query.name] for query in asked),
        absent=tuple(tuple(absent.get(query.name, ())) for query in asked),
        unjudged=sum(query.name not in touched for query in queries),
        nothing_relevant=sum(query.name in touched for query in queries) - len(asked),
        missing=missing,
        sha256={name: sha256_of(path) for name, path in files.items()},
    )


def _one(folder: Path, names: tuple[str, ...]) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise BadSample(
            f"none of {', '.join(names)} is here", where=str(folder), mend="give a folder in the layout of BEIR"
        )
    if len(found) > 1:
        raise BadSample(
            f"{found[0].name} and {found[1].name} are both here; which one holds?",
            where=str(folder),
            mend="leave one of them",
        )
    return found[0]


def _passages(path: Path, folder: Path) -> tuple[Passage, ...]:
    held: dict[str, Passage] = {}
    for row in read_json_lines(path):
        if isinstance(row, BadSample):
            raise row
        name = next((str(row.values[key]).strip() for key in ID_KEYS if str(row.values.get(key, "")).strip()), "")
        if not name or name in held:
            reason = f"the id {name!r} stands twice" if name else f"there is no id ({' or '.join(ID_KEYS)})"
            raise BadSample(reason, where=row.where, mend="give every row an id of its own")
        text = " ".join(part for part in (row.written("title"), _text(row)) if part)
        images = _images(row, folder)
        if not text and not images:
            raise BadSample(f"{name!r} has neither text nor picture", where=row.where, mend="drop the row")
        held[name] = Passage(name=name, text=text, images=images)
    if not held:
        raise BadSample("the file is empty", where=str(path), mend="use the file as published")
    return tuple(held.values())


def _text(row: Row) -> str:
    """The text with its lines: where they break may matter to a model."""
    value = row.values.get("text")
    return value.strip() if isinstance(value, str) else row.written("text")


def _images(row: Row, folder: Path) -> tuple[Path, ...]:
    named = next((row.values[key] for key in IMAGE_KEYS if row.values.get(key)), None)
    if named is None:
        return ()
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise BadSample("a picture must be a path or a list of paths", where=row.where, mend="write paths as text")
    for name in names:
        if not (folder / name).is_file():
            raise BadSample(f"the picture {name} is missing", where=row.where, mend="unpack the pictures there")
    return tuple(folder / name for name in names)


def _judgements(path: Path) -> Iterator[tuple[str, str, int, str]]:
    """(query, document, grade, where) of every line."""
    if path.suffix == ".jsonl":
        for row in read_json_lines(path):
            if isinstance(row, BadSample):
                raise row
            keys = next((keys for keys in TRIPLES if all(key in row.values for key in keys)), None)
            if keys is None:
                raise BadSample(f"there are {sorted(row.values)}", where=row.where, mend=f"use one of {TRIPLES}")
            query, document, grade = (str(row.values[key]).strip() for key in keys)
            yield query, document, _grade(grade, row.where), row.where
        return
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split("\t") if "\t" in line else line.split()
        where = f"{path}:{number}"
        if not line.strip() or (number == 1 and not _is_number(cells[-1].strip())):
            continue  # the header
        if len(cells) == 4:
            cells = [cells[0], *cells[2:]]  # trec: query, iteration, document, grade
        if len(cells) != 3:
            raise BadSample(
                f"{len(cells)} cells", where=where, mend="write query, document and grade, separated by tabs"
            )
        yield cells[0].strip(), cells[1].strip(), _grade(cells[2].strip(), where), where


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def _grade(text: str, where: str) -> int:
    if not _is_number(text) or float(text) != int(float(text)):
        raise BadSample(f"the grade {text!r} is no whole number", where=where, mend="write 0, 1, 2, ...")
    return int(float(text))
