"""The reader writes voxels once; their numbers are those that nibabel reads, bit by bit."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medvlm.data_recipes.readers import nifti


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", ["<i2", ">i2", "<u1", "<u2", "<i4", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("scaling", [None, (1, -1024), (2, 5), (0.37, -3.3)])
@pytest.mark.parametrize("codes", ["RAS", "LPI", "AIR"])
def test_numbers_of_nibabel(tmp_path, name, kind, scaling, codes):
    values = np.random.default_rng(0).normal(90, 60, (7, 6, 5)).clip(0, 200).astype(kind)
    image = nibabel.Nifti1Image(values, np.diag([1.0, 2, 3, 1]))
    target = nibabel.orientations.axcodes2ornt(codes)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))
    image.header.set_data_dtype(np.dtype(kind))
    if scaling is not None:
        image.header.set_slope_inter(*scaling)
    nibabel.save(image, tmp_path / name)
    stored = nibabel.load(tmp_path / name)
    ras = nibabel.as_closest_canonical(stored).get_fdata(dtype=np.float32)
    voxels = nifti.read(tmp_path / name).voxels
    np.testing.assert_array_equal(voxels, ras.transpose(2, 1, 0)[:, ::-1, ::-1])
    assert voxels.flags.c_contiguous
