"""Windows: HU to channels, percentiles over the whole volume, and values that files really hold."""

import json
from dataclasses import fields

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


def test_presets_are_their_windows():
    assert IntensityRule(hu_windows="chest").windows == THREE.windows
    expected = ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))
    assert IntensityRule(hu_windows="medgemma").windows == expected
    values = volume([[[-1024.0, -135.0, 0.0, 40.0, 80.0, 215.0, 1024.0]]])
    wide, soft, brain = to_channels(values, IntensityRule(hu_windows="medgemma"))[:, 0, 0]
    np.testing.assert_allclose(wide[[0, 2, 6]], [0, 0.5, 1])
    np.testing.assert_allclose(soft[[1, 3, 5]], [0, 0.5, 1])
    np.testing.assert_allclose(brain[[2, 3, 4]], [0, 0.5, 1])
    custom = IntensityRule(hu_windows=["lung", (-160, 240), [0, 100]])
    assert custom.windows == ((-1350.0, 150.0), (-160.0, 240.0), (0.0, 100.0))


def test_percentiles_are_chosen_and_zeros_left_out():
    rng = np.random.default_rng(1)
    voxels = np.zeros((4, 20, 20), dtype=np.float32)
    voxels[:, 5:15, 5:15] = rng.uniform(100, 200, (4, 10, 10))
    scan = volume(voxels, unit="arbitrary")
    inside = voxels[voxels != 0]
    for rule, values in (
        (IntensityRule(percentiles=[2, 98]), voxels),
        (IntensityRule(percentiles=[2, 98], percentiles_of="non_zero"), inside),
    ):
        low, high = np.percentile(values, [2, 98])
        np.testing.assert_allclose(to_channels(scan, rule)[0], ((voxels - low) / (high - low)).clip(0, 1), atol=1e-5)
    padded = volume(np.pad(voxels, ((0, 0), (30, 30), (30, 30))), unit="arbitrary")
    rule = IntensityRule(percentiles_of="non_zero")
    # What padding is there for: it must not change the tissue.
    np.testing.assert_array_equal(to_channels(padded, rule)[:, :, 30:-30, 30:-30], to_channels(scan, rule))
    empty = to_channels(volume(np.zeros((2, 3, 3)), unit="arbitrary"), rule)
    assert np.isfinite(empty).all()


def test_pet_has_its_own_window_when_asked():
    scan = volume([[[0.0, 2.5, 5.0, 20.0]]], unit="SUV", window=(0.0, 20.0))
    np.testing.assert_allclose(to_channels(scan, IntensityRule(suv_window=[0, 5]))[0, 0, 0], [0, 0.5, 1, 1])
    np.testing.assert_allclose(to_channels(scan, THREE)[0, 0, 0], [0, 0.125, 0.25, 1])
    other = volume([[[0.0, 2.5, 5.0, 20.0]]], unit="arbitrary", window=(0.0, 20.0))
    assert np.array_equal(to_channels(other, IntensityRule(suv_window=[0, 5])), to_channels(other, THREE))


def test_a_radiograph_is_shown_as_its_file_asks_or_by_percentiles():
    values = np.linspace(0.3, 0.5, 400, dtype=np.float32).reshape(1, 20, 20)
    shown = Image(pixels=values, modality="DX", unit="display")
    stretch = IntensityRule(radiograph="percentile")
    assert np.array_equal(to_channels(shown, THREE)[0, 0], values[0])
    low, high = np.percentile(values, [0.5, 99.5])
    np.testing.assert_allclose(
        to_channels(shown, stretch)[0, 0], ((values[0] - low) / (high - low)).clip(0, 1), atol=1e-5
    )
    raw = Image(pixels=values * 1000, modality="CR", unit="arbitrary", window=(0.0, 4095.0))
    np.testing.assert_allclose(to_channels(raw, stretch)[0, 0], to_channels(shown, stretch)[0, 0], atol=1e-5)
    assert to_channels(raw, THREE).max() < 0.13
    photo = Image(pixels=values, modality="photo", unit="display")
    assert np.array_equal(to_channels(photo, stretch), to_channels(photo, THREE))


def a_slide(seed=0):
    """H&E-like: glass, pink and violet, by optical density (Ruifrok and Johnston 2001)."""
    rng = np.random.default_rng(seed)
    density = np.zeros((2, 32, 32), dtype=np.float32)
    density[0, 8:20, 8:20] = rng.uniform(0.2, 0.9, (12, 12))
    density[1, 14:26, 10:30] = rng.uniform(0.2, 0.9, (12, 20))
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], dtype=np.float32)
    return np.exp(-np.einsum("shw,sc->chw", density, stains)).astype(np.float32)


