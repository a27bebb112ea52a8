"""Published tables are read line by line, and refused before their first row when they are not UTF-8."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.tables import Row, read_csv, read_json_lines, read_lines

MIB = 1 << 20


def test_a_letter_of_several_bytes_may_lie_anywhere(tmp_path: Path) -> None:
    for shift in range(4):
        path = tmp_path / f"{shift}.txt"
        path.write_bytes(b"a" * (MIB - shift) + "\U0001fac1\n".encode() + b"b" * MIB)
        assert [len(line) for line in read_lines(path)] == [MIB - shift + 2, MIB]


def test_the_first_byte_that_is_not_utf8_is_named_before_any_line(tmp_path: Path) -> None:
    for data, place in (
        (b"ok\n" * MIB + b"caf\xe9 au lait\n", 3 * MIB + 3),
        (b"a" * (MIB - 1) + b"\xe2\x28\xa1", MIB - 1),
        (b"cut off \xe2\x82", 8),
    ):
        (tmp_path / "t.jsonl").write_bytes(data)
        with pytest.raises(BadSample, match=f"not UTF-8 at byte {place}$|not UTF-8 at byte {place}[.]"):
            next(read_lines(tmp_path / "t.jsonl"))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSample, match=r"none.csv: cannot be opened \(No such file"):
        list(read_csv(tmp_path / "none.csv", required=()))


def test_every_end_of_line_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf{"a": "1"}\r\n\r\n{"a": "x\xe2\x80\xa8y"}\n{"a": \n{"a": "4"}')
    rows = list(read_json_lines(tmp_path / "t.jsonl"))
    assert [(row.number, row.values["a"]) for row in rows if isinstance(row, Row)] == [
        (1, "1"), (3, "x\u2028y"), (5, "4"),
    ]  # fmt: skip
    (bad,) = (row for row in rows if isinstance(row, BadSample))
    assert bad.where.endswith("t.jsonl:4") and bad.reason.startswith("not JSON: Expecting value at column ")
