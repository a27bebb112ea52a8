"""The search for near-duplicate hashes misses no pair and compares few."""

import math
import time

import numpy as np
import pytest

from medvlm.data_recipes.checks.hashing import hashes_of, perceptual_hash
from medvlm.data_recipes.checks.near import BITS, MOST, HammingIndex
from medvlm.data_recipes.checks.workers import enough, in_order
from medvlm.model import Image, Video, Volume


def hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), dtype=np.uint64)


def flipped(row, bits):
    """``row`` with these bits turned."""
    changed = row.copy()
    for bit in bits:
        changed[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed


def pairs_of(index, queries):
    return {(int(q), int(i)): int(d) for qs, ps, ds in index.near(queries) for q, i, d in zip(qs, ps, ds, strict=True)}


@pytest.mark.parametrize("distance", [0, 1, 7, 16, MOST])
def test_the_search_finds_what_comparing_all_with_all_finds(distance):
    rng = np.random.default_rng(1)
    held = hashes(300)
    # Neighbours at every distance around the limit, and at random places among strangers.
    near = [flipped(held[k], rng.choice(BITS, int(rng.integers(0, distance + 3)), replace=False)) for k in range(300)]
    queries = np.concatenate([np.stack(near), hashes(100, seed=2)])
    apart = np.bitwise_count(queries[:, None] ^ held[None]).sum(axis=2)
    wanted = {(int(q), int(i)): int(apart[q, i]) for q, i in np.argwhere(apart <= distance)}
    assert wanted
    assert pairs_of(HammingIndex(held, distance), queries) == wanted


def test_a_hundred_thousand_hashes_are_searched_in_seconds_and_none_is_missed():
    rng = np.random.default_rng(3)
    held = hashes(100_000)
    planted = rng.choice(100_000, 2000, replace=False)
    # The hardest case of the pigeonhole: the errors spread over as many bands as there are.
    queries = hashes(100_000, seed=4)
    for place, row in enumerate(planted):
        queries[place] = flipped(held[row], rng.choice(BITS, 16, replace=False))
    began = time.perf_counter()
    found = pairs_of(HammingIndex(held, 16), queries)
    seconds = time.perf_counter() - began
    assert found == {(place, int(row)): 16 for place, row in enumerate(planted)}
    assert seconds < 30, f"{seconds:.1f} s for 10^10 possible pairs"


def test_many_equal_hashes_do_not_fill_memory():
    same = np.repeat(hashes(1), 3000, axis=0)
    count = sum(len(q) for q, _, _ in HammingIndex(same, 2).near(same[:500]))
    assert count == 3 * 500 * 3000  # each pair shares all three bands


@pytest.mark.parametrize("distance", [-1, MOST + 1])
def test_a_distance_that_is_not_searched_completely_is_refused(distance):
    with pytest.raises(ValueError, match="use 0 to"):
        HammingIndex(hashes(3), distance)


def test_hashes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="uint64"):
        HammingIndex(np.zeros((3, 2), np.uint64), 4)


def distance(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def waves(seed, size=96):
    """A smooth picture with its own pattern, (size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    terms = [rng.normal() * np.cos(np.pi * (a * y + b * x) + rng.uniform(0, 6)) for a in range(8) for b in range(8)]
    return np.sum(terms, axis=0).astype(np.float32)


def test_a_brighter_noisier_smaller_copy_is_near_and_another_picture_is_far():
    picture = waves(1, 256)
    copy = 3 * picture[::2, ::2] + 7 + np.random.default_rng(0).normal(0, 0.05, (128, 128))
    assert distance(perceptual_hash(picture), perceptual_hash(copy.astype(np.float32))) <= 16
    assert distance(perceptual_hash(picture), perceptual_hash(waves(2, 256))) > 60


@pytest.mark.parametrize("dot", [0, 1])
def test_even_pictures_have_no_hash(dot):
    picture = np.zeros((200, 200), np.float32)
    picture[:dot, :dot] = 1
    assert perceptual_hash(picture) is None


def test_volumes_have_a_hash_per_axis_and_videos_one_per_chosen_frame():
    volume = np.stack([waves(k, 48) for k in range(12)])
    three = hashes_of(Volume(voxels=volume, modality="CT", unit="arbitrary"))
    assert len(three) == 3 and three[0] == perceptual_hash(volume[6])
    frames = np.stack([(waves(k) - waves(k).min()) / np.ptp(waves(k)) for k in range(10)])[:, None].astype(np.float32)
    video = hashes_of(Video(frames=frames, times_s=np.arange(10.0), modality="US"))
    assert video == tuple(perceptual_hash(frames[k, 0]) for k in (1, 3, 5, 7, 9))
    colour = np.repeat(waves(5)[None], 3, axis=0)
    assert len(hashes_of(Image(pixels=colour, modality="photo", unit="arbitrary"))) == 1


@pytest.mark.slow
def test_processes_give_results_in_order_and_an_error_of_one_comes_through():
    items = list(range(50))
    assert list(in_order(abs, [-n for n in items], workers=2, at_once=3)) == [(-n, n) for n in items]
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(in_order(math.sqrt, [4.0, -1.0], workers=2))


def test_few_items_are_not_worth_a_process():
    assert (enough(8, 0, 16), enough(8, 40, 16), enough(2, 4000, 16)) == (1, 2, 2)
