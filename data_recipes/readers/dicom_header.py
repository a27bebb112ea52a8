"""What a DICOM data set says of itself: opening it, and its geometry, units and windows."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.content import is_gzip
from medvlm.data_recipes.readers.refusals import decoding
from medvlm.model.geometry import OPPOSITE, orientation_of_directions
from medvlm.model.visual import Unit

DICOM_ERRORS = (InvalidDicomError, BytesLengthException)

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

MOST_FRAMES = 100_000
"""Also above every other count; a file that claims more is damaged, and would fill memory."""

_COUNTS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored",
           "PixelRepresentation")  # fmt: skip
_READ = ("SOPClassUID", "SeriesInstanceUID", "Modality", "Units", "PhotometricInterpretation", "PatientOrientation",
         "RescaleType", "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence", "SequenceOfUltrasoundRegions",
         "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # fmt: skip
"""Elements that readers look at. pydicom parses an element when it is first asked for, so that a damaged one would
fail anywhere: these are asked for once, when the file is opened."""

_BODY = {"H": "S", "F": "I", "L": "L", "R": "R", "A": "A", "P": "P"}
"""PatientOrientation letters (PS3.3 C.7.6.1.1.1) to ours: Head is Superior, Foot is Inferior."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning: its warnings may quote header values, and what matters is checked here."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def open_dataset(path: Path, *, pixels: bool) -> Dataset:
    """Read the data set, also when gzipped, or without preamble or file meta information.

    Args:
        path: the file.
        pixels: False reads the header only.

    Raises:
        BadSample: not DICOM, or damaged. Messages hold no header value: those may name the patient.
    """
    mend = "copy the file again from its source, or leave it out"
    with (
        decoding(path, "a DICOM data set", mend, also=DICOM_ERRORS, quote=False),
        gzip.open(path) if is_gzip(path) else path.open("rb") as stream,
        quiet(),
    ):
        dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=not pixels)
        # With force, any bytes become some data set: one without a single sensible element is no DICOM.
        known = ("SOPClassUID", "Rows", "Modality", "StudyInstanceUID", "SeriesInstanceUID")
        sensible = any(keyword in dataset for keyword in known) or "MediaStorageSOPClassUID" in dataset.file_meta
        _parse_what_is_read(dataset)
    if not sensible:
        raise BadSample("no SOP class, modality, series or image size: not a DICOM image", where=str(path), mend=mend)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta = dataset.file_meta or FileMetaDataset()
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _parse_what_is_read(dataset: Dataset) -> None:
    for keyword in _COUNTS:
        value = dataset.get(keyword)
        if value is not None and not 0 <= int(value) <= MOST_FRAMES:
            raise ValueError(f"{keyword} is out of range")
    for keyword in _READ:
        value = dataset.get(keyword)
        for item in value if isinstance(value, pydicom.Sequence) else ():
            list(item.iterall())
    for keyword in PIXEL_KEYWORDS:
        if keyword in dataset and not isinstance(dataset[keyword].value, bytes):
            raise ValueError(f"{keyword} is no bytes")
    list(dataset.file_meta)
    if not isinstance(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian), UID):
        raise ValueError("TransferSyntaxUID is no single UID")


def require_pixels(dataset: Dataset, path: Path) -> None:
    """Refuse SR, RTPLAN, DICOMDIR, waveforms and other objects without an image; works on a header alone."""
    if "Rows" in dataset and "Columns" in dataset and int(dataset.Rows or 0) and int(dataset.Columns or 0):
        return
    kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    name = getattr(kind, "name", None) or "an object of unknown class"
    raise BadSample(
        f"this DICOM file holds no pixels ({name})",
        where=str(path),
        mend="give an image object (CT, MR, CR, DX, US, ...), or leave the file out",
    )


