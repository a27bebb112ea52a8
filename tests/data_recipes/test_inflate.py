"""Gunzip at once: the same bytes as the standard library, and damage is seen."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from medvlm.data_recipes.readers.inflate import GZIP_ERRORS, gunzip

BYTES = np.random.default_rng(0).integers(0, 9, 100_000, dtype=np.uint8).tobytes()


def test_one_member_several_and_padding(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(BYTES))
    assert gunzip(tmp_path / "a.gz", len(BYTES)) == BYTES
    assert gunzip(tmp_path / "a.gz", 10**9) == BYTES
    assert gunzip(tmp_path / "a.gz", 777) == BYTES[:777]
    (tmp_path / "b.gz").write_bytes(gzip.compress(BYTES[:400]) + gzip.compress(BYTES[400:]) + b"\0" * 512)
    assert gunzip(tmp_path / "b.gz", len(BYTES)) == BYTES


def test_cut_off_and_wrong_checksum(tmp_path):
    packed = bytearray(gzip.compress(BYTES))
    (tmp_path / "a.gz").write_bytes(packed[:-100])
    with pytest.raises(EOFError):
        gunzip(tmp_path / "a.gz", len(BYTES))
    packed[-6] ^= 1  # of the CRC-32 that stands before the length
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(GZIP_ERRORS):
        gunzip(tmp_path / "a.gz", len(BYTES))
