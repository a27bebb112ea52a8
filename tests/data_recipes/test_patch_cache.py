"""Patches on disk: what comes back is what was put, within a limit, and never half of it."""

import os

import numpy as np
from conftest import a_volume, an_image

from medvlm.data_recipes.patch_cache import PatchCache


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
    size = (tmp_path / "one" / "a.npz").stat().st_size
    cache = PatchCache(tmp_path / "few", limit_bytes=4 * size)
    for number, key in enumerate("abcd"):
        cache.put(key, visual)
        os.utime(tmp_path / "few" / f"{key}.npz", (number, number))
    cache.get("a")  # used again
    cache.put("e", visual)
    assert sorted(path.stem for path in (tmp_path / "few").iterdir()) == ["a", "d", "e"]
    for number in range(50):
        cache.put(f"x{number}", visual)
        assert sum(path.stat().st_size for path in (tmp_path / "few").iterdir()) <= 4 * size


def test_a_limit_counts_what_an_earlier_run_left(tmp_path, processor):
    visual = processor.patch(an_image())
    for key in "abcdefgh":
        PatchCache(tmp_path).put(key, visual)
    size = (tmp_path / "a.npz").stat().st_size
    PatchCache(tmp_path, limit_bytes=3 * size).put("z", visual)
    assert len(list(tmp_path.iterdir())) <= 3 and (tmp_path / "z.npz").exists()
