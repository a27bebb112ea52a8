"""The size that a header tells is the size of what the reader returns, for every format."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from conftest import a_video, a_volume, an_image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.readers.header_size import header_size
from medvlm.data_recipes.sample import VisualRef
from medvlm.model import Image, MedVLMProcessor, Volume

PICTURE = np.random.default_rng(0).integers(0, 255, (37, 53), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 255, (37, 53, 3), dtype=np.uint8)
NAMES = ("a.png", "a.jpg", "a.bmp", "a.gif", "a.webp", "a.jp2", "a.tiff")


def same(path: Path, kind: str, **options: object) -> tuple[int, int, int]:
    """Assert that header and reader agree, and return what they say."""
    ref = VisualRef(kind=kind, path=path.name, options=options)  # type: ignore[arg-type]
    visual = read(ref, path.parent)
    size = visual.voxels.shape if isinstance(visual, Volume) else (1, *visual.pixels.shape[1:])  # type: ignore[union-attr]
    assert header_size(ref, path.parent) == size
    return size  # type: ignore[return-value]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_turned_by_exif(tmp_path, name, turn):
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    picture = PIL.Image.fromarray(COLOUR)
    if name in ("a.png", "a.jpg", "a.webp", "a.tiff"):
        picture.save(tmp_path / name, exif=exif)
        assert same(tmp_path / name, "image") == ((1, 53, 37) if turn > 4 else (1, 37, 53))
    else:
        picture.save(tmp_path / name)
        assert same(tmp_path / name, "image") == (1, 37, 53)


def test_a_png_that_may_turn_the_picture_behind_its_pixels_is_not_told(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
    raw = (tmp_path / "a.png").read_bytes()
    start = raw.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(raw[start : start + 4], "big")
    tail = raw.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(raw[:start] + raw[end:tail] + raw[start:end] + raw[tail:])
    ref = VisualRef(kind="image", path="a.png")
    assert read(ref, tmp_path).pixels.shape == (1, 53, 37)  # type: ignore[union-attr]
    assert header_size(ref, tmp_path) is None


def test_pages_and_frames(tmp_path):
    pages = [PIL.Image.fromarray(PICTURE[: 20 + n]) for n in range(3)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    assert [same(tmp_path / "a.tiff", "image", frame=n)[1] for n in range(3)] == [20, 21, 22]
    with pytest.raises(BadSample, match="a TIFF of 3 pages"):
        header_size(VisualRef(kind="image", path="a.tiff"), tmp_path)
    frames = [PIL.Image.fromarray(PICTURE + n) for n in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert same(tmp_path / "a.gif", "image", frame=2) == (1, 37, 53)
    assert header_size(VisualRef(kind="video", path="a.gif"), tmp_path) is None


@pytest.mark.parametrize("codes", ["RAS", "PSR", "AIL", None])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (4, 5, 6, 3), (4, 5, 6, 1)])
def test_nifti_in_every_storage_order(tmp_path, codes, shape):
    image = nibabel.Nifti1Image(np.random.default_rng(0).random(shape, dtype=np.float32), np.diag([1.0, 2, 3, 1]))
    if codes is None:
        image.header["sform_code"] = image.header["qform_code"] = 0
    elif len(shape) > 2:
        target = nibabel.orientations.axcodes2ornt(codes)
        image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))
    nibabel.save(image, tmp_path / "a.nii.gz")
    same(tmp_path / "a.nii.gz", "volume", **({"time_index": 2} if shape[3:] == (3,) else {}))


def test_numpy(tmp_path):
    for name, array in (("grey", PICTURE), ("colour", COLOUR)):
        np.save(tmp_path / f"{name}.npy", array)
        assert same(tmp_path / f"{name}.npy", "image") == (1, 37, 53)
    np.save(tmp_path / "volume.npy", np.zeros((4, 5, 6), dtype=np.int16))
    assert same(tmp_path / "volume.npy", "volume") == (4, 5, 6)
    assert same(tmp_path / "volume.npy", "volume", orientation="RAS") == (6, 5, 4)


def test_one_dicom_file(tmp_path):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 4, 6, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelData = np.arange(24, dtype=np.uint16).tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert same(tmp_path / "a.dcm", "image") == (1, 4, 6)
    dataset.NumberOfFrames, dataset.PixelData = 2, np.arange(48, dtype=np.uint16).tobytes()
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert same(tmp_path / "b.dcm", "image", frame=1) == (1, 4, 6)
    assert header_size(VisualRef(kind="image", path="b.dcm"), tmp_path) is None


def test_what_cannot_be_read_is_refused_or_not_told(tmp_path):
    with pytest.raises(BadSample, match="no such file"):
        header_size(VisualRef(kind="image", path="none.png"), tmp_path)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(BadSample, match="a whole picture"):
        header_size(VisualRef(kind="image", path="cut.png"), tmp_path)
    PIL.Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with pytest.raises(BadSample, match=r"options\.colour means nothing"):
        header_size(VisualRef(kind="image", path="a.png", options={"colour": 1}), tmp_path)
    (tmp_path / "series").mkdir()
    assert header_size(VisualRef(kind="volume", path="series"), tmp_path) is None
    np.save(tmp_path / "image.npy", PICTURE)
    assert header_size(VisualRef(kind="volume", path="image.npy"), tmp_path) is None


@pytest.mark.parametrize("projector", [None, {"pool": [1, 2, 2]}, {"queries": {"image": 5, "volume": 7, "video": 9}}])
def test_cost_is_what_patch_makes(processor, projector):
    made = MedVLMProcessor(
        processor.tokenizer,
        patch_size=(2, 8, 8),
        merge=(1, 1, 1) if projector else (1, 2, 2),
        max_patches=processor.max_patches,
        max_depth=processor.max_depth,
        projector=projector,
    )
    for visual in (an_image(), an_image(0, 200, 90), a_volume(), a_volume(0, 33), a_video()):
        patched = made.patch(visual)
        if isinstance(visual, Image):
            size, kind = (1, *visual.pixels.shape[1:]), "image"
        elif isinstance(visual, Volume):
            size, kind = visual.voxels.shape, "volume"
        else:
            size, kind = (len(visual.frames), *visual.frames.shape[2:]), "video"
        assert made.cost(size, kind) == (len(patched.patches), patched.tokens)


def test_cost_is_unknown_when_content_decides(processor):
    made = MedVLMProcessor(processor.tokenizer, patch_size=(2, 8, 8), reduction={"method": "bounded"})
    assert made.cost((1, 64, 64), "image") is None
