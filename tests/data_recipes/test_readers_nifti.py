"""NIfTI files with asymmetric phantoms, so that a mirrored axis is seen."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.sample import VisualRef

RAS = np.random.default_rng(0).integers(-50, 50, (4, 5, 6)).astype(np.int16)  # [right, anterior, superior]
RAS[3, 4, 5] = 900  # the most right, anterior, superior voxel
ZOOMS = (1.0, 2.0, 3.0)
SPL = RAS.transpose(2, 1, 0)[:, ::-1, ::-1]  # [superior, posterior, left]


def load(path, **options):
    return read(VisualRef(kind="volume", path=path.name, options=options), path.parent)


def ras_image(data=RAS, zooms=ZOOMS):
    return nibabel.Nifti1Image(data, np.diag([*zooms, 1.0]))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "AIL"])
def test_every_storage_order_reads_alike(tmp_path, codes):
    image = ras_image()
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "x.nii.gz")
    assert "".join(nibabel.aff2axcodes(nibabel.load(tmp_path / "x.nii.gz").affine)) == codes
    volume = load(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(volume.voxels, SPL)
    assert volume.voxels[5, 0, 0] == 900  # superior is last, anterior first, right first
    assert volume.orientation == "SPL" and volume.spacing_mm == (3.0, 2.0, 1.0)
    assert (volume.unit, volume.modality) == ("arbitrary", "unknown")


def test_oblique_volume_keeps_its_grid(tmp_path):
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    image = nibabel.Nifti1Image(RAS, affine @ np.diag([*ZOOMS, 1]))
    nibabel.save(image, tmp_path / "x.nii")
    np.testing.assert_array_equal(load(tmp_path / "x.nii").voxels, SPL)


@pytest.mark.parametrize("kind", [nibabel.Nifti2Image, nibabel.MGHImage])
def test_nifti_2_and_mgh(tmp_path, kind):
    name = "x.mgz" if kind is nibabel.MGHImage else "x.nii"
    nibabel.save(kind(RAS, np.diag([*ZOOMS, 1.0])), tmp_path / name)
    assert sniff(tmp_path / name) == "volume"
    np.testing.assert_array_equal(load(tmp_path / name).voxels, SPL)


def test_pair_by_either_half(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(RAS, np.diag([*ZOOMS, 1.0])), tmp_path / "x.img")
    for name in ("x.img", "x.hdr"):
        assert sniff(tmp_path / name) == "volume"
        np.testing.assert_array_equal(load(tmp_path / name).voxels, SPL)


def test_content_not_extension_tells_gzip(tmp_path):
    nibabel.save(ras_image(), tmp_path / "a.nii")
    (tmp_path / "raw.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    (tmp_path / "zip.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    for name in ("raw.nii.gz", "zip.nii"):
        np.testing.assert_array_equal(load(tmp_path / name).voxels, SPL)


def test_scale_units_and_options(tmp_path):
    image = ras_image(zooms=(1000.0, 2000.0, 3000.0))
    image.header.set_xyzt_units("micron")
    image.header.set_slope_inter(2.0, -1000.0)
    image = nibabel.Nifti1Image(image.dataobj, image.affine, image.header)
    nibabel.save(image, tmp_path / "x.nii")
    # nibabel stores what the header scales: write the raw integers behind the scaled header by hand.
    data = bytearray((tmp_path / "x.nii").read_bytes())
    data[112:120] = np.array([2.0, -1000.0], "<f4").tobytes()
    (tmp_path / "x.nii").write_bytes(data)
    volume = load(tmp_path / "x.nii", unit="HU", modality="CT")
    np.testing.assert_allclose(volume.spacing_mm, (3.0, 2.0, 1.0))
    np.testing.assert_allclose(volume.voxels, SPL * 2.0 - 1000.0)
    assert (volume.unit, volume.modality) == ("HU", "CT")


def test_unknown_orientation_stays_unknown(tmp_path):
    image = nibabel.Nifti1Image(RAS, None)
    image.header.set_zooms(ZOOMS)
    nibabel.save(image, tmp_path / "x.nii")
    volume = load(tmp_path / "x.nii")
    assert volume.orientation is None and volume.spacing_mm == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(volume.voxels, RAS.transpose(2, 1, 0))


def test_4d_needs_a_choice(tmp_path):
    nibabel.save(ras_image(np.stack([RAS, RAS + 1, RAS + 2], axis=-1)), tmp_path / "x.nii.gz")
    with pytest.raises(BadSample, match=r"4D file of 3 volumes \(4, 5, 6\).*options.time_index, 0 to 2"):
        load(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(load(tmp_path / "x.nii.gz", time_index=2).voxels, SPL + 2)
    with pytest.raises(BadSample, match=r"options.time_index is 3, but the file holds 3"):
        load(tmp_path / "x.nii.gz", time_index=3)
    nibabel.save(ras_image(RAS[..., None]), tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(load(tmp_path / "one.nii.gz").voxels, SPL)


def test_vectors_colour_and_complex_are_refused(tmp_path):
    nibabel.save(ras_image(np.zeros((2, 2, 2, 1, 3), np.float32)), tmp_path / "v.nii")
    with pytest.raises(BadSample, match=r"5D voxels \(2, 2, 2, 1, 3\)"):
        load(tmp_path / "v.nii")
    rgb = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(ras_image(rgb), tmp_path / "c.nii")
    with pytest.raises(BadSample, match=r"one real number per voxel"):
        load(tmp_path / "c.nii")
    nibabel.save(ras_image(np.zeros((2, 2, 2), np.complex64)), tmp_path / "z.nii")
    with pytest.raises(BadSample, match=r"complex64; one real number per voxel"):
        load(tmp_path / "z.nii")


def test_nan_voxels_are_counted(tmp_path):
    values = RAS.astype(np.float32)
    values[0, 0, :3] = np.nan
    values[1, 1, 1] = np.inf
    nibabel.save(ras_image(values), tmp_path / "x.nii")
    with pytest.raises(BadSample, match=r"x.nii: 4 of 120 voxels are NaN or infinite"):
        load(tmp_path / "x.nii")


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_bad_spacing_in_the_header(tmp_path, bad):
    nibabel.save(ras_image(), tmp_path / "x.nii")
    data = bytearray((tmp_path / "x.nii").read_bytes())
    data[84:88] = np.array(bad, "<f4").tobytes()  # pixdim[2]
    (tmp_path / "x.nii").write_bytes(data)
    with pytest.raises(BadSample, match=r"voxel spacing \[1.0, .*, 3.0\].*positive millimetres.*pixdim"):
        load(tmp_path / "x.nii")


def test_truncated_and_lying_files(tmp_path):
    noise = np.random.default_rng(1).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    nibabel.save(ras_image(noise), tmp_path / "x.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "x.nii.gz").read_bytes()[:6000])
    with pytest.raises(BadSample, match=r"cut.nii.gz: expected voxels for the whole grid.*Mend: copy"):
        load(tmp_path / "cut.nii.gz")
    nibabel.save(ras_image(noise), tmp_path / "x.nii")
    data = bytearray((tmp_path / "x.nii").read_bytes())
    (tmp_path / "short.nii").write_bytes(data[:5000])
    with pytest.raises(BadSample, match=r"the header claims \(20, 20, 20\) voxels"):
        load(tmp_path / "short.nii")
    data[42:44] = np.array(30000, "<i2").tobytes()
    (tmp_path / "lie.nii").write_bytes(data)
    with pytest.raises(BadSample, match=r"the header claims \(30000, 20, 20\) voxels"):
        load(tmp_path / "lie.nii")


def test_header_without_its_voxels(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(RAS, np.eye(4)), tmp_path / "x.img")
    (tmp_path / "x.img").unlink()
    with pytest.raises(BadSample, match=r"x.hdr: expected voxels for the whole grid"):
        load(tmp_path / "x.hdr")
