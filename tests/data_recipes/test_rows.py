"""Rows are read where they lie: by number, with their place, in any process."""

import json
import pickle
import tracemalloc

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.rows import Joined, ListRows, ManifestRows
from medvlm.data_recipes.sample import Sample, read_jsonl


def row(number, **changes):
    return {
        "sample_id": f"s{number}", "patient_id": f"p{number}", "study_id": f"p{number}", "source": "t",
        "licence": "CC0-1.0", "split": "train",
        "messages": [{"role": "user", "content": "Größe?"}, {"role": "assistant", "content": "3.2 cm"}], **changes,
    }  # fmt: skip


def manifest(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def test_every_row_is_what_reading_from_end_to_end_gives(tmp_path):
    path = manifest(tmp_path / "a.jsonl", [row(n) for n in range(20)])
    rows = ManifestRows(path)
    assert len(rows) == 20
    assert [rows.row(n) for n in (19, 0, 7, 7)] == [list(read_jsonl(path))[n] for n in (19, 0, 7, 7)]


def test_bad_rows_say_the_line_that_a_person_counts(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row(0)), "", "\r", "{not json", json.dumps(row(4, licence="")), json.dumps(row(5))]
    path.write_text("\n".join(lines))  # no newline at the end
    rows = ManifestRows(path)
    found = [rows.row(n) for n in range(len(rows))]
    assert [type(r) for r in found] == [Sample, BadSample, BadSample, Sample]
    assert found[1].where == f"{path}:4" and "not JSON" in found[1].reason
    assert found[2].where == f"{path}:5" and "'licence' must be a non-empty string" in found[2].reason
    assert [str(r) for r in found if isinstance(r, BadSample)] == [
        str(r) for r in read_jsonl(path) if isinstance(r, BadSample)
    ]
    path.write_bytes(b'{"a": "\xff"}\n')
    assert "not UTF-8 at byte 7" in ManifestRows(path).row(0).reason


def test_an_empty_manifest_has_no_rows_and_a_missing_one_is_refused(tmp_path):
    assert len(ManifestRows(manifest(tmp_path / "a.jsonl", []))) == 0
    with pytest.raises(BadSample, match="no such manifest"):
        ManifestRows(tmp_path / "b.jsonl")


def test_the_fingerprint_is_of_the_content(tmp_path):
    one = ManifestRows(manifest(tmp_path / "a.jsonl", [row(1)])).fingerprint
    assert ManifestRows(manifest(tmp_path / "b.jsonl", [row(1)])).fingerprint == one
    assert ManifestRows(manifest(tmp_path / "a.jsonl", [row(2)])).fingerprint != one
    assert Joined([ListRows([]), ListRows([])]).fingerprint != Joined([ListRows([])]).fingerprint


def test_a_manifest_that_changes_while_it_is_read_is_refused(tmp_path):
    path = manifest(tmp_path / "a.jsonl", [row(1)])
    rows = ManifestRows(path)
    manifest(path, [row(1), row(2)])
    for _ in range(2):
        assert "bytes and has" in rows.row(0).reason


def test_a_line_of_one_character_is_no_blank_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\r\n7\n \n{" + json.dumps(row(1)).encode()[1:])
    rows = ManifestRows(path)
    found = [rows.row(n) for n in range(len(rows))]
    assert [type(r) for r in found] == [BadSample, Sample]
    assert found[0].where == f"{path}:2" and str(found[0]) == str(next(read_jsonl(path)))


def test_the_index_goes_to_another_process_without_its_open_file(tmp_path):
    rows = ManifestRows(manifest(tmp_path / "a.jsonl", [row(n) for n in range(3)]))
    first = rows.row(0)
    again = pickle.loads(pickle.dumps(rows))
    assert again._file is None and again.row(0) == first


def test_memory_holds_an_index_and_no_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    line = json.dumps(row(1)) + "\n"
    with path.open("w") as file:
        for _ in range(100):
            file.write(line * 1000)
    tracemalloc.start()
    rows = ManifestRows(path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 100_000
    assert held < 16 * 100_000 < path.stat().st_size / 10, "12 bytes a row"


def test_joined_sources_know_where_a_row_belongs(tmp_path):
    first = ManifestRows(manifest(tmp_path / "a.jsonl", [row(n) for n in range(3)]))
    second = ManifestRows(manifest(tmp_path / "b.jsonl", [row(n) for n in range(3, 5)]))
    rows = Joined([first, ListRows([]), second])
    assert [rows.row(n).sample_id for n in range(5)] == ["s0", "s1", "s2", "s3", "s4"]
    assert [rows.place(n) for n in (0, 2, 3, 4)] == [(0, 0), (0, 2), (2, 0), (2, 1)]
