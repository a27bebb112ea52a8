"""Real files from arrays, byte for byte the same each time: PNG, DICOM, NIfTI and MP4.

A file is written under a temporary name and renamed. Pictures are not fsynced one by one (a data set has tens of
thousands): ``phantoms.json``, written last and fsynced after a sync of everything, is what says that a folder is whole.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from fractions import Fraction
from pathlib import Path

import av
import nibabel as nib
import numpy as np
from PIL import Image as Picture
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from medvlm.data_recipes.phantoms.cine import FRAMES_PER_SECOND

DATE, TIME = "19000101", "120000"
"""Stated in every DICOM file: the clock would make each run's bytes differ. 1900 is the usual date of nobody."""


def put(path: Path, data: bytes) -> str:
    """Write ``data`` under a temporary name, rename, and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)
    return hashlib.sha256(data).hexdigest()


def uid(*words: object) -> UID:
    """A DICOM UID under 2.25 derived from ``words`` (PS3.5 annex B.2 with a hash in place of the UUID)."""
    digest = hashlib.sha256("|".join(map(str, words)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def png_bytes(picture: np.ndarray) -> bytes:
    """(H, W) float in [0, 1] -> 8-bit grey PNG."""
    buffer = io.BytesIO()
    Picture.fromarray(np.rint(255 * picture).astype(np.uint8)).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def _dataset(sop_class: UID, instance: UID, patient_id: str, modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("medvlm phantoms")
    dataset = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.PatientID, dataset.PatientName = patient_id, "PHANTOM"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = TIME
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    # No person stands behind these names and dates; whoever checks the files for identifiers may believe that.
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "virtual patient"
    dataset.Manufacturer = "medvlm phantoms"
    dataset.Modality, dataset.SeriesNumber, dataset.BodyPartExamined = modality, 1, "CHEST"
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.PixelRepresentation = 1, 16, 0
    return dataset


def _dicom_bytes(dataset: FileDataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dx_bytes(picture: np.ndarray, *, spacing_mm: float, patient_id: str, words: tuple[object, ...]) -> bytes:
    """(H, W) float in [0, 1] -> DICOM digital radiograph, 12 bits in 16, MONOCHROME1 (large numbers are dark)."""
    dataset = _dataset(DigitalXRayImageStorageForPresentation, uid(*words, "dx"), patient_id, "DX")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(*words, "dx study"), uid(*words, "dx series")
    dataset.InstanceNumber, dataset.ViewPosition, dataset.PresentationIntentType = 1, "PA", "FOR PRESENTATION"
    dataset.PatientOrientation = ["L", "F"]
    dataset.Rows, dataset.Columns = picture.shape
    dataset.PixelSpacing = dataset.ImagerPixelSpacing = [spacing_mm, spacing_mm]
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PhotometricInterpretation, dataset.PresentationLUTShape = "MONOCHROME1", "INVERSE"
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "US"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = np.rint(4095 * (1 - picture)).astype("<u2").tobytes()
    return _dicom_bytes(dataset)


def ct_series(
    hu: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float],
    patient_id: str,
    words: tuple[object, ...],
    order: np.ndarray,
) -> list[tuple[str, bytes]]:
    """(D, H, W) HU -> (name, bytes) of one file a slice, named in the shuffled ``order`` so that names tell nothing."""
    step_z, step_y, step_x = spacing_mm
    _, height, width = hu.shape
    files = []
    for number, k in enumerate(order):
        dataset = _dataset(CTImageStorage, uid(*words, "ct", k), patient_id, "CT")
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(*words, "ct study"), uid(*words, "ct series")
        dataset.FrameOfReferenceUID, dataset.InstanceNumber = uid(*words, "ct frame"), int(k) + 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Rows, dataset.Columns = height, width
        dataset.PixelSpacing, dataset.SliceThickness = [step_y, step_x], step_z
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [round(v, 4) for v in _position(hu.shape, spacing_mm, int(k))]
        dataset.BitsStored, dataset.HighBit, dataset.PhotometricInterpretation = 16, 15, "MONOCHROME2"
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.WindowCenter, dataset.WindowWidth = -400, 1500
        dataset.PixelData = (hu[k].astype(np.int32) + 1024).astype("<u2").tobytes()
        files.append((f"{number:03d}.dcm", _dicom_bytes(dataset)))
    return files


def _position(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], slice_index: int
) -> tuple[float, float, float]:
    """DICOM position (x to the left, y to posterior, z to superior) of the first voxel of a slice."""
    (depth, height, width), (step_z, step_y, step_x) = shape, spacing_mm
    return -(width - 1) / 2 * step_x, -(height - 1) / 2 * step_y, (slice_index - (depth - 1) / 2) * step_z


def nifti_bytes(hu: np.ndarray, *, spacing_mm: tuple[float, float, float]) -> bytes:
    """(D, H, W) HU -> .nii.gz whose affine says, in RAS, what the DICOM series says in LPS."""
    step_z, step_y, step_x = spacing_mm
    x, y, z = _position(hu.shape, spacing_mm, 0)
    affine = np.array([[-step_x, 0, 0, -x], [0, -step_y, 0, -y], [0, 0, step_z, z], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.ascontiguousarray(hu.transpose(2, 1, 0)), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def mp4_bytes(frames: np.ndarray) -> bytes:
    """(T, H, W) uint8 -> MP4, H.264 where PyAV has it and MPEG-4 part 2 otherwise; always the same bytes."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # One thread and no assembly: some runs of x264's SIMD code give other bytes for the same frames.
        x264 = {"crf": "18", "preset": "veryfast", "x264-params": "asm=0"}
        options = x264 if codec == "libx264" else {"qscale": "3"}
        stream = container.add_stream(codec, rate=FRAMES_PER_SECOND, options=options)
        if not isinstance(stream, av.VideoStream):
            raise TypeError(f"PyAV made a {type(stream).__name__} for the video codec {codec}")
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, FRAMES_PER_SECOND)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()
