"""The examples of docs/own-data.md are built as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from own_fixtures import built, picture, said

from medvlm.data_recipes.own.settings import load_recipe

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")


def example(heading: str, language: str) -> str:
    section = PAGE.split(f"### {heading}\n")[1].split("\n## ")[0]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["llava", "messages", "preferences"])
def test_rows_of_the_page(name, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps(json.loads(example(name, "json"))) + "\n")
    samples, refused = built(tmp_path, format=name, paths=["rows.jsonl"])
    assert refused == [] and said(samples[0])[0][1][0] == "<image a.png>"


def test_the_table_of_the_page(tmp_path):
    picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "rows.csv").write_text(example("table", "text"), encoding="cp1252")
    path = tmp_path / "page.yaml"
    path.write_text(example("table", "yaml"))
    recipe = load_recipe(path)
    assert [one.kind for one in recipe.ask] == ["vqa", "closed", "report"]
    samples, refused = built(
        tmp_path, format="table", paths=list(recipe.paths), delimiter=recipe.delimiter, encoding=recipe.encoding,
        images=recipe.images, patient={"column": "patient"}, fields={"visuals": ["file"]},
        ask=[{"answer": "answer", "prompt": "{question}", "kind": "vqa"}],
    )  # fmt: skip
    assert refused == [] and [s.turns[-1].text for s in samples] == ["yes", "left"]
