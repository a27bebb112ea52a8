"""BC5CDR: the chemicals, and the diseases, that 500 abstracts name.

Li et al., BioCreative V CDR task corpus, Database 2016, baw068. Read from CDR_TestSet.PubTator.txt of CDR_Data.zip: a
title, an abstract, and mentions as PMID, start, end, text, type, identifiers; CID lines are relations and not asked. A
composite mention ("renal and hepatic failure") is one entity as it is printed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import ENTITIES, NONE_OF_THEM, ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import read_text
from medvlm.eval.task import Task
from medvlm.eval.tasks.examination import first_file, missing
from medvlm.eval.tasks.made_up import CASES, COUNT

LICENCE = "public domain (as the copy bigbio/bc5cdr states it); abstracts of PubMed"
URL = "https://github.com/JHnlp/BioCreative-V-CDR-Corpus"
ASKED = {"Chemical": "chemicals and drugs", "Disease": "diseases, symptoms and side effects"}
_MEND = "use CDR_TestSet.PubTator.txt as published"


def _text(path: Path) -> str:
    """The test table, out of the archive of the corpus where that is what is there."""
    if path.suffix != ".zip":
        return read_text(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/CDR_TestSet.PubTator.txt"))
            return archive.read(name).decode("utf-8")
    except (zipfile.BadZipFile, StopIteration, UnicodeDecodeError) as error:
        raise BadSample(
            "no archive with CDR_TestSet.PubTator.txt", where=str(path), mend="download it again"
        ) from error


def _document(lines: list[str], where: str, kind: str) -> Sample:
    title, abstract = lines[0].split("|t|", 1), (lines[1] if len(lines) > 1 else "").split("|a|", 1)
    if len(title) != 2 or len(abstract) != 2 or title[0] != abstract[0]:
        raise BadSample("not a title line and an abstract line of one PMID", where=where, mend=_MEND)
    pmid, text = title[0], f"{title[1]} {abstract[1]}"
    mentions: dict[str, str] = {}
    for line in lines[2:]:
        cells = line.split("\t")
        if cells[0] != pmid or len(cells) < 4:
            raise BadSample("a line that is no annotation of its abstract", where=where, mend=_MEND)
        if cells[1] == "CID":
            continue
        if len(cells) < 6 or cells[4] not in ASKED or not (cells[1].isdigit() and cells[2].isdigit()):
            raise BadSample("a mention without place, text, type and identifier", where=where, mend=_MEND)
        if text[int(cells[1]) : int(cells[2])] != cells[3]:
            raise BadSample("a mention is not what stands at its place", where=where, mend=_MEND)
        if cells[4] == kind:
            mentions.setdefault(cells[3].casefold(), cells[3])
    return ask(
        sample_id=f"bc5cdr-{kind.lower()}/{pmid}",
        patient_id=f"bc5cdr/{pmid}",
        source="bc5cdr",
        licence=LICENCE,
        split="test",
        prompt=f"{title[1]}\n{abstract[1]}\nWhich {ASKED[kind]} does this text name?",
        answers=["\n".join(mentions.values()) or NONE_OF_THEM],
        kind="span",
        topic=ENTITIES,
        where=where,
        metadata={"subject": kind.lower()},
    )


def _read(folder: Path, *, kind: str) -> Iterator[Sample | BadSample]:
    path = first_file(folder, "CDR_TestSet.PubTator.txt", "**/CDR_TestSet.PubTator.txt", "**/CDR_Data.zip")
    if path is None:
        yield missing(folder, "CDR_TestSet.PubTator.txt and no CDR_Data.zip", URL)
        return
    for number, block in enumerate(_text(path).split("\n\n"), start=1):
        lines = [line.rstrip("\r") for line in block.split("\n") if line.strip()]
        if not lines:
            continue
        try:
            yield _document(lines, f"{path}:article {number}", kind)
        except BadSample as bad:
            yield bad


def _example(folder: Path) -> None:
    drugs = ("Examplamine", "fictol", "N,N-imaginol", "placebene")
    blocks = []
    for number in range(COUNT):
        pmid = str(80000000 + number)
        complaint, _, finding, _ = CASES[number % len(CASES)]
        named = [drugs[(number + place) % len(drugs)] for place in range(number % 3)]
        title = f"Invented report {number + 1} of {finding}."
        abstract = f"After {' and '.join(named) or 'no drug at all'} there was {complaint}."
        text = f"{title} {abstract}"
        lines = [f"{pmid}|t|{title}", f"{pmid}|a|{abstract}"]
        for name, kind in (*((drug, "Chemical") for drug in named), (complaint, "Disease"), (finding, "Disease")):
            start = text.index(name)
            lines.append(f"{pmid}\t{start}\t{start + len(name)}\t{name}\t{kind}\t-1")
        lines += [f"{pmid}\tCID\tD000000\tD000001"] if named else []
        blocks.append("\n".join(lines))
    (folder / "CDR_TestSet.PubTator.txt").write_text("\n\n".join(blocks) + "\n\n", encoding="utf-8")


def _task(kind: str, ids: str) -> Task:
    return Task(
        name=f"bc5cdr-{kind.lower()}",
        version=1,
        title=f"BC5CDR, {ASKED[kind]} (text)",
        about="All entities of one type in a title and abstract, as a list in the words of the text.",
        folder="bc5cdr",
        read=partial(_read, kind=kind),
        n=500,
        n_source="counted in CDR_TestSet.PubTator.txt: 500 articles, 5,385 chemical and 4,424 disease mentions",
        example=_example,
        licence=LICENCE,
        url=URL,
        citation="Li et al., Database 2016, baw068",
        ids_sha256=ids,
        hub="bigbio/bc5cdr",
        faults=(
            "Published F1 is of mentions with their places. A list has no places: here an entity is its text without "
            "regard to case and counts once an article. The two are not comparable.",
            "Composite mentions are one entity as printed; their parts do not count.",
        ),
    )


TASKS = (
    _task("Chemical", "d31f1061b2abb200c1d7644ef35ef2c9a6781db8e088dbb22c8f790a3ada0952"),
    _task("Disease", "990556cc91161f9a468ab9a137c81931f0378de493c56aa9fc9b5ceb6b33a2e6"),
)
