"""Look at a folder of your own data and write the recipe for it, ready to edit.

medvlm data init FOLDER, then fill in two lines, then medvlm data build RECIPE.yaml --out DIR
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.own.guess import guess
from medvlm.data_recipes.own.guess_studies import guess_studies
from medvlm.data_recipes.own.look import Found, Table, look
from medvlm.data_recipes.own.private import examples
from medvlm.data_recipes.own.write_recipe import recipe_of_rows, recipe_of_studies
from medvlm.data_recipes.recipes import RECIPES

MEANING = {
    "picture": "images (PNG, JPEG, TIFF, ...)",
    "dicom": "DICOM files",
    "nifti": "volumes (NIfTI and its kin)",
    "array": "NPY arrays",
    "clip": "clips",
    "table": "files with rows (JSON, CSV, Parquet)",
    "text": "other texts",
    "other": "other files",
}


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 a recipe was written, 1 but files cannot be read, 2 there is none to write."""
    parser = argparse.ArgumentParser(prog="medvlm data init", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with your images and your table, JSON or reports")
    parser.add_argument("--out", type=Path, default=Path("recipe.yaml"), help="the recipe to write")
    parser.add_argument("--force", action="store_true", help="overwrite the recipe that is there")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder; give the folder that holds the files")
    if not os.access(given.folder, os.R_OK | os.X_OK):
        parser.error(f"{given.folder} cannot be listed; check its permissions")
    if given.out.exists() and not given.force:
        parser.error(f"{given.out} is there already; choose another --out, or --force to overwrite it")
    root = given.folder.resolve()
    found = look(root)
    console = Console()
    _show_files(found, console)
    known = [recipe.name for recipe in RECIPES if recipe.matches(root)]
    if known:
        said = (
            f"This is the published layout of {', '.join(known)}: medvlm data walk FOLDER --out data reads it as it is."
        )
        console.print(said, style="yellow")
    for bad in found.unread:
        print(bad, file=sys.stderr)
    text = _recipe(found, given.out.resolve().parent, console)
    if text is None:
        return 2
    try:
        write_atomic(given.out, text)
    except OSError as error:
        parser.error(f"{given.out} cannot be written ({error.strerror}); choose another --out")
    console.print(f"\nWritten: {escape(str(given.out))}. Fill in the lines marked >>> FILL IN, then:", soft_wrap=True)
    print(f"  medvlm data build {given.out} --out data")
    return 1 if found.unread else 0


def _recipe(found: Found, home: Path, console: Console) -> str | None:
    tables = [table for table in found.tables if table.rows]
    guesses = [(table, guess((table,), found.visuals)) for table in tables]
    # A table whose rows name files that are there, or hold conversations, says more than the headers of DICOM files.
    fitting = [table for table, one in guesses if "images" in one.why or one.format != "table"]
    if found.dicom and not fitting:
        studies = guess_studies(found)
        console.print(f"Reports of the DICOM studies: {escape(studies.why)}.")
        return recipe_of_studies(found, studies, home)
    chosen = fitting[0] if fitting else (tables[0] if tables else None)
    if chosen is None:
        print(
            "No file here has rows (JSON, CSV, Parquet), and there are no DICOM files with reports. "
            "For questions that the files answer themselves: medvlm data walk FOLDER --out data",
            file=sys.stderr,
        )
        return None
    alike = tuple(sorted((t for t in tables if _alike(t, chosen)), key=lambda table: table.path))
    guessed = guess(alike, found.visuals)
    _show_columns(chosen, console)
    others = [table.path.name for table in tables if table not in alike]
    if others:
        console.print(f"Not in this recipe, because their columns differ: {escape(', '.join(others[:10]))}.")
    return recipe_of_rows(found, alike, guessed, home)


def _alike(table: Table, chosen: Table) -> bool:
    same = (table.kind, table.encoding, table.delimiter) == (chosen.kind, chosen.encoding, chosen.delimiter)
    return same and set(table.columns) == set(chosen.columns)


def _show_files(found: Found, console: Console) -> None:
    shown = Shown("files", "what they are, by content", title=escape(str(found.root)))
    for kind, meaning in MEANING.items():
        if found.files[kind]:
            shown.add_row(str(found.files[kind]), meaning)
    console.print(shown)
    if found.more:
        console.print("There are more files, which were not looked at.")


def _show_columns(table: Table, console: Console) -> None:
    shown = Shown("column", "filled", "values that several rows share", title=escape(table.path.name))
    for name in table.columns:
        values = [row.get(name) for row in table.rows]
        filled = sum(value not in (None, "", []) for value in values)
        some = examples(name, values)
        shown.add_row(escape(name), f"{filled}/{len(values)}", escape(" | ".join(some)) if some else "(not shown)")
    console.print(shown)


if __name__ == "__main__":
    raise SystemExit(main())
