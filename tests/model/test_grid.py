"""Budgets and patches: whatever the size, within the budget, and nothing lost."""

import math

import numpy as np
import pytest

from medvlm.model.grid import GridRule
from medvlm.model.patches import cut, patch_coordinates

RULES = [
    GridRule(
        patch=patch,
        merge=merge,
        max_patches={"image": image, "volume": volume, "video": video},
        max_depth={"volume": slices, "video": frames},
    )
    for patch, merge, image, volume, video, slices, frames in (
        ((2, 16, 16), (1, 2, 2), 1024, 4096, 2048, 64, 32),
        ((2, 8, 8), (1, 2, 2), 64, 288, 64, 16, 8),
        ((4, 14, 14), (2, 3, 3), 500, 3000, 700, 50, 16),
        ((1, 16, 16), (1, 1, 1), 1, 64, 64, 64, 64),
    )
]


def sizes(count: int, seed: int = 0):
    """From slivers to whole slides: lengths are drawn evenly in the logarithm."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield tuple(int(v) for v in np.exp(rng.uniform(0, [6.5, 8.5, 8.5])))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["image", "volume", "video"])
def test_every_size_becomes_whole_tokens_within_the_budget(rule, kind):
    for depth, height, width in sizes(400):
        size = (1 if kind == "image" else depth, height, width)
        target = rule.target_size(size, kind)
        assert all(t % f == 0 and t > 0 for t, f in zip(target, rule.factor, strict=True)), (size, target)
        grid = rule.grid(target)
        assert math.prod(grid) <= rule.max_patches[kind], (size, target)
        if kind != "image":
            # One token of slices is the least there can be, also when it is more than the limit.
            assert target[0] <= max(rule.factor[0], rule.max_depth[kind] + rule.factor[0] / 2)
        assert rule.tokens(grid) * math.prod(rule.merge) == math.prod(grid)
        for old, new, factor in zip(size[1:], target[1:], rule.factor[1:], strict=True):
            assert new <= max(factor, old + factor / 2), "nothing is enlarged beyond the next whole token"


@pytest.mark.parametrize("rule", RULES[:3])
def test_the_aspect_ratio_is_kept_when_the_plane_shrinks(rule):
    for _, height, width in sizes(300, seed=1):
        if max(height, width) > 3 * min(height, width) or min(height, width) < 400:
            continue
        _, new_height, new_width = rule.target_size((1, height, width), "image")
        assert abs(new_height - new_width * height / width) <= rule.factor[1] * 1.5
        # Shrinking leaves at most the rows and columns that rounding takes.
        patches = (new_height // rule.patch[1]) * (new_width // rule.patch[2])
        assert patches > 0.3 * rule.max_patches["image"]


def test_sizes_worked_by_hand():
    rule = RULES[1]
    assert rule.target_size((1, 64, 64), "image") == (2, 64, 64)  # 8 x 8 patches: just the budget
    assert rule.target_size((1, 70, 60), "image") == (2, 64, 64)  # the nearest whole tokens
    assert rule.target_size((1, 640, 640), "image") == (2, 64, 64)
    assert rule.target_size((1, 1280, 320), "image") == (2, 128, 32)
    assert rule.target_size((300, 512, 512), "volume") == (16, 48, 48)  # 8 slices of 6 x 6 patches: 288
    assert rule.grid((16, 48, 48)) == (8, 6, 6) and rule.tokens((8, 6, 6)) == 72


def test_a_budget_below_one_token_a_slice_is_refused_with_the_keys():
    rule = GridRule(patch=(2, 8, 8), merge=(1, 2, 2), max_patches={"volume": 20}, max_depth={"volume": 16})
    said = r"leaves 2 patches a slice of the budget 20.*max_patches\.volume.*max_depth\.volume"
    with pytest.raises(ValueError, match=said):
        rule.target_size((64, 512, 512), "volume")


def uncut(patches: np.ndarray, rule: GridRule, grid: tuple[int, int, int]) -> np.ndarray:
    """Lay every patch back by its coordinates, by a loop: the inverse of ``cut``."""
    t, h, w = rule.patch
    array = np.full((3, grid[0] * t, grid[1] * h, grid[2] * w), np.nan, dtype=np.float32)
    for patch, (z, y, x) in zip(patches, patch_coordinates(grid, rule.merge), strict=True):
        array[:, z * t : (z + 1) * t, y * h : (y + 1) * h, x * w : (x + 1) * w] = patch.reshape(3, t, h, w)
    return array


@pytest.mark.parametrize("rule", [RULES[1], RULES[2], RULES[3]])
@pytest.mark.parametrize("tokens", [(1, 1, 1), (2, 3, 1), (3, 2, 4)])
def test_patches_laid_back_by_their_coordinates_are_the_array(rule, tokens):
    size = tuple(n * f for n, f in zip(tokens, rule.factor, strict=True))
    array = np.random.default_rng(0).random((3, *size), dtype=np.float32)
    patches = cut(array, rule)
    assert patches.dtype == np.float32 and patches.flags["C_CONTIGUOUS"]
    assert patches.shape == (math.prod(rule.grid(size)), 3 * math.prod(rule.patch))
    assert np.array_equal(uncut(patches, rule, rule.grid(size)), array)


@pytest.mark.parametrize("rule", [RULES[1], RULES[2]])
def test_patches_of_one_token_are_neighbours_and_lie_together(rule):
    grid = tuple(2 * m for m in rule.merge)
    coordinates = patch_coordinates(grid, rule.merge).reshape(-1, math.prod(rule.merge), 3)
    for token in coordinates:
        assert (np.unique(token // np.array(rule.merge), axis=0)).shape == (1, 3)
    assert len(np.unique(coordinates.reshape(-1, 3), axis=0)) == math.prod(grid)
