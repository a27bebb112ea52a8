"""MEDEC-MS: is there a medical error in a clinical text, and in which sentence? A JSON object for each of 597 texts.

Ben Abacha et al., Findings of ACL (2025); the task of MEDIQA-CORR 2024. Read from the authors'
MEDEC-MS-TestSet-with-GroundTruth-and-ErrorType.csv: Text ID, Text, Sentences (one a line, with its number), Error Flag,
Error Type, Error Sentence ID (-1: none), ... The corrected sentence is not asked here.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.tables import Row, read_csv
from medvlm.eval.task import Task
from medvlm.eval.tasks.examination import all_of, first_file, missing
from medvlm.eval.tasks.made_up import CASES, COUNT

SOURCE, LICENCE = "medec-ms", "CC BY 4.0"
URL = "https://github.com/abachaa/MEDEC"
COLUMNS = ("Text ID", "Sentences", "Error Flag", "Error Type", "Error Sentence ID")
PROMPT = (
    "Each sentence of this clinical text has a number. The text is right, or one sentence holds a medical error (of "
    'diagnosis, management, treatment, drug or organism). Give "error": true or false, and "sentence": the number of '
    "the sentence with the error, or -1."
)
_NUMBERED = re.compile(r"^(\d+) ", re.MULTILINE)


def _make(row: Row) -> Sample:
    name, flag, sentence = row.text("Text ID"), row.text("Error Flag"), row.text("Error Sentence ID")
    text = str(row.values["Sentences"]).replace("\r\n", "\n").replace("\r", "\n").strip()
    numbers = set(_NUMBERED.findall(text))
    wrong = flag == "1"
    if flag not in ("0", "1") or (sentence not in numbers if wrong else sentence != "-1"):
        raise BadSample(
            f"error flag {flag} does not go with sentence {sentence}",
            where=row.where,
            mend="use the table as published",
        )
    return ask(
        sample_id=f"{SOURCE}/{name}",
        patient_id=f"{SOURCE}/{name}",
        source=SOURCE,
        licence=LICENCE,
        split="test",
        prompt=f"{text}\n\n{PROMPT}",
        answers=[json.dumps({"error": wrong, "sentence": int(sentence)})],
        kind="json",
        topic="error",
        where=row.where,
        metadata={"subject": row.text("Error Type") if wrong else "none"},
    )


def read(folder: Path) -> Iterator[Sample | BadSample]:
    """The test texts in ``folder``."""
    path = first_file(folder, "MEDEC-MS-TestSet*.csv", "MEDEC-MS/MEDEC-MS-TestSet*.csv")
    if path is None:
        yield missing(folder, "MEDEC-MS/MEDEC-MS-TestSet-with-GroundTruth-and-ErrorType.csv", URL)
        return
    yield from all_of(read_csv(path, required=COLUMNS), _make)


def example(folder: Path) -> None:
    place = folder / "MEDEC-MS"
    place.mkdir()
    path = place / "MEDEC-MS-TestSet-with-GroundTruth-and-ErrorType.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["Text ID", "Text", "Sentences", "Error Flag", "Error Type", "Error Sentence ID", "Error Sentence",
             "Corrected Sentence", "Corrected Text"]
        )  # fmt: skip
        for number in range(COUNT):
            complaint, organ, finding, _ = CASES[number % len(CASES)]
            sentences = [
                f"Invented patient {number + 1} has {complaint}.",
                f"There is {finding} in {organ}.",
                "Rest is advised.",
            ]
            wrong = number % 3 - 1 if number % 2 else -1
            listed = "\r\n".join(f"{place} {sentence}" for place, sentence in enumerate(sentences))
            kind = "diagnosis" if wrong >= 0 else "NA"
            writer.writerow(
                [f"ms-test-{number}", " ".join(sentences), listed, int(wrong >= 0), kind, wrong, "", "", ""]
            )
        # The published table ends with hundreds of empty rows.
        for _ in range(5):
            writer.writerow([""] * 9)


TASKS = (
    Task(
        name="medec-ms",
        version=1,
        title="MEDEC-MS, errors in clinical texts (JSON)",
        about="Error or not, and its sentence, as a JSON object: the error flag and error sentence of MEDIQA-CORR.",
        folder="medec",
        read=read,
        n=597,
        n_source="README of the authors; counted in their test table (311 with an error, 286 without)",
        example=example,
        licence=LICENCE,
        url=URL,
        citation="Ben Abacha et al., Findings of ACL (2025), 22539-22550",
        ids_sha256="719679dcdb99b8597a16cc4a9252d1a5325b370df593e52807b40d4d3861c05b",
        faults=(
            "The test table has 925 rows, of which 328 are empty: places of the UW texts, which need an agreement. "
            "Published figures of the whole test set are of 925 texts, not of these 597.",
            "311 of 597 texts hold an error: a constant true scores 52.1 % on the flag.",
            "The authors' scripts count the sentence of a text without error as right when -1 is given, as here.",
        ),
    ),
)
