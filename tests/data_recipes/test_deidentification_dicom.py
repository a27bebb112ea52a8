"""The basic profile on DICOM files: planted values gone, pixels and geometry bit for bit as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, UltrasoundImageStorage, generate_uid

from medvlm.data_recipes.deidentification import basic_profile
from medvlm.data_recipes.deidentification.deidentify import deidentify_folder
from medvlm.data_recipes.deidentification.dicom_dates import moved
from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.options import Box, Options
from medvlm.data_recipes.deidentification.pixels import available, burned_in_text
from medvlm.data_recipes.deidentification.tags import identifying_tags
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import VisualRef
from medvlm.model.visual import Image

KEY = Key(b"a secret of the tests, 32 bytes!")
PLANTED = ("ZEBULON", "QUARTERMAIN", "MRN77812", "ACC99121", "19500314", "20190314", "ROBERTSON", "Elmwood", "5551234")
HU = np.random.default_rng(0).integers(-1000, 1000, (6, 12, 10)).astype(np.int16)
STUDY, SERIES, FRAME = generate_uid(), generate_uid(), generate_uid()


def dataset(pixels, *, storage=CTImageStorage, modality="CT", date="20190314", patient="MRN77812"):
    """A CT slice with an identifier in every kind of place."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, generate_uid()
    meta.SourceApplicationEntityTitle = "ELMWOODPACS"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"ZEBULON".ljust(128, b"\0"))
    ds.SOPClassUID, ds.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY, SERIES, FRAME
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "QUARTERMAIN^ZEBULON^A=Q^Z", patient, "19500314"
    ds.PatientSex, ds.PatientAge, ds.PatientWeight = "F", "069Y", "71.5"
    ds.OtherPatientNames, ds.PatientAddress = "ZEBULON", "12 Elmwood Street"
    ds.AccessionNumber, ds.StudyDate, ds.SeriesDate, ds.ContentDate = "ACC99121", date, date, date
    ds.StudyTime, ds.AcquisitionDateTime = "102200", date + "102200.5-0500"
    ds.ReferringPhysicianName, ds.InstitutionName = "ROBERTSON^ANN", "Elmwood Hospital"
    ds.StudyDescription, ds.ImageComments = "CT CHEST for Dr. Robertson ROBERTSON", "call 317-5551234"
    ds.Manufacturer, ds.Modality, ds.BodyPartExamined = "Maker ZEBULON", modality, "CHEST"
    request = Dataset()
    request.ScheduledProcedureStepDescription, request.RequestedProcedureID = "ZEBULON knee", "MRN77812"
    ds.RequestAttributesSequence = Sequence([request])
    code, inner = Dataset(), Dataset()
    inner.PersonName, inner.Date = "QUARTERMAIN^ZEBULON", date
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-28000", "SRT", "Lung"
    code.ReferencedImageSequence = Sequence([Dataset()])
    code.ReferencedImageSequence[0].ReferencedSOPInstanceUID = ds.SOPInstanceUID
    code.ReferencedImageSequence[0].ReferencedSOPClassUID = storage
    code.add_new(0x00400275, "SQ", Sequence([inner]))
    ds.AnatomicRegionSequence = Sequence([code])  # not in the table: it must be entered
    code.AnatomicRegionModifierSequence = Sequence([inner])
    ds.EvaluatorName, ds.ExpiryDate = "QUARTERMAIN^ZEBULON", date  # in no table
    block = ds.private_block(0x0029, "ELMWOOD PRIVATE", create=True)
    block.add_new(0x01, "LO", "ZEBULON")
    block.add_new(0x02, "DS", "1.25")
    nested = Dataset()
    nested.PatientID = "MRN77812"
    block.add_new(0x03, "SQ", Sequence([nested]))
    ds.add_new(0x60003000, "OW", b"ZEBULON!")
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    return ds


