"""What is left out is written once, counted, and too much of it stops the training."""

import json

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.quarantine import Quarantine


def bad(number):
    return BadSample("damaged", where=f"a.jsonl:{number}", mend="copy it again", sample_id=f"s{number}")


def test_each_refusal_is_written_once_also_after_a_resume(tmp_path):
    path = tmp_path / "run" / "quarantine.jsonl"
    first = Quarantine(path)
    first.add([bad(1), bad(2), bad(1)], met=10)
    assert len(first) == 2 and path.exists()
    again = Quarantine(path)
    again.add([bad(2), bad(3)], met=10)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["sample_id"] for row in rows] == ["s1", "s2", "s3"]
    assert len(again) == 2, "what this run has met"


def test_only_the_rank_that_is_asked_to_writes(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    one, other = Quarantine(path), Quarantine(path)
    one.add([bad(1)], write=True), other.add([bad(1)], write=False)
    assert len(path.read_text().splitlines()) == 1 and len(one) == len(other) == 1


def test_too_many_stop_and_few_samples_say_nothing(tmp_path):
    few = Quarantine(None, limit=0.1)
    few.add([bad(n) for n in range(9)], met=20)
    enough = Quarantine(tmp_path / "q.jsonl", limit=0.1)
    enough.add([bad(n) for n in range(10)], met=100)
    with pytest.raises(BadSample, match=r"11 of 100 samples cannot be used, more than the share of 0\.1.*a\.jsonl:10"):
        enough.add([bad(10)])
    assert len((tmp_path / "q.jsonl").read_text().splitlines()) == 11, "the last one is written before it stops"
