"""Random damage to files of every format: a reader may read or refuse, but nothing else may escape."""

from __future__ import annotations

import random

import av
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.sample import VisualRef

NOISE = np.random.default_rng(0).integers(0, 255, (24, 32), dtype=np.uint8)


def write_dicom(path, *, rle):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.Rows, ds.Columns, ds.SamplesPerPixel = "CT", 24, 32, 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.RescaleSlope, ds.RescaleIntercept, ds.WindowCenter, ds.WindowWidth = 1, 0, 40, 400
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.PixelData = [1, 1], NOISE.tobytes()
    if rle:
        ds.compress(RLELossless, generate_instance_uid=False)
    pydicom.dcmwrite(path, ds)


def write_video(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
        for k in range(4):
            frame = np.roll(np.stack([NOISE] * 3, axis=-1), k, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


WRITERS = {
    "x.dcm": lambda path: write_dicom(path, rle=False),
    "rle.dcm": lambda path: write_dicom(path, rle=True),
    "x.nii": lambda path: nibabel.save(nibabel.Nifti1Image(NOISE[None], np.eye(4)), path),
    "x.nii.gz": lambda path: nibabel.save(nibabel.Nifti1Image(NOISE[None], np.eye(4)), path),
    "x.png": lambda path: PIL.Image.fromarray(NOISE).save(path),
    "x.jpg": lambda path: PIL.Image.fromarray(NOISE).save(path),
    "x.tiff": lambda path: PIL.Image.fromarray(NOISE).save(path),
    "x.npy": lambda path: np.save(path, NOISE),
    "x.mp4": write_video,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("ignore")
def test_nothing_but_a_bad_sample_escapes(tmp_path, name):
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    assert read(VisualRef(kind=sniff(tmp_path / name), path=name), tmp_path) is not None
    draw = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(20 if name == "x.mp4" else 150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 4, 20])):
            data[draw.randrange(min(len(data), 1200))] = draw.randrange(256)
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        (tmp_path / "damaged").write_bytes(data)
        try:
            kind = sniff(tmp_path / "damaged") or "image"
            read(VisualRef(kind=kind, path="damaged"), tmp_path)
            outcomes["read"] += 1
        except BadSample as bad:
            assert bad.mend and "damaged" in bad.where
            outcomes["refused"] += 1
    assert outcomes["refused"] > 0
