"""MedQA: {train,dev,test}.jsonl with five options, 4_options/phrases_no_exclude_{train,dev,test}.jsonl with four."""

from __future__ import annotations

from pathlib import Path

from recipe_fixtures.writing import Fixture, json_lines, replace

PARTS = ("train", "dev", "test")
OPTIONS = {"A": "Rest", "B": "Water", "C": "Antibiotics", "D": "Surgery", "E": "Exercise"}


def row(part: str, options: dict[str, str]) -> dict[str, object]:
    return {
        "question": f"A synthetic patient of the {part} set has a cough. What is the best next step?",
        "answer": "Water", "options": options, "meta_info": "step2&3", "answer_idx": "B",
    }  # fmt: skip


def write(folder: Path) -> None:
    four = {letter: OPTIONS[letter] for letter in "ABCD"}
    for part in PARTS:
        json_lines(folder / f"{part}.jsonl", [row(part, OPTIONS)])
        phrases = {**row(part, four), "metamap_phrases": ["cough"]}
        json_lines(folder / "4_options" / f"phrases_no_exclude_{part}.jsonl", [phrases])


def spoil(folder: Path) -> None:
    replace(folder / "4_options" / "phrases_no_exclude_train.jsonl", '"answer_idx": "B"', '"answer_idx": "C"')
    replace(folder / "dev.jsonl", '"B": "Water"', '"F": "Water"')
    with (folder / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")


FIXTURE = Fixture(
    recipe="medqa",
    write=write,
    spoil=spoil,
    samples=6,
    refusals=(
        "{folder}/4_options/phrases_no_exclude_train.jsonl:1: answer_idx 'C' does not name the answer among 4 options. "
        "Mend: correct the row",
        "{folder}/dev.jsonl:1: 'options' must map A, B, C, ... to texts. Mend: use the file as published",
        "{folder}/test.jsonl:2: not JSON: Expecting property name enclosed in double quotes at column 2. "
        "Mend: fix the line",
    ),
)
