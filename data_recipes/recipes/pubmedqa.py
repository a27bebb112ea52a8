"""PubMedQA, the labelled part: yes, no or maybe from an abstract, and the authors' conclusion (text only).

Jin et al., PubMedQA: a dataset for biomedical research question answering, EMNLP (2019). ori_pqal.json holds
train and test rows together; only test_ground_truth.json tells them apart, so nothing is built without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, make_samples, read_json

TABLE, TRUTH = "ori_pqal.json", "test_ground_truth.json"
DECISIONS = ("yes", "no", "maybe")


def _data(folder: Path) -> Path | None:
    return next((place for place in (folder / "data", folder) if (place / TABLE).is_file()), None)


def _make(row: Row, truth: dict[str, str]) -> Iterable[Sample]:
    pmid, decision = row.text("pmid"), row.text("final_decision").lower()
    if truth.get(pmid, decision) != decision:
        raise BadSample(
            f"final_decision is {decision!r} but {TRUTH} says {truth[pmid]!r}",
            where=row.where,
            mend="use both files of one release",
        )
    contexts = row.values.get("CONTEXTS")
    if not isinstance(contexts, list) or not all(isinstance(part, str) and part.strip() for part in contexts):
        raise BadSample("'CONTEXTS' must be a list of texts", where=row.where, mend="use the file as published")
    abstract, question = "\n".join(contexts), row.text("QUESTION")
    common = {
        "patient_id": f"{RECIPE.name}/{pmid}",
        "source": RECIPE.name,
        "licence": RECIPE.licence,
        "split": "test" if pmid in truth else "train",
        "where": row.where,
        "metadata": {"official_split": True, "year": row.optional("YEAR") or "unknown"},
    }
    yield ask(
        sample_id=f"{RECIPE.name}/{pmid}/decision",
        prompt=f"{abstract}\nQuestion: {question}",
        answers=[decision],
        kind="closed",
        choices=DECISIONS,
        topic="decision",
        **common,  # type: ignore[arg-type]
    )
    yield ask(
        sample_id=f"{RECIPE.name}/{pmid}/conclusion",
        prompt=f"{abstract}\nQuestion: {question}\nWrite the conclusion of this abstract.",
        answers=[row.text("LONG_ANSWER")],
        topic="conclusion",
        **common,  # type: ignore[arg-type]
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    data = _data(folder)
    if data is None or not (data / TRUTH).is_file():
        yield BadSample(
            f"{TRUTH} is missing, so test rows cannot be told from training rows",
            where=str((data or folder) / TABLE),
            mend=f"get both files from {RECIPE.url}",
        )
        return
    table, truth = read_json(data / TABLE), read_json(data / TRUTH)
    for path, content in ((data / TABLE, table), (data / TRUTH, truth)):
        if not isinstance(content, dict):
            raise BadSample("expected an object by PMID", where=str(path), mend="use the file as published")
    rows: list[Row | BadSample] = []
    for number, (pmid, values) in enumerate(table.items(), start=1):
        where = f"{data / TABLE}:{pmid}"
        if isinstance(values, dict):
            rows.append(Row(where=where, number=number, values={**values, "pmid": pmid}))
        else:
            rows.append(BadSample("expected an object", where=where, mend="use the file as published"))
    yield from make_samples(rows, lambda row: _make(row, truth))


RECIPE = Recipe(
    name="pubmedqa",
    version="PQA-L (2019)",
    licence="MIT",
    url="https://github.com/pubmedqa/pubmedqa",
    citation="Jin et al., EMNLP (2019)",
    owned=(TABLE, TRUTH, f"data/{TABLE}", f"data/{TRUTH}"),
    matches=lambda folder: _data(folder) is not None,
    build=_build,
    about=(
        "Research questions from titles of PubMed articles, answered yes, no or maybe from the abstract (text only; "
        "the 1,000 labelled questions)."
    ),
    layout=(
        "FOLDER/\n  data/ori_pqal.json             or both files in the folder itself\n  data/test_ground_truth.json"
    ),
    questions=(
        "closed: yes, no or maybe",
        "open: the authors' conclusion from the abstract",
    ),
    faults=(
        "Training and test rows stand in one file; only test_ground_truth.json tells them apart, so nothing is built "
        "without it.",
    ),
    measured="A public subset of 300 questions: 600 samples (400 training, 200 test), none refused.",
)