def slice_at(k, **changes):
    ds = dataset(HU[k], **changes)
    ds.RescaleSlope, ds.RescaleIntercept, ds.WindowCenter, ds.WindowWidth = "1", "-24", "40", "400"
    ds.PixelSpacing, ds.ImageOrientationPatient = [0.7, 0.8], [1, 0, 0, 0, 0.8, 0.6]
    ds.ImagePositionPatient = [-10, -20 - 0.6 * k * 2.5, 30 + 0.8 * k * 2.5]
    ds.SliceThickness, ds.PatientPosition, ds.ImageLaterality, ds.InstanceNumber = "2.5", "HFS", "L", k + 1
    ds.TableHeight = "150.25"
    return ds


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "QUARTERMAIN_ZEBULON" / "ct"
    folder.mkdir(parents=True)
    for k in range(len(HU)):
        slice_at(k).save_as(folder / f"MRN77812_{k}.dcm", enforce_file_format=True)
    return tmp_path / "QUARTERMAIN_ZEBULON"


def clean(source, out, **options):
    summary = deidentify_folder(source, out, key=KEY, options=Options(look="no", **options))
    return summary, sorted(p for p in out.rglob("*.dcm"))


def everything(out):
    return b"\0".join(p.read_bytes() for p in out.rglob("*") if p.is_file()) + str(list(out.rglob("*"))).encode()


def test_planted_values_are_nowhere(source, tmp_path, capfd):
    before = "\n".join(str(pydicom.dcmread(p)) for p in source.rglob("*.dcm")).encode()
    for planted in PLANTED:
        assert planted.encode() in before, planted
    summary, files = clean(source, tmp_path / "out", keep=frozenset(["descriptors", "patient_characteristics"]))
    assert summary.clean and len(files) == 6
    written, said = everything(tmp_path / "out"), "".join(capfd.readouterr())
    for planted in (*PLANTED, STUDY, SERIES, FRAME):
        assert planted.lower().encode() not in written.lower(), planted
        assert planted.lower() not in said.lower()
    assert pydicom.dcmread(files[0]).StudyDescription == "CT CHEST for Dr. [NAME]"
    assert pydicom.dcmread(files[0]).ImageComments == "call [PHONE]"


def test_identifying_tags_before_and_after(source, tmp_path):
    first = min(source.rglob("*.dcm"))
    found = identifying_tags(first)
    expected = {"PatientName", "PatientID", "PatientBirthDate", "StudyDate", "PatientAddress", "ImageComments",
                "AnatomicRegionSequence/AnatomicRegionModifierSequence/PersonName", "(0029,1003)"}  # fmt: skip
    assert expected <= set(found)
    assert not any(planted in name for name in found for planted in PLANTED)
    _, files = clean(source, tmp_path / "out")
    assert identifying_tags(files[0]) == () and identifying_tags(files[0], strict=True) == ()
    anonymous = slice_at(0)
    anonymous.PatientName, anonymous.PatientID = "ANONYMOUS", ""
    anonymous.save_as(tmp_path / "a.dcm")
    assert not {"PatientName", "PatientID"} & set(identifying_tags(tmp_path / "a.dcm"))
    with pytest.raises(BadSample):
        identifying_tags(Path(__file__))


def test_volume_is_bit_for_bit_the_same(source, tmp_path):
    _, files = clean(source, tmp_path / "out")
    folders = {p.parent for p in files}
    assert len(folders) == 1
    one = read(VisualRef(kind="volume", path="ct"), source)
    two = read(VisualRef(kind="volume", path=folders.pop().name), files[0].parent.parent)
    np.testing.assert_array_equal(one.voxels, two.voxels)
    assert one.unit == two.unit == "HU"
    for name in ("spacing_mm", "orientation", "window", "modality"):
        assert getattr(one, name) == getattr(two, name)
    old = {int(d.InstanceNumber): d for d in map(pydicom.dcmread, source.rglob("*.dcm"))}
    for new in map(pydicom.dcmread, files):
        was = old[int(new.InstanceNumber)]
        assert new.PixelData == was.PixelData
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleIntercept",
                        "RescaleSlope", "WindowCenter", "WindowWidth", "ImageLaterality", "PatientPosition",
                        "SliceThickness", "BodyPartExamined", "TableHeight"):  # fmt: skip
            assert new[keyword].value == was[keyword].value, keyword


