"""A recipe for your own data -> manifests whose every visual has been read, and a list of what cannot be used and why.

medvlm data build RECIPE.yaml --out DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.pipeline import build
from medvlm.data_recipes.own.settings import load_filled
from medvlm.data_recipes.typed_yaml import BadConfig

SHOWN = 5
"""Reasons of refusal that are shown; quarantine.jsonl has all of them."""


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 every row came out, 1 some are quarantined, none came out or it was stopped, 2 refused."""
    parser = argparse.ArgumentParser(prog="medvlm data build", description=__doc__)
    parser.add_argument("recipe", type=Path, help="YAML file; medvlm data init FOLDER writes one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the manifests")
    parser.add_argument("--workers", type=int, default=1, help="processes that read visuals")
    parser.add_argument("--limit", type=int, help="look at this many rows only, to try a recipe")
    parser.add_argument("--progress", action="store_true", help="show the bar although this is no terminal")
    given = parser.parse_args(arguments)
    if given.workers < 1 or (given.limit is not None and given.limit < 1):
        parser.error("--workers and --limit must be at least 1")
    try:
        filled = load_filled(given.recipe)
        counts = build(
            filled,
            given.out,
            workers=given.workers,
            limit=given.limit,
            progress=given.progress or sys.stderr.isatty(),
        )
    except (BadConfig, BadSample) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        # An output that cannot be written, a full disk: what a visual has, its row is refused for.
        print(f"medvlm data build: {error}; no manifest was changed. The same command goes on.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Stopped; no manifest was changed. The same command goes on: what was read is not read again.",
            file=sys.stderr,
        )
        return 1
    _show(counts, given.out)
    return 0 if counts["samples"] and not counts["quarantined"] else 1


def _show(counts: dict, out: Path) -> None:
    console = Console()
    table = Table("source", "train", "validation", "test", "quarantined", title=f"written to {escape(str(out))}")
    for source, row in counts["by_source"].items():
        table.add_row(escape(source), *(str(row[name]) for name in ("train", "validation", "test", "quarantined")))
    console.print(table)
    names = ("rows", "samples", "images", "volumes", "videos", "quarantined")
    console.print(", ".join(f"{name} {counts[name]}" for name in names))
    if counts["quarantined"]:
        first = _first_of_each(out / "quarantine.jsonl")
        console.print(f"quarantine.jsonl tells why each was refused; {'these' if len(first) > 1 else 'this'} first:")
        for line in first:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    for split in ("train", "test"):
        if counts["samples"] and not any(row[split] for row in counts["by_source"].values()):
            console.print(f"No sample is in {split}: see split in the recipe.", style="yellow")


def _first_of_each(path: Path) -> list[str]:
    """One refusal of each mend, with how many there are."""
    seen: Counter[str] = Counter()
    first: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            bad = json.loads(line)
            seen[bad["mend"]] += 1
            first.setdefault(bad["mend"], f"{bad['where']}: {bad['reason']}. Mend: {bad['mend']}")
    return [f"{count} x {first[mend]}" for mend, count in seen.most_common(SHOWN)]


if __name__ == "__main__":
    raise SystemExit(main())
