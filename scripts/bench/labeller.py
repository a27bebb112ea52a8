"""The rule labeller against real reports: precision, recall and F1 of each finding, errors by kind, reports per second.

    python -m medvlm.scripts.bench.labeller FOLDER/NLMCXR_reports [--negbio CSV] [--rad-restruct FOLDER] [--covid CSV]

The rules were written on the reports with an even number and frozen before the odd ones were read: docs/labeller.md,
which also tells what each MeSH tag stands for. No text of a report is printed unless --errors asks for it.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvlm.data_recipes.manifest import write_atomic
from medvlm.eval.intervals import clustered, micro_f1, wilson
from medvlm.eval.scorers.chexpert_labels import NO_FINDING, finding_of, present_in, states_of
from medvlm.eval.scorers.finding_terms import FINDINGS, NAMES
from medvlm.eval.scorers.labeller import label_sentence, statements
from medvlm.scripts.bench.labeller_references import (
    Reference,
    Tagged,
    from_tags,
    read_negbio,
    read_open_i,
    read_rad_restruct,
)

HALVES: Mapping[str, Callable[[int], bool]] = {
    "even (the rules were written on it)": lambda number: number % 2 == 0,
    "odd (the test half)": lambda number: number % 2 == 1,
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One finding of one report that the labeller and the reference do not agree on."""

    number: int
    finding: str
    missed: bool
    why: str


def compare(
    reports: Sequence[Tagged], references: Mapping[int, Reference], *, doubt: bool
) -> tuple[dict[str, Counter[str]], list[Cell], np.ndarray]:
    """Counts (hit, invented, missed, neither, open) of each finding, the errors, and (N, 3) counts of each report."""
    counts: dict[str, Counter[str]] = {finding: Counter() for finding in FINDINGS}
    errors: list[Cell] = []
    rows: list[list[int]] = []
    for report in reports:
        reference = references.get(report.number)
        if reference is None:
            continue
        written = present_in(states_of(report.text), doubt=doubt)
        row = [0, 0, 0]
        for finding in FINDINGS:
            if finding in reference.open:
                counts[finding]["open"] += 1
                continue
            there, said = finding in reference.present, finding in written
            outcome = ("neither", "invented", "missed", "hit")[2 * there + said]
            counts[finding][outcome] += 1
            if outcome != "neither":
                row[("hit", "invented", "missed").index(outcome)] += 1
            if there != said:
                errors.append(
                    Cell(number=report.number, finding=finding, missed=there, why=_why(report, finding, there))
                )
        rows.append(row)
    return counts, errors, np.array(rows, dtype=float)


def _why(report: Tagged, finding: str, missed: bool) -> str:
    """The kind of an error, as far as a rule can tell it; docs/labeller.md has what a reader made of them."""
    about = [one.present for one in statements(report.text) if finding_of(one) == finding]
    if not missed:
        return "in doubt in the text, not tagged" if True not in about else "stated in the text, not tagged"
    if None in about:
        return "in doubt in the text, tagged"
    if False in about:
        return "denied in the text, tagged"
    stems = {need for term in NAMES if term.finding == finding for need in term.needs}
    if any(stem in report.text.lower() for stem in stems):
        return "tagged, and a stem of it stands in the text: wording or scope"
    return "tagged, not in the text in words that the rules know"


def _share(part: int, whole: int) -> str:
    if not whole:
        return "none"
    low, high = wilson(part, whole)
    return f"{part / whole:.2f} ({low:.2f} to {high:.2f})"


def _f1(hit: int, invented: int, missed: int) -> float | None:
    total = 2 * hit + invented + missed
    return 2 * hit / total if total else None