def test_ids_agree_within_a_series_and_between_runs(source, tmp_path):
    _, files = clean(source, tmp_path / "out")
    sets = [pydicom.dcmread(p) for p in files]
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({str(d[keyword].value) for d in sets}) == 1
    assert len({d.SOPInstanceUID for d in sets}) == 6
    for d in sets:
        assert d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID
        reference = d.AnatomicRegionSequence[0].ReferencedImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == d.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == CTImageStorage
        assert d.PatientIdentityRemoved == "YES" and d.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert set(d.file_meta.keys()) <= {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012,
                                           0x00020013}  # fmt: skip
    _, again = clean(source, tmp_path / "again")
    assert [p.read_bytes() for p in files] == [p.read_bytes() for p in again]
    other = deidentify_folder(source, tmp_path / "other", key=Key(b"another secret of the tests, 32b"))
    assert other.clean
    ids = {pydicom.dcmread(p).PatientID for p in (tmp_path / "other").rglob("*.dcm")}
    assert not ids & {d.PatientID for d in sets}


def test_dates_move_together_per_patient(tmp_path):
    for name, patient, date in (("a", "P-1234", "20190314"), ("b", "P-1234", "20190401"), ("c", "P-9999", "20190314")):
        (tmp_path / "in").mkdir(exist_ok=True)
        slice_at(0, date=date, patient=patient).save_as(tmp_path / "in" / f"{name}.dcm", enforce_file_format=True)
    summary, files = clean(tmp_path / "in", tmp_path / "out", keep=frozenset(["dates"]), keep_names=True)
    assert summary.clean
    a, b, c = (pydicom.dcmread(p) for p in files)
    days = [(np.datetime64(f"{d.StudyDate[:4]}-{d.StudyDate[4:6]}-{d.StudyDate[6:]}")) for d in (a, b, c)]
    assert (days[1] - days[0]).astype(int) == 18 and days[2] != days[0]
    assert a.AcquisitionDateTime == a.StudyDate + "102200.5-0500" and a.StudyTime == "102200"
    assert not a.PatientBirthDate and a.LongitudinalTemporalInformationModified == "MODIFIED"
    assert {item.CodeValue for item in a.DeidentificationMethodCodeSequence} == {"113100", "113107"}


def test_moved_dates():
    assert moved("20200301", -1) == "20200229" and moved("20200301101500.25+0100", -1) == "20200229101500.25+0100"
    assert moved("2020", -1) is None and moved("20201399", -1) is None and moved("20200101-20200201", -1) is None


def test_patient_characteristics_keep_age_up_to_90(tmp_path):
    (tmp_path / "in").mkdir()
    ds = slice_at(0)
    ds.PatientAge = "094Y"
    ds.save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    _, files = clean(tmp_path / "in", tmp_path / "kept", keep=frozenset(["patient_characteristics"]))
    new = pydicom.dcmread(files[0])
    assert (new.PatientAge, new.PatientSex, str(new.PatientWeight)) == ("090Y", "F", "71.5")
    _, files = clean(tmp_path / "in", tmp_path / "out")
    assert "PatientAge" not in pydicom.dcmread(files[0]) and not pydicom.dcmread(files[0]).PatientSex


def test_private_attributes_stay_only_when_listed(source, tmp_path):
    _, files = clean(source, tmp_path / "out", private=("0029,elmwood private,02",))
    new = pydicom.dcmread(files[0])
    assert [str(e.tag) for e in new if e.tag.is_private] == ["(0029,0010)", "(0029,1002)"]
    assert new[0x00291002].value == 1.25


def test_retained_uids_stay(source, tmp_path):
    summary, files = clean(source, tmp_path / "out", keep=frozenset(["uids"]))
    assert summary.clean and pydicom.dcmread(files[0]).SeriesInstanceUID == SERIES


