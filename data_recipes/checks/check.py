"""Check manifests before a training: a page with pictures and a verdict, the findings, and the rows to leave out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medvlm.data_recipes.checks.catalogue import manifests_in
from medvlm.data_recipes.checks.copies import NEAR
from medvlm.data_recipes.checks.finding import CHECKS, Finding
from medvlm.data_recipes.checks.lengths import Budget
from medvlm.data_recipes.checks.near import MOST
from medvlm.data_recipes.checks.page import write_page
from medvlm.data_recipes.checks.private import Private
from medvlm.data_recipes.checks.sides import AUGMENTATIONS, augmentations_of
from medvlm.data_recipes.checks.survey import Plan, Survey
from medvlm.data_recipes.checks.texts import WORDS
from medvlm.data_recipes.deidentification.pixels import available
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.one_writer import one_writer
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.loading import load_processor

EXAMPLES, PICTURES = 40, 12
"""Findings of a check, and different visuals of it, that the page shows; all stand in findings.jsonl."""


class Tally:
    """Counts findings as they are written, and keeps some of each check for the page.

    ``shown`` holds the first finding of each visual (or pair of visuals) with the number of rows that show it.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.examples: dict[str, list[Finding]] = defaultdict(list)
        self.shown: dict[str, dict[tuple[str, ...], tuple[Finding, int]]] = defaultdict(dict)

    def lines(self, findings: Iterator[Finding]) -> Iterator[str]:
        """JSON lines of ``findings``."""
        for finding in findings:
            self.counts[finding.check][finding.severity] += 1
            self._keep_visual(finding)
            # Errors push warnings and notes off the page, not the other way round.
            kept = self.examples[finding.check]
            if len(kept) < EXAMPLES:
                kept.append(finding)
            elif finding.severity == "error":
                weak = next((n for n, one in enumerate(kept) if one.severity != "error"), None)
                if weak is not None:
                    kept[weak] = finding
            yield json.dumps(finding.to_dict(), ensure_ascii=False) + "\n"

    def _keep_visual(self, finding: Finding) -> None:
        key = tuple(ref.path for ref in (finding.visual, finding.other) if ref is not None)
        shown = self.shown[finding.check]
        if key in shown:
            shown[key] = (shown[key][0], shown[key][1] + 1)
        elif key and len(shown) < PICTURES:
            shown[key] = (finding, 1)

    def total(self, severity: str) -> int:
        return sum(counts[severity] for counts in self.counts.values())