def table(counts: Mapping[str, Counter[str]], rows: np.ndarray) -> tuple[list[str], dict[str, float | None]]:
    """Lines of a Markdown table with a last row for all findings, and its numbers."""
    lines = [
        "| finding | in the reference | hit | invented | missed | left open | precision (95 %) | recall (95 %) | F1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    f1s: list[float] = []
    for finding, found in [*counts.items(), ("all, micro", total)]:
        hit, invented, missed = found["hit"], found["invented"], found["missed"]
        f1 = _f1(hit, invented, missed)
        lines.append(
            f"| {finding} | {hit + missed} | {hit} | {invented} | {missed} | {found['open']} | "
            f"{_share(hit, hit + invented)} | {_share(hit, hit + missed)} | {'none' if f1 is None else f'{f1:.3f}'} |"
        )
        total.update(found)
        if hit + missed and finding in FINDINGS:
            f1s.append(f1 or 0.0)
    estimate = clustered(rows, [str(place) for place in range(len(rows))], micro_f1)
    numbers = {"micro_f1": estimate.value, "low": estimate.low, "high": estimate.high, "macro_f1": float(np.mean(f1s))}
    absent = [finding for finding, found in counts.items() if not found["hit"] + found["missed"]]
    lines.append("")
    lines.append(
        f"Micro-F1 {estimate.value:.3f} (95 % {estimate.low:.3f} to {estimate.high:.3f}, bootstrap over {len(rows)} "
        f"reports); macro-F1 {numbers['macro_f1']:.3f} over the {len(f1s)} findings that the reference has"
        + (f" (without {', '.join(absent)})." if absent else ".")
    )
    return lines, numbers


def speed(texts: Sequence[str], *, repeats: int = 5) -> tuple[float, float]:
    """Reports per second: with nothing looked up, and with sentences looked up that were seen before."""
    cold = warm = 0.0
    for _ in range(repeats):
        label_sentence.cache_clear()
        for cached in (False, True):
            start = time.perf_counter()
            for text in texts:
                if not cached:
                    label_sentence.cache_clear()
                statements.__wrapped__(text)
            rate = len(texts) / (time.perf_counter() - start)
            cold, warm = (max(cold, rate), warm) if not cached else (cold, max(warm, rate))
    return cold, warm


def covid(path: Path) -> list[str]:
    """Notes of the COVID-19 image collection (Cohen et al. 2020), each note once, against its column "finding"."""
    notes: dict[str, set[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["clinical_notes"].strip():
                notes.setdefault(row["clinical_notes"], set()).add(row["finding"])
    lung = {"Lung Opacity", "Consolidation", "Pneumonia"}
    ill = well = named = clear = 0
    for note, findings in notes.items():
        if findings & {"todo", ""} or len(findings) > 1:
            continue
        said = present_in(states_of(note), doubt=True)
        if findings == {"No Finding"}:
            well += 1
            clear += NO_FINDING in said
        else:
            ill += 1
            named += bool(said & lung)
    return [
        f"Notes with a pneumonia of any cause: {ill}; opacity, consolidation or pneumonia is found in "
        f"{_share(named, ill)}. Notes with No Finding: {well}; nothing is found in {_share(clear, well)}."
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the XML reports of Open-i (NLMCXR_reports)")
    parser.add_argument("--half", choices=("even", "odd", "both"), default="both")
    parser.add_argument("--negbio", type=Path, help="examples/openi_gld_std14.csv of ncbi-nlp/NegBio")
    parser.add_argument("--rad-restruct", type=Path, help="data/radrestruct/new_reports of ChantalMP/Rad-ReStruct")
    parser.add_argument("--covid", type=Path, help="metadata.csv of the covid-chestxray-dataset")
    parser.add_argument("--errors", action="store_true", help="also print where they differ: number, finding, kind")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    asked = parser.parse_args(argv)
    reports = read_open_i(asked.folder)
    references: dict[str, dict[int, Reference]] = {
        "MeSH tags": {one.number: tags for one in reports if (tags := from_tags(one.tags)) is not None}
    }
    if asked.negbio is not None:
        references["NegBio's table"] = read_negbio(asked.negbio)
    if asked.rad_restruct is not None:
        references["Rad-ReStruct"] = read_rad_restruct(asked.rad_restruct, [one.number for one in reports])
    written: dict[str, dict[str, float | None]] = {}
    for name, of_all in references.items():
        for half, belongs in HALVES.items():
            if asked.half not in ("both", half.split()[0]):
                continue
            some = [one for one in reports if belongs(one.number)]
            for doubt in (True, False):
                title = f"{name}, {half}, what is in doubt counts as {'present' if doubt else 'absent'}"
                counts, errors, rows = compare(some, of_all, doubt=doubt)
                lines, written[title] = table(counts, rows)
                print(f"\n### {title}\n")
                print("\n".join(lines))
                kinds = Counter((cell.missed, cell.why) for cell in errors)
                for (missed, why), n in sorted(kinds.items(), key=lambda item: -item[1]):
                    print(f"- {'missed' if missed else 'invented'}, {why}: {n}")
                if asked.errors:
                    for cell in errors:
                        print(f"  {cell.number} {cell.finding}: {'missed' if cell.missed else 'invented'}, {cell.why}")
    normal = [one for one in reports if one.tags == ("normal",)]
    clear = sum(NO_FINDING in present_in(states_of(one.text), doubt=True) for one in normal)
    print(f"\nReports tagged normal: {len(normal)}; labelled No Finding: {_share(clear, len(normal))}")
    if asked.covid is not None:
        print("\n".join(covid(asked.covid)))
    cold, warm = speed([one.text for one in reports])
    print(f"{cold:.0f} reports a second, {warm:.0f} where their sentences were seen before (one core)")
    if asked.out is not None:
        write_atomic(asked.out, json.dumps({**written, "reports_per_second": {"cold": cold, "warm": warm}}, indent=1))


if __name__ == "__main__":
    main()
