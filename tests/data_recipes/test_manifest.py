"""Manifests: round trip, hashes, and what verify finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import (
    read_manifest,
    resolve,
    sha256_of,
    verify,
    write_manifest,
    write_quarantine,
)
from medvlm.data_recipes.sample import Sample, Split, Turn, VisualRef
from medvlm.data_recipes.splits import split_patients


def sample(number: int, patient: str, split: Split = "train", visuals: Sequence[VisualRef] = (), **metadata: object):
    turns = (Turn(role="user", content=(*visuals, "Why?")), Turn(role="assistant", content=("Because – ä.",)))
    return Sample(
        sample_id=f"s{number}", patient_id=patient, study_id=patient, source="x", licence="CC0-1.0", split=split,
        turns=turns, metadata=metadata,
    )  # fmt: skip


def test_round_trip_and_no_temporary_file_left(tmp_path: Path) -> None:
    ref = VisualRef(kind="image", path="a.png", sha256="00", options={"frame": 1})
    written = [sample(1, "p1", visuals=[ref]), sample(2, "p2", "validation")]
    path = tmp_path / "new" / "m.jsonl"
    write_manifest(path, written)
    assert read_manifest(path) == (written, [])
    assert [file.name for file in path.parent.iterdir()] == ["m.jsonl"]


def test_a_write_that_fails_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, [sample(1, "p1")])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_manifest(path, [sample(2, "p2", odd=object())])
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_bad_rows_come_back_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, [sample(1, "p1")])
    row = json.loads(path.read_text())
    row["messages"][1]["content"][0]["text"] = ""
    path.write_text(path.read_text() + json.dumps(row) + "\n{cut\n")
    samples, refused = read_manifest(path)
    assert len(samples) == 1 and [bad.where for bad in refused] == [f"{path}:2", f"{path}:3"]
    assert "'text' must be a non-empty string, got ''" in refused[0].reason


def test_sha256_of_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-4 example.
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = sha256_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert sha256_of(tmp_path) != before
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "none")


def test_resolve_is_relative_to_the_manifest(tmp_path: Path) -> None:
    assert resolve(VisualRef(kind="image", path="i/a.png"), tmp_path / "m.jsonl") == tmp_path / "i" / "a.png"
    assert resolve(VisualRef(kind="image", path="/i/a.png"), tmp_path / "m.jsonl") == Path("/i/a.png")


def test_verify_finds_leaks_duplicates_missing_and_changed_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"abc")
    good = VisualRef(kind="image", path="a.png", sha256=sha256_of(tmp_path / "a.png"))
    lost = VisualRef(kind="image", path="lost.png")
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    write_manifest(train, [sample(1, "p1", visuals=[good]), sample(1, "p2"), sample(3, "p3", visuals=[lost])])
    write_manifest(test, [sample(4, "p1", "test"), sample(5, "p5", "test")])
    problems = verify(train, test)
    assert [bad.reason.split(":")[0] for bad in problems] == [
        f"sample_id 's1' stands already at {train}",
        f"the image {tmp_path / 'lost.png'} is missing",
        "patient 'p1' is in 2 splits",
    ]
    assert problems[1].where == f"{train}:3" and not verify(test)

    (tmp_path / "a.png").write_bytes(b"abd")
    assert any("has changed since it was hashed" in bad.reason for bad in verify(train, test, hashes=True))


def test_verify_tells_an_official_split_from_a_leak(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, [sample(1, "p", official_split=True), sample(2, "p", "test", official_split=True)])
    assert len(verify(path)) == 1 and not verify(path, allow_official=True)
    write_manifest(path, [sample(1, "p"), sample(2, "p", "test", official_split=True)])
    assert len(verify(path, allow_official=True)) == 1


def test_quarantine_rows(tmp_path: Path) -> None:
    write_quarantine(tmp_path / "q.jsonl", [BadSample("torn", where="a:1", mend="mend it", sample_id="s")])
    assert json.loads((tmp_path / "q.jsonl").read_text()) == {
        "where": "a:1", "reason": "torn", "mend": "mend it", "sample_id": "s",
    }  # fmt: skip


def test_patients_are_split_by_hash_not_by_order() -> None:
    patients = [f"p{n}" for n in range(50)]
    splits = split_patients(patients)
    assert splits == split_patients(reversed(patients)) != split_patients(patients, seed=1)
    assert sorted(splits.values()).count("test") == 10
    assert split_patients(["only"]) == {"only": "train"} and split_patients([]) == {}
    assert sorted(split_patients(["a", "b"]).values()) == ["test", "train"]
    with pytest.raises(ValueError, match="test_share is 1"):
        split_patients(patients, test_share=1)
