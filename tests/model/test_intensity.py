"""Windows: HU to channels, percentiles over the whole volume, and values that files really hold."""

import numpy as np
import pytest

from medvlm.model.intensity import IntensityRule, apply_window, percentile_window, to_channels
from medvlm.model.visual import Image, Video, Volume

THREE = IntensityRule()


def volume(voxels, unit="HU", **more):
    return Volume(voxels=np.asarray(voxels, dtype=np.float32), modality="CT", unit=unit, **more)


def test_tissues_fall_where_their_windows_say():
    air, lung, fat, water, liver, bone = -1000.0, -700.0, -100.0, 0.0, 60.0, 1000.0
    channels = to_channels(volume([[[air, lung, fat, water, liver, bone]]]), THREE)
    assert channels.shape == (3, 1, 1, 6) and channels.dtype == np.float32
    lung_window, soft, bones = channels[:, 0, 0]
    np.testing.assert_allclose(lung_window[:2], [(air + 1350) / 1500, (lung + 1350) / 1500], rtol=1e-6)
    np.testing.assert_allclose(soft, [0, 0, 35 / 350, 135 / 350, 195 / 350, 1], rtol=1e-5)
    np.testing.assert_allclose(bones[[3, 5]], [500 / 1800, 1500 / 1800], rtol=1e-6)
    assert lung_window[5] == 1.0 and bones[0] == 0.0


def test_hounsfield_windows_ignore_the_window_of_the_file():
    one = to_channels(volume([[[40.0]]]), THREE)
    assert np.array_equal(one, to_channels(volume([[[40.0]]], window=(0.0, 50.0)), THREE))


def test_a_ct_slice_is_windowed_as_its_volume():
    values = np.random.default_rng(0).normal(0, 500, (1, 5, 6)).astype(np.float32)
    image = Image(pixels=values, modality="CT", unit="HU")
    assert np.array_equal(to_channels(image, THREE), to_channels(volume(values), THREE))


def test_percentiles_are_of_the_volume_and_not_of_the_slice():
    rng = np.random.default_rng(0)
    voxels = rng.normal(100, 10, (6, 20, 20))
    voxels[3] += 400  # a bright slice must stay brighter than the others
    channels = to_channels(volume(voxels, unit="arbitrary"), THREE)
    low, high = np.percentile(voxels, [0.5, 99.5])
    np.testing.assert_allclose(channels[0], ((voxels - low) / (high - low)).clip(0, 1), atol=1e-5)
    means = channels[0].mean(axis=(1, 2))
    assert means[3] > 0.8 and np.delete(means, 3).max() < 0.3
    assert np.array_equal(channels[0], channels[1]) and np.array_equal(channels[0], channels[2])


def test_one_hot_pixel_does_not_darken_a_volume():
    voxels = np.random.default_rng(0).uniform(0, 100, (10, 20, 20))
    spoiled = voxels.copy()
    spoiled[0, 0, 0] = 1e6
    one, other = (to_channels(volume(v, unit="arbitrary"), THREE)[0] for v in (spoiled, voxels))
    difference = one - other
    assert np.sort(np.abs(difference).ravel())[-2] < 0.01


def test_the_window_of_the_file_comes_before_percentiles():
    asked = to_channels(volume([[[0.0, 50.0, 100.0]]], unit="arbitrary", window=(0.0, 200.0)), THREE)
    np.testing.assert_allclose(asked[0, 0, 0], [0, 0.25, 0.5])


def test_sixteen_bits_keep_their_steps():
    # Neighbouring 16-bit values must not fall together, as they do when a file is cut to 8 bits.
    ramp = np.arange(0, 65536, 16, dtype=np.float32).reshape(1, 64, 64)
    image = Image(pixels=ramp, modality="DX", unit="arbitrary")
    grey = to_channels(image, THREE)[0, 0].ravel()
    inside = grey[(grey > 0) & (grey < 1)]
    assert len(np.unique(inside)) == len(inside) > 4000
    assert (np.diff(inside) > 0).all()


@pytest.mark.parametrize("value", [-1024.0, 0.0, 3.5, 4000.0])
@pytest.mark.parametrize("unit", ["HU", "arbitrary", "SUV"])
def test_a_constant_volume_is_finite_and_constant(value, unit):
    channels = to_channels(volume(np.full((2, 3, 4), value), unit=unit), THREE)
    assert np.isfinite(channels).all() and channels.min() >= 0 and channels.max() <= 1
    assert all(len(np.unique(channel)) == 1 for channel in channels)


def test_colour_and_grey():
    rgb = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    picture = Image(pixels=rgb, modality="photo", unit="display")
    assert np.array_equal(to_channels(picture, THREE)[:, 0], rgb)
    grey = to_channels(Image(pixels=rgb[:1], modality="CR", unit="display"), THREE)
    assert grey.shape == (3, 1, 4, 5) and all(np.array_equal(channel[0], rgb[0]) for channel in grey)
    clip = Video(frames=np.stack([rgb, 1 - rgb]), times_s=np.array([0.0, 0.1]), modality="US")
    assert np.array_equal(to_channels(clip, THREE)[:, 1], 1 - rgb)


def test_a_window_without_width_is_refused():
    with pytest.raises(ValueError, match=r"low < high, got \(5\.0, 5\.0\)"):
        apply_window(np.zeros(3, np.float32), (5.0, 5.0))
    assert percentile_window(np.full(9, 7.0)) == (7.0, 8.0)


def test_large_constants_get_a_window_with_width_in_single_precision():
    huge = np.full((1, 2, 2), 3e8, dtype=np.float32)
    assert np.isfinite(to_channels(volume(huge, unit="arbitrary"), THREE)).all()
