"""Visuals are read once over several runs, and again when they have changed; manifests appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from own_fixtures import picture

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.decoding import Facts, key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest_folder import ManifestFolder
from medvlm.data_recipes.read_once import ReadOnce, with_facts
from medvlm.data_recipes.sample import Preference, Sample, Turn, VisualRef


def ref(path: Path) -> VisualRef:
    return VisualRef(kind="image", path=str(path))


def sample(number: int, *visuals: VisualRef, split: str = "train") -> Sample:
    return ask(
        sample_id=f"s/{number}", patient_id=f"p/{number}", source="s", licence="own", split=split, prompt="What is it?",
        answers=["A lung."], where="here", visuals=visuals,
    )  # type: ignore[arg-type]  # fmt: skip


def test_what_was_read_is_not_read_again_until_it_changes(tmp_path):
    path = picture(tmp_path / "a.png", 1)
    memory = tmp_path / "memory.sqlite"
    with ReadOnce(memory) as reading:
        first = reading.read([ref(path), ref(path)])[key_of(ref(path))]
    assert isinstance(first, Facts)
    # Other bytes of the same size and time cannot be seen: this shows that the file was not read.
    stat, size = path.stat(), path.stat().st_size
    path.write_bytes(bytes(size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with ReadOnce(memory) as reading:
        assert reading.read([ref(path)])[key_of(ref(path))] == first
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with ReadOnce(memory) as reading:
        assert isinstance(reading.read([ref(path)])[key_of(ref(path))], BadSample)
    picture(path, 1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with ReadOnce(memory) as reading:
        assert reading.read([ref(path)])[key_of(ref(path))] == first  # a refusal is not remembered


def test_the_images_of_a_rejected_side_are_hashed_too(tmp_path):
    one, two = ref(picture(tmp_path / "a.png", 1)), ref(picture(tmp_path / "b.png", 2))
    user = Turn(role="user", content=(one, "Write."))
    pair = Preference(
        chosen=(Turn(role="assistant", content=("Clear.",)),),
        rejected=(Turn(role="user", content=(two, "Write.")), Turn(role="assistant", content=("Clear.",))),
        made_by="other_image",
    )
    draft = Sample(
        sample_id="s/1", patient_id="p", study_id="p", source="s", licence="own", split="train", turns=(user,),
        preference=pair,
    )  # fmt: skip
    with ReadOnce(tmp_path / "m.sqlite") as reading:
        done = with_facts(draft, reading.read([one, two]))
    assert isinstance(done, Sample) and done.preference
    assert all(len(r.sha256 or "") == 64 for side in done.sides() for turn in side for r in turn.visuals)


def test_manifests_appear_whole_or_not_at_all(tmp_path):
    with ManifestFolder(tmp_path) as folder:
        folder.add(sample(1))
        folder.add(sample(2, split="validation"))
        folder.refuse(BadSample("odd", where="here", mend="none"), "s")
        assert not (tmp_path / "train.jsonl").exists()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "quarantine.jsonl", "summary.json", "test_questions.jsonl", "train.jsonl", "validation_questions.jsonl",
    ]  # fmt: skip
    before = (tmp_path / "train.jsonl").read_text()
    with pytest.raises(RuntimeError), ManifestFolder(tmp_path) as folder:
        folder.add(sample(3))
        raise RuntimeError
    assert (tmp_path / "train.jsonl").read_text() == before and not list(tmp_path.glob(".*"))
    with ManifestFolder(tmp_path) as folder:
        folder.add(sample(4))
    assert not (tmp_path / "validation_questions.jsonl").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["samples"] == 1
