"""Boxes: geometry, text and its strict reading; a box survives reader and processor; phantoms and recipes have them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.box_text import read_box, reference_boxes, request_for, to_text
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.grounding import (
    Box2D,
    Box3D,
    box_around,
    box_of,
    centre_distance_mm,
    extent_mm,
    extent_of,
    from_mm,
    iou,
    to_mm,
    voxels_of,
)
from medvlm.data_recipes.laterality import side_word
from medvlm.data_recipes.phantoms import ct
from medvlm.data_recipes.phantoms.anatomy import place
from medvlm.data_recipes.phantoms.boxes import ct_boxes, radiograph_boxes
from medvlm.data_recipes.phantoms.ct import render_ct
from medvlm.data_recipes.phantoms.patient import FOCAL, Finding, VirtualPatient, draw_patient
from medvlm.data_recipes.phantoms.radiograph import SIZE, render_radiograph
from medvlm.data_recipes.phantoms.rows import Visuals, grounding_rows
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.recipes import RECIPES
from medvlm.data_recipes.sample import Sample, VisualRef, from_json, to_json
from medvlm.model.patches import patch_coordinates
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import VISUAL_TOKEN
from medvlm.model.visual import Image, Volume

SPACING = (9.0, 5.2, 5.2)


# --- geometry ------------------------------------------------------------------------------------------------


def test_iou_against_values_by_hand():
    first, second = box_of((0.10, 0.10), (0.50, 0.50)), box_of((0.30, 0.30), (0.70, 0.70))
    assert iou(first, second) == pytest.approx(400 / 2800)
    assert iou(first, first) == pytest.approx(1.0)
    assert iou(first, box_of((0.5, 0.1), (0.9, 0.5))) == 0.0  # they only touch
    cubes = box_of((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)), box_of((0.25, 0.25, 0.25), (0.75, 0.75, 0.75))
    # Not the box around both in the denominator, which would give 0.037.
    assert iou(*cubes) == pytest.approx((1 / 64) / (2 / 8 - 1 / 64))
    with pytest.raises(ValueError, match="2D and a 3D"):
        iou(first, cubes[0])


def test_iou_is_the_same_in_voxels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        masks, boxes = [], []
        for _ in range(2):
            low = rng.integers(0, 8, size=3)
            high = low + rng.integers(1, 9, size=3)
            mask = np.zeros((16, 16, 16), bool)
            mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
            masks.append(mask)
            boxes.append(box_around(mask))
        expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
        assert iou(*boxes) == pytest.approx(expected)


def test_box_around_a_mask_and_back():
    mask = np.zeros((4, 10, 20), bool)
    mask[1:3, 2:7, 5:6] = True
    box = box_around(mask)
    assert box == Box3D(x1=0.25, x2=0.3, y1=0.2, y2=0.7, z1=0.25, z2=0.75)
    assert voxels_of(box, mask.shape) == (slice(1, 3), slice(2, 7), slice(5, 6))
    assert voxels_of(box, (2, 5, 10)) == (slice(0, 2), slice(1, 4), slice(2, 3))  # all that it touches
    assert box_around(np.zeros((3, 3), bool)) is None
    with pytest.raises(ValueError, match="3 axes"):
        voxels_of(box, (4, 4))


def test_millimetres_need_the_spacing():
    extent = extent_mm((10, 20, 40), (5.0, 2.0, 0.5))
    assert extent == (20.0, 40.0, 50.0)  # x, y, z
    box = box_of((0.1, 0.2, 0.3), (0.5, 0.6, 0.8))
    assert to_mm(box, extent) == pytest.approx((2, 8, 15, 10, 24, 40))
    assert from_mm(to_mm(box, extent), extent).low == pytest.approx(box.low)
    other = box_of((0.1, 0.2, 0.4), (0.5, 0.6, 0.9))
    assert centre_distance_mm(box, other, extent) == pytest.approx(5.0)
    with pytest.raises(ValueError, match=r"spacing is unknown.*normalised coordinates"):
        extent_mm((10, 20), None)
    with pytest.raises(ValueError, match="spacing is unknown"):
        extent_of(Image(pixels=np.zeros((1, 4, 4), np.float32), modality="DX", unit="display"))
    image = Image(pixels=np.zeros((1, 4, 8), np.float32), modality="DX", unit="display", spacing_mm=(3.0, 1.0))
    assert extent_of(image) == (8.0, 12.0)


@pytest.mark.parametrize(("low", "high"), [((0.5, 0.1), (0.4, 0.2)), ((0.1, 0.1), (0.1, 0.2)), ((0, 0), (1, 1.2))])
def test_impossible_boxes_are_refused(low, high):
    with pytest.raises(ValueError, match=r"field of view|first corner"):
        box_of(low, high)


# --- text ----------------------------------------------------------------------------------------------------


def test_text_round_trips_and_never_shrinks():
    assert to_text(Box2D(x1=0.12, y1=0.3, x2=0.45, y2=0.61)) == "<box>(0.120, 0.300, 0.450, 0.610)</box>"
    rng, extent = np.random.default_rng(1), (321.7, 250.0, 288.4)
    for axes in (2, 3):
        for _ in range(100):
            ends = np.sort(rng.random((2, axes)), axis=0)
            box = box_of(ends[0], ends[1])
            for mm in (None, extent[:axes]):
                text = to_text(box, mm)
                read = read_box(f"It is at {text}.", axes=axes, extent=mm)
                assert read.reason is None and read.text == text
                slack = 2e-3 if mm is None else 0.11 / 250
                for a, b, c, d in zip(box.low, read.box.low, box.high, read.box.high, strict=True):
                    assert a - slack <= b <= a + 1e-8 and c - 1e-8 <= d <= c + slack
                assert to_text(read.box, mm) == text  # stable


GOOD = "<box>(0.1, 0.2, 0.3, 0.4)</box>"


@pytest.mark.parametrize(
    ("text", "reason", "count"),
    [
        (GOOD, None, 1),
        (f"The nodule: {GOOD} (left). Again {GOOD}.", None, 1),
        ("<box> ( .1,0.2 ,0.3,0.4 ) </box>", None, 1),
        ("<box>(0, 0, 1, 1.001)</box>", None, 1),  # rounding
        ("", "no_box", 0),
        ("(0.1, 0.2, 0.3, 0.4)", "no_box", 0),
        ("[0.1, 0.2, 0.3, 0.4]", "no_box", 0),
        ("in the left upper zone", "no_box", 0),
        ("<box>(0.1, 0.2, 0.3", "malformed_box", 0),
        ("<box>(0.1, 0.2, 0.3, 0.4)", "malformed_box", 0),
        ("<box>(0.1, 0.2, 0.3, 0.4)</box> mm", "malformed_box", 0),
        ("<box>(\u0660.1, 0.2, 0.3, 0.4)</box>", "malformed_box", 0),
        ("<box>0.1, 0.2, 0.3, 0.4</box>", "malformed_box", 0),
        ("<box>(0.1, 0.2, nan, 0.4)</box>", "malformed_box", 0),
        ("<box>(0.1 0.2 0.3 0.4)</box>", "malformed_box", 0),
        ("<box>(0.1, 0.2, 0.3, 0.4) cm</box>", "malformed_box", 0),
        ("<box>(0.1, 0.2, 0.3)</box>", "wrong_count", 0),
        ("<box>(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)</box>", "wrong_count", 0),
        ("<box>(0.1, 0.2, 0.3, 1.01)</box>", "out_of_range", 0),
        ("<box>(100, 200, 300, 400)</box>", "out_of_range", 0),
        ("<box>(-0.1, 0.2, 0.3, 0.4)</box>", "out_of_range", 0),
        ("<box>(0.3, 0.2, 0.1, 0.4)</box>", "reversed_corners", 0),
        ("<box>(0.1, 0.4, 0.3, 0.4)</box>", "reversed_corners", 0),
        (f"{GOOD} or <box>(0.1, 0.2, 0.3, 0.5)</box>", "several_boxes", 2),
        (f"{GOOD} or <box>(0.1, 0.2)</box>", "wrong_count", 1),
        (f"<box>(0.1, 0.2, {GOOD}", "malformed_box", 0),
        ("<box>(10, 20, 30, 40) mm</box>", "millimetres_unknown", 0),
    ],
)
def test_reading_is_strict(text, reason, count):
    read = read_box(text, axes=2)
    assert (read.reason, read.count) == (reason, count)
    assert (read.box is None) == (reason is not None) == (read.text is None)


def test_millimetres_are_read_with_the_field_of_view():
    read = read_box("<box>(10, 20, 30, 40.05) mm</box>", axes=2, extent=(100.0, 40.0))
    assert read.box == Box2D(x1=0.1, y1=0.5, x2=0.3, y2=1.0)
    assert read_box("<box>(10, 20, 30, 41) mm</box>", axes=2, extent=(100.0, 40.0)).reason == "out_of_range"
    with pytest.raises(ValueError, match="3 axes for boxes of 2"):
        read_box("<box>(10, 20, 30, 40) mm</box>", axes=2, extent=(1.0, 2.0, 3.0))


def test_other_forms_are_read_only_when_asked_for():
    tags, listed = "<|box_start|>(100,200),(300,400)<|box_end|>", '[{"bbox_2d": [100, 200, 300, 400], "label": "x"}]'
    expected = Box2D(x1=0.1, y1=0.2, x2=0.3, y2=0.4)
    for text in (tags, listed, f"{tags} {listed}"):
        assert read_box(text, axes=2, form="thousandths").box == expected
        assert read_box(text, axes=2).reason == "no_box"
    for text, reason in (
        (tags.replace("400", "1001"), "out_of_range"),
        (tags.replace("400", "400.5"), "malformed_box"),
        (tags.replace("),(", " "), "malformed_box"),
        (listed.replace(", 400", ""), "wrong_count"),
        (f"{tags} {listed.replace('400', '401')}", "several_boxes"),
        (GOOD, "no_box"),
    ):
        assert read_box(text, axes=2, form="thousandths").reason == reason, text
    text = "Sure, it is [SEG] <bx_start>[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]<bx_end>."
    box = read_box(text, axes=3, form="m3d").box
    assert box == Box3D(z1=0.1, y1=0.2, x1=0.3, z2=0.4, y2=0.5, x2=0.6)
    assert read_box(text, axes=3).reason == "no_box"
    for form, axes in (("thousandths", 3), ("m3d", 2), ("box", 4)):
        with pytest.raises(ValueError, match=f"no boxes of {axes} axes"):
            read_box("", axes=axes, form=form)


def test_references_must_be_boxes_of_one_kind():
    flat, deep = GOOD, "<box>(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)</box>"
    assert len(reference_boxes([flat, flat])) == 2 and len(reference_boxes([deep])[0].low) == 3
    for answers, extent in (([flat, deep], None), ([flat], (1.0, 1.0, 1.0))):
        with pytest.raises(ValueError, match="two axes or all have three"):
            reference_boxes(answers, extent)
    with pytest.raises(ValueError, match=r"'left' is no box \(no_box\)"):
        reference_boxes(["left"])


def box_sample(answers: list[str], **changes: object) -> dict:
    question = {"kind": "box", "answers": answers, "choices": [], "topic": "box", "extent_mm": [10.0, 20.0]} | changes
    return {
        "sample_id": "a", "patient_id": "p", "study_id": "s", "source": "x", "licence": "CC0-1.0", "split": "test",
        "messages": [{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "?"}]}],
        "question": question,
    }  # fmt: skip


def test_manifests_hold_boxes_and_refuse_broken_ones():
    sample = from_json(box_sample([GOOD, "<box>(1, 2, 3, 4) mm</box>"]), where="m:1")
    assert sample.question.extent_mm == (10.0, 20.0) and from_json(to_json(sample), where="m:1") == sample
    plain = from_json(box_sample([GOOD], extent_mm=[]), where="m:1")
    assert "extent_mm" not in to_json(plain)["question"]
    for row, reason in (
        (box_sample(["left"]), "is no box"),
        (box_sample([GOOD], extent_mm=[10.0]), "two axes or all have three"),
        (box_sample([GOOD], extent_mm=[10.0, -1.0]), "extent_mm is"),
        (box_sample(["<box>(1, 2, 3, 4) mm</box>"], extent_mm=[]), "millimetres_unknown"),
        (box_sample([GOOD], kind="open"), "open question has question.extent_mm"),
    ):
        with pytest.raises(BadSample, match=reason):
            from_json(row, where="m:1")


def test_ask_states_the_form_of_the_answer():
    shared = {
        "sample_id": "s", "patient_id": "p", "source": "x", "licence": "CC0-1.0", "where": "t:1", "kind": "box",
        "prompt": "Where is the nodule?",
    }  # fmt: skip
    sample = ask(split="test", answers=[GOOD], **shared)
    assert sample.turns[-1].text == "Where is the nodule? Answer with <box>(x1, y1, x2, y2)</box>."
    deep = "<box>(1, 2, 3, 4, 5, 6) mm</box>"
    trained = ask(split="train", answers=[deep], extent_mm=(9.0, 9.0, 9.0), **shared)
    assert trained.turns[0].text.endswith("Answer with <box>(x1, y1, z1, x2, y2, z2) mm</box>.")
    assert trained.turns[-1].text == deep and request_for(deep, 3) in trained.turns[0].text
    with pytest.raises(BadSample, match="is no box"):
        ask(split="test", answers=["left"], **shared)


def test_a_box_names_a_side_so_that_no_augmentation_may_mirror_it():
    assert side_word(f"What is in {GOOD}?") == "<box>" and side_word("What is in it?") is None


# --- reader and processor ------------------------------------------------------------------------------------


def a_processor() -> MedVLMProcessor:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, VISUAL_TOKEN: 1, "[END]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[END]")
    tokenizer.chat_template = "{{ messages }}"
    return MedVLMProcessor(tokenizer, patch_size=(2, 8, 8), merge=(1, 1, 1), max_patches={"volume": 600})


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAS", "SPL"])
def test_a_box_survives_reader_and_processor(tmp_path, orientation):
    """An anisotropic scan, stored in any orientation and resampled: the patches under the box hold the lesion."""
    hu = np.full((30, 90, 120), -1000.0, np.float32)  # SPL
    hu[18:24, 10:30, 80:110] = 500.0
    box, spacing = box_around(hu > 0), (5.0, 1.5, 0.7)
    to_ras = {"L": (2, -1), "R": (2, 1), "A": (1, -1), "P": (1, 1), "S": (0, 1), "I": (0, -1)}
    codes = list(orientation)
    axes = [to_ras[c][0] for c in codes]
    stored, affine = hu.transpose(axes), np.eye(4)
    affine[:3, :3] = 0
    for place_, code in enumerate(codes):
        if code in "RAI":  # SPL runs the other way
            stored = np.flip(stored, place_)
        world, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[code]
        affine[world, place_] = sign * spacing[axes[place_]]
    nib.save(nib.Nifti1Image(np.ascontiguousarray(stored), affine), tmp_path / "scan.nii.gz")
    ref = VisualRef(kind="volume", path="scan.nii.gz", options={"unit": "HU", "modality": "CT"})
    volume = read(ref, tmp_path)
    assert isinstance(volume, Volume) and extent_of(volume) == pytest.approx((84.0, 135.0, 150.0))
    patched = a_processor().patch(volume)
    assert patched.grid != (15, 11, 15)  # it was resampled
    brightness = np.zeros(patched.grid)
    brightness[tuple(patch_coordinates(patched.grid, (1, 1, 1)).T)] = patched.patches.mean(axis=1)
    under = np.zeros(patched.grid, bool)
    under[voxels_of(box, patched.grid)] = True
    touched = brightness > brightness.min() + 1e-3
    assert touched.any() and not (touched & ~under).any()
    assert (touched & under).sum() >= 0.9 * under.sum()
    mirrored = replace(box, x1=1 - box.x2, x2=1 - box.x1)
    assert not touched[voxels_of(mirrored, patched.grid)].any()


# --- phantoms ------------------------------------------------------------------------------------------------


def patient_with(*findings: Finding, seed: int = 0) -> VirtualPatient:
    rng = np.random.default_rng(seed)
    body = draw_patient(0, split="train", rng=rng).body
    spots = tuple(place(body, f.kind, f.side, f.zone, f.severity, f.size_mm, f.count or 1, rng) for f in findings)
    return VirtualPatient(
        patient_id="phantom-0", index=0, split="train", body=body, findings=findings, spots=spots, cine_findings=None
    )


CASES = [
    Finding(kind="nodule", side="left", zone="upper", size_mm=28, count=1),
    Finding(kind="nodule", side="right", zone="lower", size_mm=22, count=3),
    Finding(kind="mass", side="right", zone="middle", size_mm=60),
    Finding(kind="mass", side="left", zone="lower", size_mm=75),
    Finding(kind="consolidation", side="left", zone="middle"),
    Finding(kind="consolidation", side="right", zone="upper"),
    Finding(kind="pleural effusion", side="left", severity="moderate"),
    Finding(kind="pleural effusion", side="right", severity="small"),
    Finding(kind="pneumothorax", side="right", severity="moderate"),
    Finding(kind="pneumothorax", side="left", severity="large"),
    Finding(kind="cardiomegaly", severity="severe"),
]


def changed(finding: Finding, healthy: np.ndarray, ill: np.ndarray) -> np.ndarray:
    """Where at least half of the change shows that is typical of the finding; the same noise lies in both pictures."""
    change = ill.astype(float) - healthy
    if finding.kind == "pneumothorax":
        change = -change  # what is left of the lung is denser, the air around it blacker
    return change > 0.5 * np.percentile(change[change > 0.2 * change.max()], 75)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("finding", CASES, ids=lambda f: f"{f.kind}-{f.side}-{f.zone or f.severity}")
def test_the_box_of_a_phantom_holds_what_is_seen(finding, seed):
    patient = patient_with(finding, seed=seed)
    without = replace(patient, findings=(), spots=())
    scans = [render_ct(p, SPACING, np.random.default_rng(seed)) for p in (without, patient)]
    films = [render_radiograph(p, 2.8, np.random.default_rng(seed)) for p in (without, patient)]
    for pictures, boxes in ((scans, ct_boxes(patient, SPACING)), (films, radiograph_boxes(patient, 2.8))):
        seen = changed(finding, *pictures)
        ((*places,),) = boxes
        assert len(places) == (finding.count or 1)
        inside = np.zeros(seen.shape, bool)
        for box in places:
            inside[voxels_of(box, seen.shape)] = True
        # An enlarged heart differs only where the normal one was not; a film shows more of a lung that fell.
        assert (seen & inside).sum() >= 0.97 * seen.sum(), (seen & ~inside).sum()
        if finding.kind in FOCAL and len(places) == 1:
            assert iou(box_around(seen & inside), places[0]) > 0.6  # and it is not larger than need be
        if finding.side is not None:
            middle = 0.5 + patient.body.x0 / (SPACING[2] * 64 if seen.ndim == 3 else 2.8 * SIZE)
            assert all((box.x1 > middle) if finding.side == "left" else (box.x2 < middle) for box in places)


def test_the_box_of_a_nodule_is_where_and_as_large_as_it_was_drawn():
    patient = patient_with(Finding(kind="nodule", side="left", zone="upper", size_mm=30, count=1))
    centre = np.array(patient.spots[0].centres[0])
    extent = extent_mm(ct.SHAPE, SPACING)
    ((box,),) = ct_boxes(patient, SPACING)
    corners = np.array(to_mm(box, extent)).reshape(2, 3) - np.array(extent) / 2
    assert corners.mean(axis=0) == pytest.approx(centre, abs=4.6)
    assert (corners[1] - corners[0]) == pytest.approx([30, 30, 30], abs=9.1)
    ((box,),) = radiograph_boxes(patient, 2.8)
    low, high = np.array(to_mm(box, (2.8 * SIZE,) * 2)).reshape(2, 2) - 1.4 * SIZE
    assert (low + high) / 2 == pytest.approx([centre[0], -centre[2]], abs=1.5)  # the film runs from head to foot
    assert high - low == pytest.approx([30, 30], abs=2.9)


def rows_of_patient(**changes: object) -> list[tuple[str, Sample]]:
    patient = replace(patient_with(*CASES[1:2], *CASES[6:7]), **changes)
    visuals = Visuals(radiograph=VisualRef(kind="image", path="r.png"), ct=VisualRef(kind="volume", path="ct.nii.gz"))
    return grounding_rows(patient, visuals, 2.8, SPACING)


def test_rows_of_phantoms_ask_for_boxes_and_for_what_lies_in_them():
    rows = rows_of_patient(split="test")
    assert {name for name, _ in rows} == {"test_grounding"} and len({s.sample_id for _, s in rows}) == len(rows) == 10
    for _, sample in rows:
        assert from_json(to_json(sample), where="m:1") == sample
    asked = {s.sample_id.removeprefix("phantom-0-"): s for _, s in rows}
    nodule = asked["3d-box-nodule"].question
    assert len(nodule.answers) == 3 and nodule.extent_mm == pytest.approx((332.8, 332.8, 288.0))
    assert "one of the nodules" in asked["3d-box-nodule"].turns[0].text
    metric = asked["3d-box_mm-nodule"]
    assert metric.turns[0].text.endswith(" mm</box>.") and all(a.endswith(" mm</box>") for a in metric.question.answers)
    for one, other in zip(
        reference_boxes(nodule.answers), reference_boxes(metric.question.answers, nodule.extent_mm), strict=True
    ):
        assert iou(one, other) > 0.95
    region = asked["2d-region-pleural-effusion"]
    assert region.question.answers == ("Moderate left pleural effusion.",) and "<box>(" in region.turns[0].text
    trained = rows_of_patient(split="train", index=1)
    assert {name for name, _ in trained} == {"train_grounding"} and len(trained) == 10
    assert all(s.question is None and s.turns[-1].role == "assistant" for _, s in trained)
    assert rows_of_patient(split="validation") == [] and rows_of_patient(split="train", index=3) == []


# --- recipes -------------------------------------------------------------------------------------------------


def build(folder: Path) -> tuple[str, list[Sample], list[BadSample]]:
    (recipe,) = [recipe for recipe in RECIPES if recipe.matches(folder)]
    rows = list(recipe.build(folder))
    samples = [row for row in rows if isinstance(row, Sample)]
    for sample in samples:
        assert from_json(to_json(sample), where="again") == sample
    return recipe.name, samples, [row for row in rows if isinstance(row, BadSample)]


def write_case(folder: Path, name: str, texts: dict[str, str], *, shift: float = 0.0) -> None:
    case = folder / "M3D_RefSeg" / name
    case.mkdir(parents=True)
    mask = np.zeros((20, 10, 8), np.float32)  # RAS: x to the right, y to the front, z up
    mask[2:6, 1:3, 4:8] = 1
    mask[10:12, 5:9, 0:1] = 2
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    nib.save(nib.Nifti1Image(mask * 100, affine), case / "ct.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine + np.diag([shift, 0, 0, 0])), case / "mask.nii.gz")
    (case / "text.json").write_text(json.dumps(texts), encoding="utf-8")


def write_table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_m3d_refseg_in_its_published_layout(tmp_path):
    write_case(tmp_path, "s0001", {"1": "A cyst.", "2": "A stone.", "7": "Nothing here."})
    write_case(tmp_path, "s0002", {"1": "A mass."})
    write_case(tmp_path, "s0003", {"1": "A mass."}, shift=0.5)
    write_case(tmp_path, "s0004", {"1": "A mass."})
    header = ["Image", "Mask", "Mask_ID", "Question_Type", "Question", "Answer"]
    for table, cases in (("train", ["s0001", "s0002", "s0003"]), ("test", ["s0002"])):
        rows = [[f"{c}/ct.nii.gz", f"{c}/mask.nii.gz", 1, 0, "Please segment it.", "It is [SEG]."] for c in cases]
        write_table(tmp_path / f"M3D_RefSeg_{table}.csv", header, rows)
    name, samples, refused = build(tmp_path)
    assert name == "m3d-refseg"
    assert [(s.sample_id.split("/", 1)[1], s.split) for s in samples] == [
        ("s0001/1/box", "train"), ("s0001/1/region", "train"), ("s0001/2/box", "train"), ("s0001/2/region", "train"),
        ("s0002/1/box", "test"), ("s0002/1/region", "test"),
    ]  # fmt: skip
    # Voxels 2 to 6 of 20 towards the right are 14 to 18 towards the left; 1 to 3 of 10 to the front are 7 to 9 back.
    box = "<box>(0.700, 0.700, 0.500, 0.900, 0.900, 1.000)</box>"
    assert samples[0].turns[-1].text == box and samples[0].turns[0].text.startswith("Where is this: A cyst. Answer")
    assert samples[1].turns[0].text == f"Describe what is in {box}." and samples[1].turns[-1].text == "A cyst."
    assert samples[4].question.kind == "box" and samples[4].question.extent_mm == (40.0, 30.0, 40.0)
    assert [bad.reason for bad in refused] == [
        "region '7' is not in the mask", "the mask lies on another grid than ct.nii.gz",
        "neither table names this case",
    ]  # fmt: skip
    assert samples[0].visuals()[0].options == {"modality": "CT", "unit": "HU"}


def test_chestx_ray14_boxes_in_their_published_layout(tmp_path):
    folder = tmp_path / "images_001" / "images"
    folder.mkdir(parents=True)
    for name in ("00000001_000.png", "00000002_001.png", "00000003_000.png"):
        Picture.fromarray(np.zeros((200, 100), np.uint8)).save(folder / name)
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    rows = [
        "00000001_000.png,Mass,10.0,20.0,30.0,40.0,,,",
        "00000001_000.png,Mass,50.0,100.0,50.5,50.0,,,",
        "00000002_001.png,Pleural_Thickening,10,20,30,40,,,",
        "00000002_001.png,Mass,90,20,30,40,,,",
        "00000003_000.png,Mass,1,2,3,4,,,",
        "00000004_000.png,Mass,1,2,3,4,,,",
    ]
    (tmp_path / "BBox_List_2017.csv").write_text(header + "\n".join(rows) + "\n")
    _, samples, refused = build(tmp_path)
    assert not samples and "cannot be told from training pictures" in refused[0].reason
    (tmp_path / "test_list.txt").write_text("00000001_000.png\n00000002_001.png\n00000004_000.png\n")
    name, samples, refused = build(tmp_path)
    assert name == "chestx-ray14" and {s.split for s in samples} == {"test"}
    assert [s.question.answers for s in samples] == [
        ("<box>(0.100, 0.100, 0.400, 0.300)</box>", "<box>(0.500, 0.500, 1.000, 0.750)</box>"), ("mass",),
        ("<box>(0.100, 0.100, 0.400, 0.300)</box>",), ("pleural thickening",),
    ]  # fmt: skip
    assert samples[2].turns[0].text == "Where is the pleural thickening? Answer with <box>(x1, y1, x2, y2)</box>."
    assert samples[0].sample_id == "chestx-ray14-boxes/00000001_000/mass/box"  # as before labels were built too
    assert samples[0].patient_id == "chestx-ray14/00000001" and samples[0].question.extent_mm == ()
    assert [bad.reason for bad in refused] == [
        "the box 90, 20, 30, 40 leaves the picture of 100 x 200 pixels", "00000003_000.png stands in neither list",
        "the image 00000004_000.png is missing",
    ]  # fmt: skip
