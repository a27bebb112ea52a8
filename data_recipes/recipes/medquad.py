"""MedQuAD: consumer health questions and answers of the NIH, in XML (text only).

Ben Abacha and Demner-Fushman, A question-entailment approach to question answering, BMC Bioinformatics 20:511
(2019). Three of the twelve collections are published without answers, at the wish of their owners; those pairs
are refused. All pairs of one document go to one split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.splits import split_patients
from medvlm.data_recipes.tables import Row, make_samples, read_xml

COLLECTION = re.compile(r"\d+_.+_QA(_XML)?$")


def _documents(folder: Path) -> list[Path]:
    collections = (place for place in sorted(folder.iterdir()) if place.is_dir() and COLLECTION.match(place.name))
    return [path for place in collections for path in sorted(place.glob("*.xml"))]


def _document(path: Path) -> str:
    return f"{RECIPE.name}/{path.parent.name}/{path.stem}"


def _rows(path: Path) -> Iterator[Row | BadSample]:
    try:
        root = read_xml(path)
    except BadSample as bad:
        yield bad
        return
    for number, pair in enumerate(root.iter("QAPair"), start=1):
        question = pair.find("Question")
        yield Row(
            where=f"{path}:{number}",
            number=number,
            values={
                "question": pair.findtext("Question"),
                "answer": pair.findtext("Answer"),
                "kind": None if question is None else question.get("qtype"),
                "collection": root.get("source"),
                "document": _document(path),
            },
        )


def _make(row: Row, splits: dict[str, Split]) -> Iterable[Sample]:
    document = row.text("document")
    yield ask(
        sample_id=f"{document}/{row.number}",
        patient_id=document,
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=splits[document],
        prompt=row.text("question"),
        answers=[row.text("answer")],
        topic=row.optional("kind") or "other",
        where=row.where,
        metadata={"collection": row.optional("collection") or "unknown"},
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    documents = _documents(folder)
    splits = split_patients(_document(path) for path in documents)
    for path in documents:
        yield from make_samples(_rows(path), lambda row: _make(row, splits))


RECIPE = Recipe(
    name="medquad",
    version="abachaa/MedQuAD (2019)",
    licence="CC BY 4.0",
    url="https://github.com/abachaa/MedQuAD",
    citation="Ben Abacha and Demner-Fushman, BMC Bioinformatics 20:511 (2019)",
    owned=("[0-9]*_QA/*.xml", "[0-9]*_QA_XML/*.xml"),
    matches=lambda folder: bool(_documents(folder)),
    build=_build,
    about="Questions of patients with answers from twelve websites of the National Institutes of Health (text only).",
    layout=("FOLDER/\n  1_CancerGov_QA/*.xml\n  ...\n  12_MPlusHerbsSupplements_QA/*.xml"),
    questions=("open: the question, answered by the passage",),
    faults=(
        "Three of the twelve collections are published without answers, at the wish of their owners; those pairs are "
        "refused.",
        "There is no official split; ours keeps a document in one part.",
    ),
    measured="A public subset of 54 documents of 9 collections: 286 samples (227 training, 59 test), none refused.",
)
