"""Documents made from the recipes: ``--write docs/data.md`` its table, ``--pages docs/datasets`` a page for each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.recipes import RECIPES
from medvlm.scripts.dataset_pages import write_pages
from medvlm.scripts.marked_page import with_block

BEGIN, END = "<!-- recipes:begin -->", "<!-- recipes:end -->"


def recipe_table() -> str:
    """A row of Markdown for each recipe: name, version, licence, where to get it, what to cite."""
    rows = ["| dataset | version | licence | access | cite |", "|---|---|---|---|---|"]
    for recipe in RECIPES:
        cells = (
            f"[`{recipe.name}`](datasets/{recipe.name}.md)",
            recipe.version,
            recipe.licence,
            f"<{recipe.url}>",
            recipe.citation,
        )
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows)


def with_table(page: str, table: str) -> str:
    """``page`` with ``table`` between the two markers.

    Raises:
        ValueError: the markers are not both there, once and in order.
    """
    return with_block(page, BEGIN, END, table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m medvlm.scripts.recipe_table", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table in this page; else print it")
    parser.add_argument("--pages", type=Path, metavar="FOLDER", help="write a page for each recipe into this folder")
    options = parser.parse_args(arguments)
    if options.write is None and options.pages is None:
        print(recipe_table())
        return 0
    try:
        if options.write is not None:
            write_atomic(options.write, with_table(options.write.read_text(encoding="utf-8"), recipe_table()))
        if options.pages is not None:
            write_pages(options.pages)
    except (OSError, ValueError) as error:
        print(f"recipe_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