def test_white_balance_takes_the_lamp_away_and_leaves_the_stains():
    slide, lamp = a_slide(), np.array([0.98, 0.92, 0.80], dtype=np.float32)[:, None, None]
    balance = IntensityRule(histology="white_balance")
    seen = Image(pixels=slide * lamp, modality="SM", unit="display")
    np.testing.assert_allclose(to_channels(seen, balance)[:, 0], slide, atol=1e-6)
    assert np.array_equal(to_channels(seen, THREE)[:, 0], slide * lamp)
    # A pale stain stays pale: the normalisations that are not neutral would make both slides alike.
    pale = Image(pixels=slide**0.5 * lamp, modality="SM", unit="display")
    np.testing.assert_allclose(to_channels(pale, balance)[:, 0], slide**0.5, atol=1e-6)
    other = Image(pixels=slide * lamp, modality="endoscopy", unit="display")
    assert np.array_equal(to_channels(other, balance), to_channels(other, THREE))


def test_tissue_without_background_keeps_its_colour():
    tissue = a_slide()[:, 8:20, 10:20]
    assert tissue[1].max() < 0.9
    image = Image(pixels=tissue * np.float32(0.8), modality="SM", unit="display")
    assert np.array_equal(to_channels(image, IntensityRule(histology="white_balance"))[:, 0], image.pixels)


@pytest.mark.parametrize("unit", ["HU", "SUV", "arbitrary"])
def test_a_slice_does_not_follow_another_slice(unit):
    rng = np.random.default_rng(3)
    voxels = rng.uniform(0, 1000, (8, 16, 16)).astype(np.float32)
    changed = voxels.copy()
    # The same values elsewhere: the whole volume has equal percentiles, each slice has others.
    changed[5] = changed[5, ::-1, ::-1]
    changed[6], changed[7] = voxels[7], voxels[6]
    for rule in (THREE, IntensityRule(percentiles_of="non_zero", suv_window=[0, 10], hu_windows="medgemma")):
        one, other = (to_channels(volume(v, unit=unit), rule) for v in (voxels, changed))
        assert np.array_equal(one[:, :5], other[:, :5]) and not np.array_equal(one[:, 5], other[:, 5])
        assert np.array_equal(one[:, 6], other[:, 7])


def test_the_rule_survives_json_with_its_defaults_written_out():
    rule = IntensityRule(hu_windows=("wide", (-160.0, 240.0), "bone"), percentiles=(1.0, 99.0), suv_window=(0.0, 8.0))
    written = json.loads(json.dumps(rule.to_dict()))
    again = IntensityRule.from_dict(written)
    assert again.to_dict() == written and again.windows == rule.windows
    assert set(IntensityRule().to_dict()) == {field.name for field in fields(IntensityRule)}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hu_windows": "thorax"}, r"hu_windows is 'thorax'.*'chest', 'medgemma'"),
        ({"hu_windows": ["lung", "soft_tissue"]}, r"three channels, got \['lung', 'soft_tissue'\].*repeat a window"),
        ({"hu_windows": ["lung", "soft_tissue", "bone", "brain"]}, "three channels.*leave one out"),
        ({"hu_windows": ["lung", "soft_tissue", "liver"]}, r"unknown HU windows \['liver'\]"),
        ({"hu_windows": ["lung", "bone", [300, 100]]}, r"\[300, 100\]; expected .*low < high"),
        ({"hu_windows": ["lung", "bone", 300]}, "hu_windows is 300; expected"),
        ({"hu_windows": ["lung", "bone", [0, "100"]]}, "expected .*in HU"),
        ({"percentiles": [99.5, 0.5]}, "percentiles.*low < high"),
        ({"percentiles": [-1, 99]}, "from 0 to 100"),
        ({"percentiles": [1]}, "percentiles is .1.; expected two percentages"),
        ({"percentiles_of": "brain"}, "percentiles_of is 'brain'; expected 'all' or 'non_zero'"),
        ({"suv_window": [0, float("nan")]}, "suv_window.*use for example"),
        ({"suv_window": 5}, "suv_window is 5; expected"),
        ({"radiograph": True}, "radiograph is True; expected 'file' or 'percentile'"),
        ({"histology": "macenko"}, "histology is 'macenko'; expected 'as_stored' or 'white_balance'"),
        ({"windows": ["lung"]}, "intensity has no field 'windows'; use one of hu_windows, percentiles"),
    ],
)
def test_wrong_use_is_said_with_the_mend(values, said):
    with pytest.raises(ValueError, match=said):
        IntensityRule.from_dict(values)
