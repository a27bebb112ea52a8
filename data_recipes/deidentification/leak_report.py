"""What a de-identification did and what it may have missed: leaks.jsonl and report.md, with no values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.one_file import Outcome
from medvlm.data_recipes.deidentification.options import CODES, Options
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.whole_file import writing

MOST_SHOWN = 40


@dataclass(kw_only=True)
class Summary:
    """Sums over all files."""

    files: Counter[str] = field(default_factory=Counter)
    removed: Counter[tuple[str, str]] = field(default_factory=Counter)
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    possible: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.files[outcome.format] += outcome.written
        for kind, count in outcome.removed.items():
            self.removed["DICOM" if outcome.format == "dicom" else "text", kind] += count if outcome.written else 0
        for leak in outcome.leaks:
            sums = self.found if leak["certainty"] == "found" else self.possible
            sums[leak["place"], leak["kind"]] += 1
        for row in outcome.refused:
            self.refused[str(row["reason"])] += 1

    @property
    def clean(self) -> bool:
        """Nothing found, and nothing refused."""
        return not self.found and not self.refused


def write_report(
    out: Path, outcomes: Iterable[Outcome], left_out: Iterable[BadSample], options: Options, key: Key
) -> Summary:
    """Write leaks.jsonl, quarantine.jsonl and report.md into ``out``."""
    summary = Summary()
    with writing(out / "leaks.jsonl") as leaks, writing(out / "quarantine.jsonl") as quarantine:
        for outcome in outcomes:
            summary.add(outcome)
            for leak in outcome.leaks:
                leaks.write((json.dumps(leak) + "\n").encode())
            for row in outcome.refused:
                quarantine.write((json.dumps(row) + "\n").encode())
        for bad in left_out:
            summary.refused[bad.reason] += 1
            quarantine.write((json.dumps(bad.to_dict()) + "\n").encode())
    with writing(out / "report.md") as report:
        report.write(_page(summary, options, key).encode())
    return summary


def _page(summary: Summary, options: Options, key: Key) -> str:
    done = ", ".join(f"{count} {name}" for name, count in sorted(summary.files.items())) or "none"
    used = [CODES["profile"][1], *(CODES[name][1] for name in sorted(options.keep))]
    if options.boxes or options.clean_pixels != "no":
        used.append(CODES["pixels"][1])
    if options.private:
        used.append(CODES["private"][1])
    verdict = (
        "The second look found nothing. **This is no proof**: a person must review a sample."
        if not summary.found
        else f"**The second look found {sum(summary.found.values())} identifiers. Do not pass these files on.**"
    )
    parts = [
        "# De-identification report\n",
        verdict + "\n",
        f"Files written: {done}. Key check: `{key.check()}` (tells keys apart, reveals none).\n",
        "Used: " + "; ".join(used) + ".\n",
        _table("Removed, emptied, replaced or shifted", ("where", "what"), summary.removed),
        _table("Found in the output", ("place", "kind"), summary.found),
        _table("For a person to look at", ("place", "kind"), summary.possible),
        _table("Refused and left out", ("reason",), Counter({(k,): v for k, v in summary.refused.items()})),
        "Places are in `leaks.jsonl`, refused files and rows in `quarantine.jsonl`. Neither holds a value.\n",
        "Rules do not see names without a title, label or role, places, professions, rare events, handwriting, faces\n"
        "in head scans, or text that OCR cannot read. Check the law that binds you; this is not legal advice.\n",
    ]
    return "\n".join(part for part in parts if part)


def _table(title: str, heads: tuple[str, ...], counts: Mapping[Any, int]) -> str:
    if not counts:
        return ""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"## {title}\n", f"| {' | '.join(heads)} | count |", "|" + "---|" * (len(heads) + 1)]
    lines += [f"| {' | '.join(names)} | {count} |" for names, count in rows[:MOST_SHOWN]]
    if len(rows) > MOST_SHOWN:
        lines.append(f"\n{len(rows) - MOST_SHOWN} more kinds, {sum(count for _, count in rows[MOST_SHOWN:])} in all.")
    return "\n".join(lines) + "\n"
