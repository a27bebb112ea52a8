"""A page of docs/datasets for each recipe, made from its fields: ``python -m medvlm.scripts.recipe_table --pages``."""

from __future__ import annotations

from pathlib import Path

from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes import RECIPES

MADE = "<!-- Made from the recipe by python -m medvlm.scripts.recipe_table --pages docs/datasets; edit the recipe. -->"
UNMEASURED = (
    "Published files were not at hand: the recipe is tested on made-up content in this layout, so read the refusals of "
    "your first walk with care."
)


def page_of(recipe: Recipe) -> str:
    """What a person must know before using a dataset, as Markdown."""
    facts = (
        ("version", recipe.version),
        ("licence", recipe.licence),
        ("access", f"<{recipe.url}>"),
        ("cite", recipe.citation),
    )
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            MADE,
            "",
            recipe.about,
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value.replace('|', '/')} |" for name, value in facts),
            "",
            "Nothing is downloaded for you: get the files at the address under access, and accept the terms yourself.",
            "",
            "## Files",
            "",
            "```text",
            recipe.layout,
            "```",
            "",
            "## Build",
            "",
            "```bash",
            "medvlm data walk FOLDER --out data    # FOLDER holds these files, or any folder above them",
            "```",
            "",
            "## Questions",
            "",
            *(f"- {item}" for item in recipe.questions),
            "",
            "## Known faults of the published files",
            "",
            *(f"- {item}" for item in recipe.faults),
            "",
            "## Measured",
            "",
            recipe.measured or UNMEASURED,
            "",
        ]
    )


def index() -> str:
    """docs/datasets/README.md: a line for each page."""
    rows = [f"| [{recipe.name}]({recipe.name}.md) | {_first_sentence(recipe.about)} |" for recipe in RECIPES]
    return "\n".join(["# Datasets", "", MADE, "", "| dataset | what it is |", "|---|---|", *rows, ""])


def _first_sentence(text: str) -> str:
    sentence, stop, _ = text.partition(". ")
    return (sentence + stop.strip()).replace("|", "/")


def pages() -> dict[str, str]:
    """File name -> content of every page of docs/datasets."""
    return {"README.md": index(), **{f"{recipe.name}.md": page_of(recipe) for recipe in RECIPES}}


def write_pages(folder: Path) -> None:
    """Write every page, and remove pages made for recipes that are no more."""
    wanted = pages()
    for name, content in wanted.items():
        write_atomic(folder / name, content)
    for path in folder.glob("*.md"):
        if path.name not in wanted and MADE in path.read_text(encoding="utf-8"):
            path.unlink()
