"""Without the library ``datasets`` its rows are refused with the command that installs it; the rest is built."""

from __future__ import annotations

import importlib.util

import pytest
from own_fixtures import built, jsonl, recipe

from medvlm.data_recipes.own.build import main

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is not None, reason="only where the library datasets is not installed"
)


def test_the_command_is_named(tmp_path, capsys):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1" + bytes(20))
    jsonl(tmp_path / "rows.jsonl", [{"question": "What is a nodule?", "answer": "A round spot."}])
    ask = [{"answer": "answer", "prompt": "{question}"}]
    samples, refused = built(tmp_path, format="table", paths=["rows.parquet", "rows.jsonl"], ask=ask)
    assert len(samples) == 1 and refused == [
        "the recipe: these rows are read by the library 'datasets', which is not installed. Mend: pip install "
        "'medvlm[datasets]'"
    ]
    path = recipe(tmp_path, format="table", hub="someone/something", ask=ask)
    assert main([str(path), "--out", str(tmp_path / "hub")]) == 2
    assert "which is not installed. Mend: pip install 'medvlm[datasets]'" in capsys.readouterr().err
