"""COVID-QA: 2,019 questions whose answer is a passage of a scientific article.

Moeller et al., NLP-COVID workshop at ACL (2020). Read from COVID-QA.json in the layout of SQuAD: data, paragraphs with
context and qas with id, question, answers (text, answer_start). There is no split: all of it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import object_row, read_json
from medvlm.eval.task import Task
from medvlm.eval.tasks.examination import first_file, missing, numbered
from medvlm.eval.tasks.made_up import CASES, COUNT

SOURCE, LICENCE = "covid-qa", "Apache-2.0"
URL = "https://github.com/deepset-ai/COVID-QA"
_MEND = "use COVID-QA.json as published"


def _question(item: Any, context: str, document: str, where: str) -> Sample:
    row = object_row(item, where=where, number=0)
    if isinstance(row, BadSample):
        raise row
    answers = row.values.get("answers")
    if row.values.get("is_impossible") or not isinstance(answers, list) or not answers:
        raise BadSample("a question without an answer", where=where, mend=_MEND)
    for answer in answers:
        start, text = (answer.get("answer_start"), answer.get("text")) if isinstance(answer, dict) else (None, None)
        if not isinstance(start, int) or not isinstance(text, str) or context[start : start + len(text)] != text:
            raise BadSample("an answer is not what stands at its place", where=where, mend=_MEND)
    return ask(
        sample_id=f"{SOURCE}/{row.text('id')}",
        patient_id=f"{SOURCE}/{document}",
        source=SOURCE,
        licence=LICENCE,
        split="test",
        prompt=f"{context.strip()}\nQuestion: {row.text('question')}",
        answers=list(dict.fromkeys(answer["text"] for answer in answers)),
        kind="span",
        topic="passage",
        where=where,
    )


def _all(path: Path) -> Iterator[Sample | BadSample]:
    table = read_json(path)
    articles = table.get("data") if isinstance(table, dict) else None
    if not isinstance(articles, list):
        raise BadSample("no list 'data'", where=str(path), mend=_MEND)
    for number, article in enumerate(articles, start=1):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            yield BadSample("an article without paragraphs", where=f"{path}:{number}", mend=_MEND)
            continue
        for paragraph in paragraphs:
            context, document = paragraph.get("context"), str(paragraph.get("document_id", f"article-{number}"))
            for place, item in enumerate(paragraph.get("qas", ()), start=1):
                where = f"{path}:article {number}, question {place}"
                try:
                    if not isinstance(context, str):
                        raise BadSample("a paragraph without context", where=where, mend=_MEND)
                    yield _question(item, context, document, where)
                except BadSample as bad:
                    yield bad


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """All questions in ``folder``."""
    path = first_file(folder, "COVID-QA.json", "**/COVID-QA.json")
    if path is None:
        yield missing(folder, "COVID-QA.json", URL)
        return
    yield from numbered(_all(path))


def example(folder: Path) -> None:
    data = []
    for number in range(COUNT // 2):
        complaint, organ, finding, _ = CASES[number % len(CASES)]
        context = (
            f"In invented study {number + 1} people had {complaint}. In {organ} there was {finding}.\nNobody was hurt."
        )
        qas = [
            {
                "id": number * 2 + place,
                "question": question,
                "answers": [{"text": text, "answer_start": context.index(text)}],
                "is_impossible": False,
            }
            for place, (question, text) in enumerate(
                (("What did people have?", complaint), ("What was there?", finding))
            )
        ]
        data.append({"paragraphs": [{"document_id": number, "context": context, "qas": qas}]})
    (folder / "COVID-QA.json").write_text(json.dumps({"data": data}), encoding="utf-8")


TASKS = (
    Task(
        name="covid-qa",
        version=1,
        title="COVID-QA, passages of articles (text)",
        about="An answer in the words of a whole article, which is long: thousands of words before the question.",
        folder="covid-qa",
        read=read,
        n=2019,
        n_source="Moeller et al. 2020; not counted here",
        example=example,
        licence=LICENCE,
        url=URL,
        citation="Moeller et al., NLP-COVID workshop at ACL (2020)",
        faults=(
            "No split is published: figures of cross-validation or of models trained on a part are not of all of it.",
            "Questions of one article are not independent: the interval draws articles.",
            "Answers are passages of about ten words whose ends are arbitrary: exact match is low for good answers.",
        ),
    ),
)
