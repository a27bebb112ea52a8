"""DICOM files and series written by pydicom, with asymmetric phantoms, so that a mirrored axis is seen."""

from __future__ import annotations

import io
import warnings

import av
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.readers.dicom import read_series
from medvlm.data_recipes.readers.dicom_size import codestream_size
from medvlm.data_recipes.sample import VisualRef

SPL = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
SPL[5, 0, 0] = 2000  # the most superior, anterior, right voxel
SPACING = (3.0, 2.0, 1.0)
SERIES = generate_uid()
AXIAL = [1, 0, 0, 0, 1, 0]


def header(array, modality="CT", **tags):
    """A data set of one grey or RGB picture; ``tags`` override, None deletes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.SeriesInstanceUID, ds.Modality, ds.PatientName = SERIES, modality, "SECRET^NAME"
    colour = array.ndim >= 3 and array.shape[-1] == 3
    ds.Rows, ds.Columns = array.shape[-3:-1] if colour else array.shape[-2:]
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = array.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = ds.BitsAllocated, ds.BitsAllocated - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    ds.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def save(ds, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some headers are wrong on purpose
        ds.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, hu=SPL, **changes):
    """One file per axial slice, names in random order; ``changes[k]`` edits the data set of slice k."""
    folder.mkdir(exist_ok=True)
    names = np.random.default_rng(1).permutation(len(hu))
    for k, plane in enumerate(hu):
        ds = header(
            plane + 1024,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            ImagePositionPatient=[-10, -20, 30 + SPACING[0] * k],
            ImageOrientationPatient=AXIAL,
            PixelSpacing=list(SPACING[1:]),
            InstanceNumber=len(hu) - k,
            WindowCenter=40,
            WindowWidth=400,
        )
        if f"slice{k}" in changes:
            changes[f"slice{k}"](ds)
        save(ds, folder / f"{names[k]:03d}.dcm")
    return folder


def volume(path, **options):
    return read(VisualRef(kind="volume", path=path.name, options=options), path.parent)


def image(path, **options):
    return read(VisualRef(kind="image", path=path.name, options=options), path.parent)


def test_series_is_sorted_rescaled_and_oriented(tmp_path):
    folder = write_series(tmp_path / "s")
    assert sniff(folder) == "volume"
    scan = volume(folder)
    np.testing.assert_array_equal(scan.voxels, SPL)
    assert scan.orientation == "SPL" and scan.spacing_mm == SPACING
    assert (scan.unit, scan.modality, scan.window) == ("HU", "CT", (-160.0, 240.0))


def test_series_and_nifti_of_one_scan_read_alike(tmp_path):
    # The same patient space: NIfTI counts towards Right, Anterior; DICOM towards Left, Posterior.
    affine = np.array([[-1.0, 0, 0, 10], [0, -2.0, 0, 20], [0, 0, 3.0, 30], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(SPL.transpose(2, 1, 0), affine), tmp_path / "x.nii.gz")
    one, other = volume(write_series(tmp_path / "s")), volume(tmp_path / "x.nii.gz", unit="HU")
    np.testing.assert_array_equal(one.voxels, other.voxels)
    assert (one.spacing_mm, one.orientation, one.unit) == (other.spacing_mm, other.orientation, other.unit)


def test_sagittal_series_reads_as_the_axial_one(tmp_path):
    for x in range(4):  # slices from right to left; rows run down, columns run to posterior
        plane = np.ascontiguousarray(SPL[::-1, :, x])
        ds = header(plane, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], PixelSpacing=[3, 2])
        ds.ImagePositionPatient, ds.RescaleSlope, ds.RescaleIntercept = [float(x), 0, 15], 1, 0
        save(ds, tmp_path / f"{x}.dcm")
    scan = volume(tmp_path)
    np.testing.assert_array_equal(scan.voxels, SPL)
    assert scan.spacing_mm == SPACING and scan.orientation == "SPL"


def test_missing_slice_names_both_neighbours(tmp_path):
    folder = write_series(tmp_path / "s")
    named = {float(pydicom.dcmread(p).ImagePositionPatient[2]): p for p in folder.iterdir()}
    named[36.0].unlink()
    before, after = named[33.0].name, named[39.0].name
    with pytest.raises(BadSample, match=rf"{before} and {after} are 6.000 mm apart.* 3.000 mm.*resample_gaps"):
        volume(folder)
    mended = volume(folder, resample_gaps=True)
    assert mended.voxels.shape == SPL.shape and mended.spacing_mm == SPACING
    np.testing.assert_allclose(mended.voxels[2], (SPL[1].astype(float) + SPL[3]) / 2)
    np.testing.assert_array_equal(mended.voxels[[0, 1, 3, 4, 5]], SPL[[0, 1, 3, 4, 5]])


def test_drifting_distances_are_a_gap_too(tmp_path):
    hu = np.repeat(SPL, 20, axis=0)

    def place(k):
        return lambda ds: setattr(ds, "ImagePositionPatient", [0, 0, k * 3.0 + max(0, k - 60) * 0.25])

    folder = write_series(tmp_path / "s", hu, **{f"slice{k}": place(k) for k in range(len(hu))})
    with pytest.raises(BadSample, match="the spacing changes"):
        volume(folder)


def test_duplicate_position(tmp_path):
    folder = write_series(tmp_path / "s", slice3=lambda ds: setattr(ds, "ImagePositionPatient", [-10, -20, 36]))
    with pytest.raises(BadSample, match=r"lie at one position \(36.000 mm.*1 pairs of 6 slices"):
        volume(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"PixelSpacing": [0, 1]}, r"PixelSpacing is \[0.0, 1.0\]; two positive millimetres"),
        ({"PixelSpacing": None}, r"PixelSpacing is absent"),
        ({"PixelSpacing": [3, 1]}, r"slices of 2 pixel spacings: 5 of \(2.0, 1.0\), 1 of \(3.0, 1.0\)"),
        ({"ImagePositionPatient": None}, r"ImagePositionPatient is absent"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, r"slices of 2 orientations: 5 of"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, r"no pair of perpendicular unit vectors"),
        ({"SeriesInstanceUID": "1.2.3"}, r"2 series in one folder.*1.2.3 \(1 files\).*options.series_uid"),
        ({"RescaleSlope": 0}, r"RescaleSlope is 0"),
        ({"RescaleIntercept": None}, r"RescaleIntercept is absent"),
        ({"Modality": "MR"}, r"slices in different units \(HU, arbitrary\)"),
        ({"PixelData": b"\0" * 10}, r"expected 1 whole frame\(s\) of 5x4"),
    ],
)
def test_one_bad_slice_spoils_the_series(tmp_path, edit, message):
    def change(ds):
        for name, value in edit.items():
            delattr(ds, name) if value is None else setattr(ds, name, value)

    with pytest.raises(BadSample, match=message) as caught:
        volume(write_series(tmp_path / "s", slice2=change))
    assert "SECRET" not in str(caught.value) and caught.value.mend


def test_mixed_sizes(tmp_path):
    folder = write_series(tmp_path / "s")
    ds = header(np.zeros((7, 4), np.int16), ImageOrientationPatient=AXIAL, PixelSpacing=[2, 1])
    ds.ImagePositionPatient = [-10, -20, 48]
    save(ds, folder / "z.dcm")
    with pytest.raises(BadSample, match=r"slices of 2 sizes: 6 of \(5, 4\), 1 of \(7, 4\) \(such as z.dcm\)"):
        volume(folder)


def test_series_is_chosen_by_its_uid(tmp_path):
    folder = write_series(tmp_path / "s")
    save(header(np.zeros((7, 4), np.int16), SeriesInstanceUID="1.2.3"), folder / "z.dcm")
    np.testing.assert_array_equal(volume(folder, series_uid=SERIES).voxels, SPL)
    with pytest.raises(BadSample, match=r"9.9 is not among them"):
        volume(folder, series_uid="9.9")


def test_other_files_are_passed_over_but_damaged_slices_are_not(tmp_path):
    folder = write_series(tmp_path / "s")
    (folder / "notes.txt").write_text("scanned on a Monday")
    report = header(np.zeros((2, 2), np.int16), Rows=None, Columns=None, PixelData=None, Modality="SR")
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    save(report, folder / "report.dcm")
    np.testing.assert_array_equal(volume(folder).voxels, SPL)
    (folder / "lost.dcm").touch()
    with pytest.raises(BadSample, match=r"lost.dcm: not a DICOM file \(0 bytes\), although it stands among"):
        volume(folder)


def test_gantry_tilt_takes_the_distance_along_the_normal(tmp_path):
    turn = np.deg2rad(20)
    for k in range(4):
        ds = header(SPL[k], RescaleSlope=1, RescaleIntercept=0, PixelSpacing=[1, 1])
        ds.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(turn)), -float(np.sin(turn))]
        ds.ImagePositionPatient = [0, 0, 5.0 * k]
        save(ds, tmp_path / f"{k}.dcm")
    scan = volume(tmp_path)
    assert scan.spacing_mm[0] == pytest.approx(5 * np.cos(turn), abs=1e-3)
    np.testing.assert_array_equal(scan.voxels, SPL[:4])


def test_one_slice_is_no_volume(tmp_path):
    folder = write_series(tmp_path / "s", SPL[:1])
    with pytest.raises(BadSample, match=r"1 slice\(s\); a volume needs at least 2"):
        volume(folder)
    assert sniff(folder) is None
    with pytest.raises(BadSample, match=r"of kind image, but the manifest says volume"):
        volume(next(folder.iterdir()))
    with pytest.raises(BadSample, match=r"no DICOM image"):
        read_series(tmp_path)


def test_enhanced_multi_frame_is_a_volume(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    ds = header(SPL[order] + 1024, NumberOfFrames=6, SOPClassUID=EnhancedCTImageStorage)
    shared, ds.PerFrameFunctionalGroupsSequence = Dataset(), Sequence()
    measures, plane, value = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = list(SPACING[1:]), AXIAL
    value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 1, -1024, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [value]
    ds.SharedFunctionalGroupsSequence = [shared]
    for k in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 3.0 * k]
        frame.PlanePositionSequence = [position]
        # As Philips writes it: a sequence of the maker's own that states positions of another meaning, and comes last.
        own = Dataset()
        own.ImagePositionPatient = [9, 9, 50.0 - k]
        frame.private_block(0x2005, "MAKER", create=True).add_new(0x0F, "SQ", Sequence([own]))
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    path = save(ds, tmp_path / "x.dcm")
    assert sniff(path) == "volume"
    scan = volume(path)
    np.testing.assert_array_equal(scan.voxels, SPL)
    assert (scan.spacing_mm, scan.unit, scan.orientation) == (SPACING, "HU", "SPL")
    single = image(path, frame=2)
    np.testing.assert_array_equal(single.pixels[0], SPL[5])
    assert single.spacing_mm == (2.0, 1.0) and single.orientation == "PL"


def test_radiograph_is_shown_as_its_window_asks(tmp_path):
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    tags = {"WindowCenter": 2048, "WindowWidth": 4096, "BitsStored": 12, "HighBit": 11}
    bright = image(save(header(stored, "DX", **tags), tmp_path / "2.dcm"))
    assert bright.unit == "display" and bright.window is None and bright.spacing_mm is None
    np.testing.assert_allclose(bright.pixels[0].ravel(), np.arange(4096) / 4095, atol=1e-6)
    dark = header(stored, "DX", PhotometricInterpretation="MONOCHROME1", ImagerPixelSpacing=[0.2, 0.1], **tags)
    dark.PatientOrientation, dark.EstimatedRadiographicMagnificationFactor = ["L", "F"], 2
    dark = image(save(dark, tmp_path / "1.dcm"))
    np.testing.assert_allclose(dark.pixels, 1 - bright.pixels, atol=1e-6)
    assert dark.orientation == "IL" and dark.spacing_mm == (0.1, 0.05)


def test_radiograph_without_a_window_keeps_its_values(tmp_path):
    stored = (np.arange(16, dtype=np.uint16) * 100).reshape(4, 4)
    plain = image(save(header(stored, "CR", WindowCenter=0, WindowWidth=0), tmp_path / "x.dcm"))
    assert plain.unit == "arbitrary" and plain.window == (0.0, 1500.0)
    np.testing.assert_array_equal(plain.pixels[0], stored)


def test_voi_lut_and_sigmoid(tmp_path):
    stored = np.arange(16, dtype=np.uint16).reshape(4, 4)
    ds = header(stored, "DX")
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [16, 0, 16], [0] * 8 + [4095] * 8  # claims 16 bits, uses 12
    table["LUTDescriptor"].VR = "US"
    table["LUTData"].VR = "US"
    ds.VOILUTSequence = [table]
    np.testing.assert_array_equal(image(save(ds, tmp_path / "l.dcm")).pixels[0], (stored >= 8).astype(float))
    sigmoid = header(stored, "DX", WindowCenter=8, WindowWidth=4, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(
        image(save(sigmoid, tmp_path / "s.dcm")).pixels[0], 1 / (1 + np.exp(-(stored - 8.0))), atol=1e-6
    )


def test_suv_only_when_the_file_says_so(tmp_path):
    counts = np.ones((4, 4), np.uint16)
    for units, expected in (("GML", "SUV"), ("BQML", "arbitrary")):
        ds = header(counts, "PT", Units=units, RescaleSlope=0.5, RescaleIntercept=0)
        found = image(save(ds, tmp_path / f"{units}.dcm"))
        assert found.unit == expected and found.pixels.max() == 0.5


def test_colour_palette_and_compression(tmp_path):
    rgb = np.random.default_rng(3).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    plain = image(save(header(rgb, "US"), tmp_path / "rgb.dcm"))
    np.testing.assert_allclose(plain.pixels, rgb.transpose(2, 0, 1) / 255, atol=1e-6)
    packed = header(rgb, "US")
    packed.compress(RLELossless, generate_instance_uid=False)
    np.testing.assert_array_equal(image(save(packed, tmp_path / "rle.dcm")).pixels, plain.pixels)
    ds = header(np.arange(4, dtype=np.uint8).reshape(2, 2), "US", PhotometricInterpretation="PALETTE COLOR")
    for name, values in (("Red", [0, 255, 0, 0]), ("Green", [0, 0, 255, 0]), ("Blue", [0, 0, 0, 255])):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(ds, f"{name}PaletteColorLookupTableData", bytes(values))
    shown = image(save(ds, tmp_path / "p.dcm")).pixels
    np.testing.assert_array_equal(shown[:, 0, 1], [1, 0, 0])
    np.testing.assert_array_equal(shown[:, 1, 1], [0, 0, 1])


def test_file_without_preamble_and_meta(tmp_path):
    ds = header(SPL[0], RescaleSlope=1, RescaleIntercept=0)
    save(ds, tmp_path / "x.dcm")
    data = (tmp_path / "x.dcm").read_bytes()
    ds.file_meta = FileMetaDataset()
    ds.preamble = None
    ds.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True, enforce_file_format=False)
    (tmp_path / "nopreamble").write_bytes(data[132:])
    for name in ("bare", "nopreamble"):
        np.testing.assert_array_equal(image(tmp_path / name).pixels[0], SPL[0])


def test_objects_without_pixels(tmp_path):
    ds = header(np.zeros((2, 2), np.int16), Rows=None, Columns=None, PixelData=None, Modality="RTPLAN")
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.5"
    path = save(ds, tmp_path / "plan.dcm")
    assert sniff(path) is None
    with pytest.raises(BadSample, match=r"plan.dcm: this DICOM file holds no pixels \(RT Plan Storage\)") as caught:
        image(path)
    assert "SECRET" not in str(caught.value)
    path = save(header(np.zeros((2, 2), np.int16), PixelData=None), tmp_path / "head.dcm")
    with pytest.raises(BadSample, match=r"holds no pixels: it has an image header without PixelData"):
        image(path)


def test_more_pixels_than_the_header_says(tmp_path):
    path = save(header(np.zeros((3, 8, 6), np.int16)), tmp_path / "x.dcm")
    with pytest.raises(BadSample, match=r"288 bytes of pixels, but the header's 1 frame\(s\) of 8x6 need 96"):
        image(path)


def test_compressed_frame_of_another_size(tmp_path):
    file = io.BytesIO()
    PIL.Image.fromarray(np.zeros((80, 60), np.uint8)).save(file, "JPEG")
    ds = header(np.zeros((8, 6), np.uint8), "CR")
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([file.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    path = save(ds, tmp_path / "x.dcm")
    with pytest.raises(BadSample, match=r"the compressed frame is of 80x60, but the header says 8x6"):
        image(path)
    ds.Rows, ds.Columns = 80, 60
    assert image(save(ds, path)).pixels.shape == (1, 80, 60)


def test_size_in_a_jpeg_2000_codestream():
    file = io.BytesIO()
    PIL.Image.fromarray(np.zeros((80, 60), np.uint8)).save(file, "JPEG2000")
    assert codestream_size(file.getvalue()) == (80, 60)
    assert codestream_size(b"\xff\xd8\xff") is None and codestream_size(b"") is None


def cine(count=50, **tags):
    frames = np.zeros((count, 8, 6, 3), np.uint8)
    frames[:] = (np.arange(count) * 5)[:, None, None, None]
    return header(frames, "US", NumberOfFrames=count, **tags)


def test_cine_is_a_video(tmp_path):
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, -0.05
    path = save(cine(FrameTime=40, SequenceOfUltrasoundRegions=[region]), tmp_path / "us.dcm")
    assert sniff(path) == "video"
    video = read(VisualRef(kind="video", path="us.dcm", options={"max_frames": 50}), tmp_path)
    np.testing.assert_allclose(video.times_s, np.arange(50) * 0.04)
    np.testing.assert_allclose(video.frames[:, 0, 0, 0] * 255, np.arange(50) * 5, atol=1e-3)
    assert video.frames.shape == (50, 1, 8, 6) and video.modality == "US"
    np.testing.assert_allclose(video.spacing_mm, (0.5, 0.2))
    capped = read(VisualRef(kind="video", path="us.dcm", options={"start_s": 0.4, "max_frames": 4}), tmp_path)
    np.testing.assert_allclose(capped.times_s, [0.4, 0.92, 1.44, 1.96], atol=1e-6)
    assert image(path, frame=7).pixels.max() == pytest.approx(35 / 255)


def test_frames_without_times_or_positions_need_a_choice(tmp_path):
    path = save(cine(), tmp_path / "x.dcm")
    assert sniff(path) == "image"
    with pytest.raises(BadSample, match=r"50 frames without positions.*options.frame, 0 to 49"):
        image(path)
    with pytest.raises(BadSample, match=r"without FrameTime.*options.frame_time_s"):
        read(VisualRef(kind="video", path="x.dcm"), tmp_path)
    stated = read(VisualRef(kind="video", path="x.dcm", options={"frame_time_s": 0.5}), tmp_path)
    assert stated.times_s[-1] == 24.5


def test_encapsulated_mpeg_is_decoded(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for k in range(12):
            frame = np.full((64, 96, 3), k * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    ds = header(np.zeros((64, 96, 3), np.uint8), "ES", NumberOfFrames=12, FrameTime=100)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    ds.PixelData = encapsulate([file.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    save(ds, tmp_path / "x.dcm")
    video = read(VisualRef(kind="video", path="x.dcm"), tmp_path)
    np.testing.assert_allclose(video.frames[:, 0, 30, 30] * 255, np.arange(12) * 20, atol=6)
    np.testing.assert_allclose(video.times_s, np.arange(12) / 10, atol=1e-3)


def test_bytes_that_only_look_like_dicom(tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(0).bytes(500))
    with pytest.raises(BadSample, match=r"x.dcm: .*Mend: copy the file again"):
        image(tmp_path / "x.dcm")