@pytest.mark.parametrize("compressed", [False, True])
def test_boxes_are_blacked_out_and_nothing_else(tmp_path, compressed):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(1).integers(1, 250, (40, 60, 3)).astype(np.uint8)
    ds = dataset(pixels, storage=UltrasoundImageStorage, modality="US")
    if compressed:
        ds.compress(RLELossless)
    ds.save_as(tmp_path / "in" / "us.dcm", enforce_file_format=True)
    box = Box(rows=40, columns=60, low=(0, 0), high=(10, 60))
    other = Box(rows=40, columns=60, low=(20, 0), high=(30, 60), modality="CT")
    summary, files = clean(tmp_path / "in", tmp_path / "out", boxes=(box, other))
    new = pydicom.dcmread(files[0]).pixel_array
    assert (new[:10] == 0).all() and summary.removed["DICOM", "rectangles blacked out"] == 1
    np.testing.assert_array_equal(new[10:], pixels[10:])
    assert pydicom.dcmread(files[0]).BurnedInAnnotation == "NO"
    with pytest.raises(ValueError, match="does not lie in"):
        Box(rows=40, columns=60, low=(0, 0), high=(50, 60))


@pytest.mark.slow
@pytest.mark.skipif(available() is not None, reason=f"OCR: {available()}")
def test_burned_in_text_is_found_and_blacked_out(tmp_path, capfd):
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont

    picture = Picture.fromarray((np.add.outer(np.arange(300), np.arange(480)) // 8).astype(np.uint8))
    empty = Image(pixels=np.asarray(picture, np.float32)[None], modality="US", unit="arbitrary")
    assert burned_in_text(empty) == ()
    ImageDraw.Draw(picture).text((20, 10), "ZEBULON 03/14/2019", fill=255, font=ImageFont.load_default(22))
    grey = np.asarray(picture)
    boxes = burned_in_text(Image(pixels=grey.astype(np.float32)[None], modality="US", unit="arbitrary"))
    assert {"date"} == {kind for box in boxes for kind in box.kinds}
    assert all(box.high[0] < 60 for box in boxes)
    (tmp_path / "in").mkdir()
    dataset(grey, storage=UltrasoundImageStorage, modality="US").save_as(tmp_path / "in" / "u.dcm")
    summary = deidentify_folder(tmp_path / "in", tmp_path / "seen", key=KEY)
    assert {("pixels", "date"), ("pixels", "name")} <= set(summary.found) and not summary.clean
    summary = deidentify_folder(tmp_path / "in", tmp_path / "out", key=KEY, options=Options(clean_pixels="hinted"))
    assert summary.clean
    new = pydicom.dcmread(next((tmp_path / "out").rglob("*.dcm"))).pixel_array
    np.testing.assert_array_equal(new[70:], grey[70:])
    assert "ZEBULON" not in "".join(capfd.readouterr())


def test_the_table_agrees_with_another_library():
    module = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
    fields = pytest.importorskip(module, reason="dicom-anonymizer is not installed; pip install 'medvlm[deid]'")
    names = {"Z": "Z_TAGS", "D": "D_TAGS", "X": "X_TAGS", "U": "U_TAGS", "Z/D": "Z_D_TAGS", "X/Z": "X_Z_TAGS",
             "X/D": "X_D_TAGS", "X/Z/D": "X_Z_D_TAGS", "X/Z/U*": "X_Z_U_STAR_TAGS"}  # fmt: skip
    tags = {action: [tag for tag in getattr(fields, name) if len(tag) == 2] for action, name in names.items()}
    theirs = {tag[0] << 16 | tag[1]: action for action, listed in tags.items() for tag in listed}
    assert theirs == basic_profile.PROFILE
    assert basic_profile.action_of(0x60023000) == "X" and basic_profile.action_of(0x00280010) is None


def test_damaged_and_directory_files_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ZEBULON.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 200)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.FileSetID = "ZEBULON"
    ds.save_as(tmp_path / "in" / "DICOMDIR", enforce_file_format=True)
    (tmp_path / "in" / "ZEBULON.pdf").write_bytes(b"%PDF-1.4 ZEBULON")
    summary, files = clean(tmp_path / "in", tmp_path / "out")
    assert files == [] and not summary.clean and sum(summary.refused.values()) == 3
    assert b"ZEBULON" not in everything(tmp_path / "out")