def run(plan: Plan) -> dict[str, Any]:
    """Make all checks and write index.html, findings.jsonl, quarantine.jsonl and summary.json into ``plan.out``.

    Returns:
        The summary; "verdict" is "pass" or "fail".

    Raises:
        BadSample: a manifest is missing.
    """
    began = time.monotonic()
    survey, tally = Survey(plan), Tally()
    write_atomic(plan.out / "findings.jsonl", tally.lines(survey.findings()))
    left_out: set[str] = set()
    write_atomic(plan.out / "quarantine.jsonl", _quarantine(plan.out / "findings.jsonl", left_out))
    summary: dict[str, Any] = {
        "verdict": "fail" if tally.total("error") else "pass",
        "errors": tally.total("error"),
        "warnings": tally.total("warning"),
        "notes": tally.total("note"),
        "rows": dict(survey.rows),
        "visuals": len(survey.visuals),
        "quarantined": len(left_out),
        "checks": {name: dict(tally.counts[name]) for name in CHECKS if name in tally.counts},
        "not_run": survey.not_run(),
        "manifests": [str(path) for path in survey.catalogue.manifests],
        "settings": {"near_bits": plan.distance, "ngram_words": plan.words, "augmentations": list(plan.augmentations)},
        "seconds": round(time.monotonic() - began, 1),
    }
    write_page(plan.out / "index.html", survey, summary, tally.examples, tally.shown)
    write_atomic(plan.out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


def _quarantine(findings: Path, left_out: set[str]) -> Iterator[str]:
    """One line per row to leave out, with the first reason."""
    with findings.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["quarantine"] and row["where"] not in left_out:
                left_out.add(row["where"])
                kept = {name: row[name] for name in ("where", "reason", "mend", "sample_id")}
                yield json.dumps({**kept, "check": row["check"]}, ensure_ascii=False) + "\n"


def _show(summary: dict[str, Any], out: Path) -> None:
    table = Table("check", "errors", "warnings", "notes", title=f"{summary['verdict'].upper()}: {out / 'index.html'}")
    for name, counts in summary["checks"].items():
        table.add_row(name, *(str(counts.get(severity, 0) or "") for severity in ("error", "warning", "note")))
    console = Console()
    console.print(table)
    rows = ", ".join(f"{part} {count}" for part, count in summary["rows"].items())
    console.print(f"rows: {rows}; visuals {summary['visuals']}; to leave out {summary['quarantined']}")
    for name, why in summary["not_run"].items():
        console.print(f"not checked: {name} ({why})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medvlm data check", description=__doc__)
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="manifests, or folders that hold them")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page, findings and journals")
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="MANIFEST", help="further test sets")
    parser.add_argument("--root", type=Path, help="folder of relative paths (default: that of each manifest)")
    names = ", ".join(AUGMENTATIONS)
    parser.add_argument("--augmentation", default="", help=f"planned: {names}; or a YAML file that lists them")
    parser.add_argument("--processor", help="checkpoint whose processor measures tokens and patches")
    parser.add_argument("--tokens-per-pack", type=int, help="budget, with --processor")
    parser.add_argument("--patches-per-pack", type=int, help="budget, with --processor")
    parser.add_argument("--near-bits", type=int, default=NEAR, help="bits of 256 in which near-duplicates may differ")
    parser.add_argument("--ngram-words", type=int, default=WORDS, help="words of an n-gram")
    parser.add_argument("--ocr", action="store_true", help="read text in pixels (seconds for each visual)")
    parser.add_argument("--allow-official", action="store_true", help="only warn about a published split's patients")
    parser.add_argument("--workers", type=int, default=1, help="processes that read visuals")
    parser.add_argument("--progress", action="store_true", help="show the bar although this is no terminal")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    """Raises BadSample or BadConfig: what is asked for cannot be done."""
    manifests = manifests_in(given.paths)
    if any(manifest.resolve().parent == given.out.resolve() for manifest in manifests):
        raise BadConfig(
            "the folder holds the manifests, whose quarantine.jsonl and summary.json would be overwritten",
            where=f"--out {given.out}",
            mend="give a folder of its own",
        )
    if not 0 <= given.near_bits <= MOST or given.ngram_words < 1 or given.workers < 1:
        raise BadConfig(
            "a number is out of range", where="the command line",
            mend=f"use 0 to {MOST} for --near-bits, and 1 or more for --ngram-words and --workers",
        )  # fmt: skip
    if given.processor is not None:
        try:
            load_processor(given.processor)
        except (OSError, ValueError) as error:
            raise BadConfig(
                f"no processor can be loaded ({error})",
                where=f"--processor {given.processor}",
                mend="name a checkpoint",
            ) from error
    missing = available() if given.ocr else None
    if missing is not None:
        raise BadConfig(missing, where="--ocr", mend="install it, or leave --ocr out")
    return Plan(
        manifests=tuple(manifests),
        registered=tuple(manifests_in(given.against)),
        root=given.root,
        out=given.out,
        augmentations=augmentations_of(given.augmentation) if given.augmentation else (),
        processor=given.processor,
        budget=Budget(tokens=given.tokens_per_pack, patches=given.patches_per_pack),
        distance=given.near_bits,
        words=given.ngram_words,
        private=Private(pixels=given.ocr),
        allow_official=given.allow_official,
        workers=given.workers,
        progress=given.progress or sys.stderr.isatty(),
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when no error was found, 1 when one was, 2 when the request is refused, 130 when stopped."""
    given = _parser().parse_args(arguments)
    try:
        plan = _plan(given)
        with one_writer(plan.out / ".lock"):
            summary = run(plan)
    except (BadSample, BadConfig) as bad:
        print(f"medvlm data check: {bad}", file=sys.stderr)
        return 2
    except OSError as error:
        # A manifest that cannot be opened, an output that cannot be written, a full disk.
        print(f"medvlm data check: {error}; run the same command again to go on", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"stopped; what was read stands in {given.out / 'visuals.jsonl'}: run the same command again to go on",
            file=sys.stderr,
        )
        return 130
    except BrokenProcessPool:
        print(
            "medvlm data check: a process that read files was killed (out of memory?); run the same command "
            "again, with fewer --workers, to go on",
            file=sys.stderr,
        )
        return 1
    _show(summary, given.out)
    return 1 if summary["errors"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
