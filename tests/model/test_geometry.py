"""Axes and resizing, against worked examples and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medvlm.model.geometry import (
    axis_permutation_and_flips,
    orientation_of_directions,
    reorient,
    resize_image,
    resize_volume,
)
from medvlm.model.visual import Volume


def test_permutation_and_flips_of_a_nifti_array():
    # A RAS array is indexed [x to Right, y to Anterior, z to Superior].
    assert axis_permutation_and_flips("RAS", "SPL") == ((2, 1, 0), (False, True, True))
    assert axis_permutation_and_flips("SPL", "SPL") == ((0, 1, 2), (False, False, False))
    assert axis_permutation_and_flips("IL", "LS") == ((1, 0), (False, True))


@pytest.mark.parametrize("code", ["SSL", "SPX", "SPLL"])
def test_malformed_orientation_is_refused(code):
    with pytest.raises(ValueError, match="each body axis once"):
        axis_permutation_and_flips(code, "SPL")


def test_other_body_axes_are_refused():
    with pytest.raises(ValueError, match="same body axes"):
        axis_permutation_and_flips("IL", "AL")


def test_reorient_moves_a_marked_voxel_and_its_spacing():
    voxels = np.zeros((4, 5, 6), dtype=np.float32)  # RAS: [right, anterior, superior]
    voxels[3, 0, 5] = 7  # most right, most posterior, most superior
    ras = Volume(voxels=voxels, modality="CT", unit="HU", spacing_mm=(1.0, 2.0, 3.0), orientation="RAS")
    spl = reorient(ras)
    assert spl.orientation == "SPL" and spl.voxels.shape == (6, 5, 4) and spl.spacing_mm == (3.0, 2.0, 1.0)
    assert spl.voxels[5, 4, 0] == 7  # towards S is last, towards P is last, right is first on the L axis
    assert np.array_equal(reorient(spl, "RAS").voxels, voxels)


def test_reorient_of_unknown_orientation_is_refused():
    volume = Volume(voxels=np.zeros((2, 2, 2), np.float32), modality="CT", unit="HU")
    with pytest.raises(ValueError, match="orientation is unknown"):
        reorient(volume)


def test_orientation_letters_of_directions():
    axial = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=float)  # columns: z, y, x of DICOM
    assert orientation_of_directions(axial) == "SPL"
    assert orientation_of_directions(-axial) == "IAR"
    frontal = np.array([[0, 1], [0, 0], [-1, 0]], dtype=float)
    assert orientation_of_directions(frontal) == "IL"
    angle = np.deg2rad(40)
    tilted = np.array([[0, 0, 1], [-np.sin(angle), np.cos(angle), 0], [np.cos(angle), np.sin(angle), 0]])
    assert orientation_of_directions(tilted) == "SPL"
    assert orientation_of_directions(np.zeros((3, 2))) is None


def test_growing_equals_torch_trilinear():
    voxels = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(voxels)[None, None], (7, 9, 8), mode="trilinear")
    np.testing.assert_allclose(resize_volume(voxels, (7, 9, 8)), expected[0, 0].numpy(), atol=1e-6)


def test_shrinking_by_whole_factors_equals_torch_area():
    voxels = np.random.default_rng(1).normal(size=(6, 8, 9)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(voxels)[None, None], (2, 4, 3), mode="area")
    np.testing.assert_allclose(resize_volume(voxels, (2, 4, 3)), expected[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7, 10), (1, 1, 1), (6, 9, 3)])
def test_shrinking_keeps_the_mean_for_any_factor(size):
    voxels = np.random.default_rng(2).normal(size=(7, 9, 11)).astype(np.float32)
    small = resize_volume(voxels, size)
    assert small.shape == size and small.dtype == np.float32
    np.testing.assert_allclose(small.mean(), voxels.mean(), atol=1e-5)


def test_shrinking_keeps_a_ramp_in_place():
    ramp = np.broadcast_to(np.arange(10, dtype=np.float32) + 0.5, (1, 2, 10))  # value = position of the centre
    small = resize_image(np.ascontiguousarray(ramp), (2, 7))
    # Voxels are flat boxes, so a centre may move by f(1-f)/2 of a voxel where a box is cut at f: at most 1/8.
    np.testing.assert_allclose(small[0, 0], (np.arange(7) + 0.5) * 10 / 7, atol=0.125)
    np.testing.assert_allclose(small[0, 0] + small[0, 0, ::-1], 10, atol=1e-5)


def test_frames_are_resized_like_images():
    frames = np.random.default_rng(3).uniform(size=(4, 3, 10, 6)).astype(np.float32)
    together = resize_image(frames, (5, 9))
    assert together.shape == (4, 3, 5, 9)
    np.testing.assert_array_equal(together[2], resize_image(frames[2], (5, 9)))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="whole numbers"):
        resize_volume(np.zeros((2, 2, 2), np.float32), (2, 0, 2))
    with pytest.raises(ValueError, match="resize_image"):
        resize_volume(np.zeros((2, 2), np.float32), (2, 2, 2))
    with pytest.raises(ValueError, match="shape"):
        resize_image(np.zeros((2, 2), np.float32), (2, 2))
