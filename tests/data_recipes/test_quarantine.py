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


def test_samples_that_share_a_missing_file_count_one_by_one(tmp_path):
    path = tmp_path / "q.jsonl"
    quarantine = Quarantine(path, limit=0.5)
    with pytest.raises(BadSample, match="60 of 100"):
        quarantine.add([BadSample("missing", where="a.png", mend="m", sample_id=f"s{n}") for n in range(60)], met=100)
    assert len(path.read_text().splitlines()) == 60


def test_a_torn_line_and_separators_of_unicode_do_not_stop_the_next_start(tmp_path):
    path = tmp_path / "q.jsonl"
    odd = BadSample("a\u2028b\x85c", where="x\u2029.png", mend="m")
    Quarantine(path).add([odd])
    with path.open("ab") as file:
        file.write(b'{"where": "torn\xc3')
    again = Quarantine(path)
    again.add([odd, bad(1)])
    lines = path.read_text(errors="replace").split("\n")
    assert json.loads(lines[0])["where"] == "x\u2029.png" and lines[1].startswith('{"where": "torn')
    assert json.loads(lines[2])["sample_id"] == "s1" and lines[3:] == [""]


def test_what_is_refused_is_kept_without_what_was_read(tmp_path):
    """A traceback holds the frames that it went through, and they hold volumes."""
    import gc
    import weakref

    from medvlm.data_recipes.lengths import Lengths
    from medvlm.data_recipes.rows import Joined, ListRows

    class Volume:
        pass

    held = []

    def measure(sample):
        volume = Volume()
        held.append(weakref.ref(volume))
        raise BadSample("no", where=f"row {sample}", mend="mend it")

    lengths = Lengths(Joined([ListRows([1, 2, 3])]), measure)
    assert lengths.of([0, 1, 2]) == {} and len(lengths.refused) == 3
    gc.collect()
    assert [ref() for ref in held] == [None] * 3
