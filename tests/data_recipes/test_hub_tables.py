"""Snapshots of the hub: rows in order, pictures written once, parts of a split refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.hub_tables import PICTURES, card_name, parquet_of, place_of, read_split

arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PNG = b"\x89PNG\r\n\x1a\n"


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


def image(content: bytes) -> dict:
    return {"bytes": PNG + content, "path": None}


def test_rows_keep_their_order_over_files_and_pictures_are_written_once(tmp_path):
    for part in range(2):
        rows = [{"image": image(bytes([number % 3])), "question": f"q{part}{number}"} for number in range(40)]
        write(tmp_path / "data" / f"test-0000{part}-of-00002.parquet", rows)
    read = list(read_split(tmp_path, "test", required=("image", "question")))
    assert [row.values["question"] for row in read] == [f"q{p}{n}" for p in range(2) for n in range(40)]
    assert [row.number for row in read] == list(range(1, 81))
    files = {row.values["image"] for row in read}
    assert len(files) == 3 == len(list((tmp_path / PICTURES).rglob("*.png")))
    assert Path(read[0].values["image"]).read_bytes() == PNG + b"\0"
    before = {path: path.stat().st_mtime_ns for path in map(Path, files)}
    list(read_split(tmp_path, "test", required=("image",)))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_picture_may_be_a_path_or_missing(tmp_path):
    rows = [{"image": {"bytes": None, "path": "a.png"}}, {"image": {"bytes": None, "path": None}}]
    write(tmp_path / "test.parquet", rows)
    first, second = read_split(tmp_path, "test", required=())
    assert first.values["image"] == str((tmp_path / "a.png").resolve()) and second.values["image"] is None


def test_a_part_of_a_split_is_refused(tmp_path):
    write(tmp_path / "data" / "test-00000-of-00003.parquet", [{"question": "q"}])
    with pytest.raises(BadSample, match="1 of 3 files of the split are here"):
        list(read_split(tmp_path, "test", required=()))


def test_a_missing_column_and_a_damaged_file_are_named(tmp_path):
    path = write(tmp_path / "data" / "test.parquet", [{"question": "q"}])
    with pytest.raises(BadSample, match="column 'answer' is missing"):
        list(read_split(tmp_path, "test", required=("question", "answer")))
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(BadSample, match="not a readable Parquet file"):
        list(read_split(tmp_path, "test", required=()))


def test_without_pyarrow_the_mend_is_said(tmp_path, monkeypatch):
    write(tmp_path / "test.parquet", [{"question": "q"}])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(BadSample, match="pip install pyarrow"):
        list(read_split(tmp_path, "test", required=()))


def test_places_and_cards(tmp_path):
    assert place_of(tmp_path, "test.json") is None and card_name(tmp_path) is None
    (tmp_path / "Unpacked").mkdir()
    (tmp_path / "Unpacked" / "test.json").write_text("[]")
    assert place_of(tmp_path, "test.json") == tmp_path / "Unpacked"
    (tmp_path / "README.md").write_text('---\nlicense: mit\npretty_name: "Path VQA"\n---\n')
    assert card_name(tmp_path) == "Path VQA"
    assert parquet_of(tmp_path, "test") == []
