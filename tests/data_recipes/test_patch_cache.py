"""Patches on disk: what comes back is what was put, within a limit, and never half of it."""

import os
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from conftest import a_volume, an_image

from medvlm.data_recipes.patch_cache import PatchCache
from medvlm.model.processing import PatchedVisual


def same(one, other):
    return (
        np.array_equal(one.patches, other.patches)
        and np.array_equal(one.kept, other.kept)
        and np.allclose(one.spacing, other.spacing, equal_nan=True)
        and (one.grid, one.axis_kind) == (other.grid, other.axis_kind)
    )


def test_what_was_put_comes_back(tmp_path, processor):
    cache = PatchCache(tmp_path)
    image, volume = processor.patch(an_image()), processor.patch(a_volume())
    cache.put("a", image), cache.put("b", volume)
    assert same(cache.get("a"), image) and same(PatchCache(tmp_path).get("b"), volume)
    assert cache.get("c") is None
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_over_the_limit_the_least_recently_used_goes_first(tmp_path, processor):
    visual = processor.patch(an_image())
    PatchCache(tmp_path / "one").put("a", visual)
    size = (tmp_path / "one" / "a.safetensors").stat().st_size
    cache = PatchCache(tmp_path / "few", limit_bytes=4 * size)
    for number, key in enumerate("abcd"):
        cache.put(key, visual)
        os.utime(tmp_path / "few" / f"{key}.safetensors", (number, number))
    cache.get("a")  # used again
    cache.put("e", visual)
    assert sorted(path.stem for path in (tmp_path / "few").glob("*.safetensors")) == ["a", "d", "e"]
    for number in range(50):
        cache.put(f"x{number}", visual)
        assert sum(path.stat().st_size for path in (tmp_path / "few").glob("*.safetensors")) <= 4 * size


def test_a_limit_counts_what_an_earlier_run_left(tmp_path, processor):
    visual = processor.patch(an_image())
    for key in "abcdefgh":
        PatchCache(tmp_path).put(key, visual)
    size = (tmp_path / "a.safetensors").stat().st_size
    PatchCache(tmp_path, limit_bytes=3 * size).put("z", visual)
    assert len(list(tmp_path.glob("*.safetensors"))) <= 3 and (tmp_path / "z.safetensors").exists()


def fill(folder: Path, limit: int, name: int, start: Barrier, told: SimpleQueue[int]) -> None:
    """One process of several: it puts thirty visuals, and tells the most that it saw in the folder."""
    cache, most = PatchCache(folder, limit), 0
    visual = PatchedVisual(
        patches=np.zeros((1, 100_000), np.float32), grid=(1, 1, 1), spacing=(1, 1, 1), axis_kind=0,
        kept=np.ones(1, bool),
    )  # fmt: skip
    start.wait(timeout=60)
    for number in range(30):
        cache.put(f"{name}-{number}", visual)
        most = max(most, sum(size for _, size, _ in cache._entries()))
    told.put(most)


def test_the_limit_is_of_all_processes_together(tmp_path):
    limit = 20 * 401_000
    fork = get_context("fork")  # as the workers of a loader
    start, told = fork.Barrier(3), fork.SimpleQueue()
    filling = [fork.Process(target=fill, args=(tmp_path, limit, n, start, told), daemon=True) for n in range(3)]
    for process in filling:
        process.start()
    for process in filling:
        process.join(timeout=60)
    assert [process.exitcode for process in filling] == [0, 0, 0]
    most = max(told.get() for _ in filling)
    assert limit / 2 < most <= limit + 3 * 401_000, "over it by no more than what each is writing"


def test_a_damaged_entry_is_not_there_and_is_made_again(tmp_path, processor):
    visual = processor.patch(an_image())
    cache = PatchCache(tmp_path)
    cache.put("a", visual)
    path = tmp_path / "a.safetensors"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-400] ^= 1  # of the patches, which are the last and longest
    for damaged in (b"", whole[: len(whole) // 2], bytes(len(whole)), bytes(flipped)):
        path.write_bytes(damaged)
        assert cache.get("a") is None
        cache.put("a", visual)
        assert same(cache.get("a"), visual)


def test_what_a_killed_process_left_is_removed(tmp_path, processor):
    old, new = tmp_path / ".a.1.2.tmp", tmp_path / ".b.1.2.tmp"
    old.touch(), new.touch()
    os.utime(old, (1, 1))
    PatchCache(tmp_path, limit_bytes=10**6)
    assert not old.exists() and new.exists(), "the other may be in writing"
