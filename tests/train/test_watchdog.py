"""Who is behind, from what the ranks noted; the hang itself is in test_survival_ranks.py."""

import pytest

from medvlm.train.watchdog import Note, who_is_behind


def note(rank: int, step: int, phase: str, beat: int = 2) -> Note:
    return Note(rank=rank, step=step, phase=phase, seconds=70, beat=beat, process=f"process {rank} on a")


def earlier(notes: dict[int, Note]) -> dict[int, Note]:
    return {rank: note(rank, n.step, n.phase, beat=1) for rank, n in notes.items()}


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([(5, "updating"), (5, "reading data")], "Behind: rank 1 (process 1 on a) is reading data at step 5"),
        ([(5, "reading data"), (4, "saving")], "Behind: rank 1 (process 1 on a) is saving at step 4 since 70 s, and"),
        ([(5, "updating"), (5, "updating")], "No rank is behind: all live and wait at the same place"),
    ],
)
def test_the_one_that_came_least_far_is_behind(places, said):
    notes = {rank: note(rank, *place) for rank, place in enumerate(places)}
    assert who_is_behind(earlier(notes), notes, len(notes)).startswith(said)


def test_silence_and_absence_are_told_apart():
    notes = {0: note(0, 5, "updating"), 1: note(1, 5, "updating")}
    before = {**earlier(notes), 1: notes[1]}  # the beat of rank 1 stands still, though it is no further behind
    said = who_is_behind(before, notes, 2)
    assert said.startswith("Behind: rank 1") and "nothing has been heard of it since" in said
    assert who_is_behind(notes, notes, 3) == "Behind: rank 2, of which there is no note at all."
    assert "It is the only rank" in who_is_behind(earlier({0: notes[0]}), {0: notes[0]}, 1)