def numbers(dataset: Dataset, keyword: str, length: int | None, path: Path) -> tuple[float, ...] | None:
    """The finite numbers of an element, or None when it is absent or empty.

    Raises:
        BadSample: not numbers, or not ``length`` of them (any number when None).
    """
    with decoding(path, f"numbers in {keyword}", f"repair {keyword}", also=DICOM_ERRORS, quote=False):
        value = dataset.get(keyword)
        if value is None or value == "" or (isinstance(value, MultiValue) and not len(value)):
            return None
        listed = value if isinstance(value, (MultiValue, list, tuple)) else [value]
        found = tuple(float(v) for v in listed)
    if (length is not None and len(found) != length) or not np.isfinite(found).all():
        raise BadSample(
            f"{keyword} holds {len(found)} values {list(found)[:6]}; {length or 'finite'} numbers are expected",
            where=str(path),
            mend=f"repair {keyword}",
        )
    return found


def frame_count(dataset: Dataset) -> int:
    """NumberOfFrames, 1 when absent."""
    return int(dataset.get("NumberOfFrames") or 1)


def frame_groups(dataset: Dataset, frame: int) -> Dataset:
    """Flat view of what holds for one frame: its functional groups (PS3.3 C.7.6.16) over the data set.

    Of an ordinary data set it is the data set itself.
    """
    if "SharedFunctionalGroupsSequence" not in dataset and "PerFrameFunctionalGroupsSequence" not in dataset:
        return dataset
    flat = Dataset()
    for keyword in ("Modality", "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelSpacing", "Units",
                    "ImagerPixelSpacing", "PatientOrientation", "WindowCenter", "WindowWidth"):  # fmt: skip
        if keyword in dataset:
            setattr(flat, keyword, dataset.get(keyword))
    layers = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    layers += list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    for layer in layers:
        for element in layer:
            # Makers put sequences of their own beside the standard ones, with positions of another meaning.
            if element.VR == "SQ" and len(element.value) and not element.tag.is_private:
                flat.update(element.value[0])
    return flat


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where one slice lies in the patient, in DICOM coordinates: +x Left, +y Posterior, +z Superior, mm.

    Attributes:
        path, frame: the slice.
        position: (3,) of the first pixel's centre.
        down, right: (3,) unit directions in which the row number and the column number grow.
        spacing: (between rows, between columns) millimetres.
        size: (rows, columns).
    """

    path: Path
    frame: int
    position: np.ndarray
    down: np.ndarray
    right: np.ndarray
    spacing: tuple[float, float]
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """How complaints name the slice."""
        return f"{self.path.name} frame {self.frame}" if self.frame else self.path.name


def plane_of(dataset: Dataset, frame: int, path: Path) -> Plane:
    """The geometry that a volume needs of each slice.

    Raises:
        BadSample: position, orientation or spacing absent, malformed or zero.
    """
    groups = frame_groups(dataset, frame)
    position = numbers(groups, "ImagePositionPatient", 3, path)
    cosines = numbers(groups, "ImageOrientationPatient", 6, path)
    spacing = numbers(groups, "PixelSpacing", 2, path)
    for name, value in (("ImagePositionPatient", position), ("ImageOrientationPatient", cosines)):
        if value is None:
            raise BadSample(
                f"{name} is absent, so the slice has no place in a volume",
                where=str(path),
                mend="read the file as an image, or repair the header",
            )
    if spacing is None or min(spacing) <= 0:
        raise BadSample(
            f"PixelSpacing is {'absent' if spacing is None else list(spacing)}; two positive millimetres are expected",
            where=str(path),
            mend="write the true PixelSpacing, or leave the series out",
        )
    assert position is not None and cosines is not None
    right, down = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(right), np.linalg.norm(down)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(float(right @ down)) > 0.1:
        raise BadSample(
            f"ImageOrientationPatient {list(cosines)} is no pair of perpendicular unit vectors",
            where=str(path),
            mend="repair ImageOrientationPatient",
        )
    return Plane(
        path=path,
        frame=frame,
        position=np.array(position),
        down=down / lengths[1],
        right=right / lengths[0],
        spacing=(spacing[0], spacing[1]),
        size=(int(dataset.Rows), int(dataset.Columns)),
    )


def image_orientation(groups: Dataset, path: Path) -> str | None:
    """Where rows (axis 0) and columns (axis 1) of a 2D picture run to, or None when not stated or not a body
    direction.

    From ImageOrientationPatient, else from PatientOrientation, whose first value tells where a row runs to, that
    is our axis 1.
    """
    cosines = numbers(groups, "ImageOrientationPatient", 6, path)
    if cosines is not None:
        return orientation_of_directions(np.array([cosines[3:], cosines[:3]]).T)
    stated = groups.get("PatientOrientation")
    if not isinstance(stated, (MultiValue, list, tuple)) or len(stated) != 2:
        return None
    right, down = (_BODY.get(str(value)[:1]) for value in stated)
    if right is None or down is None or right in (down, OPPOSITE[down]):
        return None
    return down + right


def image_spacing(dataset: Dataset, groups: Dataset, path: Path) -> tuple[float, float] | None:
    """(row, column) millimetres of a 2D picture; None when not stated, or stated as zero.

    PixelSpacing; else ImagerPixelSpacing, which is measured at the detector, divided by
    EstimatedRadiographicMagnificationFactor where that is given; else NominalScannedPixelSpacing; else the
    single calibrated region of an ultrasound picture (PS3.3 C.8.5.5, unit code 3 = cm).
    """
    found = numbers(groups, "PixelSpacing", 2, path)
    if found is None:
        found = numbers(groups, "ImagerPixelSpacing", 2, path)
        magnified = numbers(dataset, "EstimatedRadiographicMagnificationFactor", 1, path)
        if found is not None and magnified is not None and magnified[0] > 0:
            found = (found[0] / magnified[0], found[1] / magnified[0])
    if found is None:
        found = numbers(dataset, "NominalScannedPixelSpacing", 2, path)
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    if found is None and len(regions) == 1:
        region = regions[0]
        if region.get("PhysicalUnitsXDirection") == 3 and region.get("PhysicalUnitsYDirection") == 3:
            steps = numbers(region, "PhysicalDeltaY", 1, path), numbers(region, "PhysicalDeltaX", 1, path)
            if steps[0] is not None and steps[1] is not None:
                found = (abs(steps[0][0]) * 10, abs(steps[1][0]) * 10)
    if found is None or min(found) <= 0:
        return None
    return (found[0], found[1])


def voi_window(groups: Dataset, path: Path) -> tuple[float, float] | None:
    """(low, high) of the first window, in rescaled values; None when none is stated or its width is below 1."""
    centres = numbers(groups, "WindowCenter", None, path)
    widths = numbers(groups, "WindowWidth", None, path)
    if centres is None or widths is None or widths[0] <= 0:
        return None
    return (centres[0] - widths[0] / 2, centres[0] + widths[0] / 2)


def unit_of(dataset: Dataset, groups: Dataset) -> Unit:
    """HU for rescaled CT unless RescaleType names something else; SUV for PT in g/ml; arbitrary otherwise.

    RescaleType US means unspecified, which older CT scanners wrote. MONOCHROME1 makes numbers arbitrary: no CT
    or PT stores dark as high, so whoever wrote such a file turned the stored values or the tag over.
    """
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        return "arbitrary"
    rescaled = "RescaleSlope" in groups and "RescaleIntercept" in groups
    if dataset.get("Modality") == "CT" and rescaled and groups.get("RescaleType") in (None, "", "HU", "US"):
        return "HU"
    if dataset.get("Modality") == "PT" and dataset.get("Units") == "GML":
        return "SUV"
    return "arbitrary"


def describe(dataset: Dataset) -> Any:
    """Modality as DICOM names it, "unknown" when absent or empty."""
    return str(dataset.get("Modality") or "unknown")
