"""NumPy files: the manifest tells what they are."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.sample import VisualRef


def load(folder, kind, **options):
    return read(VisualRef(kind=kind, path="x.npy", options=options), folder)


def test_volume_with_and_without_what_the_manifest_knows(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    np.save(tmp_path / "x.npy", values)
    assert sniff(tmp_path / "x.npy") == "volume"
    bare = load(tmp_path, "volume")
    assert bare.spacing_mm is None and bare.orientation is None
    assert (bare.unit, bare.modality) == ("arbitrary", "unknown")
    told = load(tmp_path, "volume", spacing_mm=[3, 1, 1], unit="HU", modality="CT", orientation="IPL")
    assert told.spacing_mm == (3.0, 1.0, 1.0) and told.unit == "HU" and told.orientation == "SPL"
    np.testing.assert_array_equal(told.voxels, values[::-1])


def test_images(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(5))
    assert sniff(tmp_path / "x.npy") == "image" and load(tmp_path, "image").pixels.shape == (1, 5, 5)
    np.save(tmp_path / "x.npy", np.full((5, 6, 3), 255, np.uint8))
    colour = load(tmp_path, "image")
    assert colour.pixels.shape == (3, 5, 6) and colour.pixels.max() == 1 and colour.unit == "display"


def test_nan_pickles_shapes_and_bad_options(tmp_path):
    values = np.zeros((2, 3, 4), np.float32)
    values[0, 0] = np.nan
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(BadSample, match=r"4 of 24 values are NaN"):
        load(tmp_path, "volume")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(BadSample, match=r"shape \(2, 3, 4, 5\)"):
        load(tmp_path, "volume")
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadSample, match=r"a whole .npy file of numbers"):
        load(tmp_path, "volume")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4)))
    with pytest.raises(BadSample, match=r"options.unit is 'hounsfield'.*HU, SUV"):
        load(tmp_path, "volume", unit="hounsfield")
    with pytest.raises(BadSample, match=r"orientation of three letters"):
        load(tmp_path, "volume", orientation="XYZ")


def test_truncated(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 30, 40)))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:5000])
    with pytest.raises(BadSample, match=r"a whole .npy file"):
        load(tmp_path, "volume")
