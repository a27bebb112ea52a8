"""Changed images: what is changed, what is kept, files that read back, and texts that would stay true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import a_video, a_volume, an_image

from medvlm.data_recipes.grounding import Box2D, Box3D
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.pairs.case import case_of
from medvlm.data_recipes.pairs.corrupt import cropped, noised, values_of
from medvlm.data_recipes.pairs.image_rules import Places, image_pair, parse_image_rule
from medvlm.data_recipes.pairs.pool import Pool
from medvlm.data_recipes.pairs.visual_files import write_visual
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample, Turn, from_json, to_json
from medvlm.model.visual import Image, Volume

REPORT = "There is a large left pleural effusion. The heart is normal in size."


def a_colour_image() -> Image:
    pixels = np.random.default_rng(3).random((3, 20, 30), dtype=np.float32)
    return Image(pixels=pixels, modality="photo", unit="display")


def a_mr_volume() -> Volume:
    voxels = np.random.default_rng(4).gamma(2, 300, (5, 20, 24)).astype(np.float32)
    return Volume(voxels=voxels, modality="MR", unit="arbitrary", spacing_mm=(5.0, 1.0, 1.0), orientation="SPL")


VISUALS = [an_image(), a_colour_image(), a_volume(), a_mr_volume(), a_video()]


@pytest.mark.parametrize("visual", VISUALS, ids=["grey", "colour", "HU", "MR", "clip"])
def test_noise_keeps_mean_spread_and_everything_but_the_scan(visual) -> None:
    pure = noised(visual, np.random.default_rng(0))
    old, new = values_of(visual), values_of(pure)
    assert new.shape == old.shape and new.dtype == np.float32
    assert abs(np.corrcoef(old.ravel(), new.ravel())[0, 1]) < 0.1
    assert new.mean() == pytest.approx(float(old.mean()), abs=0.15 * float(old.std()))
    assert new.std() == pytest.approx(float(old.std()), rel=0.25)
    assert (pure.spacing_mm, pure.modality) == (visual.spacing_mm, visual.modality)
    light = values_of(noised(visual, np.random.default_rng(0), std=0.3))
    assert 0.8 < np.corrcoef(old.ravel(), light.ravel())[0, 1] < 0.99
    assert np.array_equal(new, values_of(noised(visual, np.random.default_rng(0))))


def test_a_crop_blacks_out_the_box_and_leaves_the_rest() -> None:
    image = an_image(height=100, width=100)
    gone = cropped(image, Box2D(x1=0.4, y1=0.2, x2=0.6, y2=0.4)).pixels
    assert (gone[0, 15:45, 35:65] == image.pixels.min()).all()
    kept = np.ones((100, 100), bool)
    kept[15:45, 35:65] = False
    assert np.array_equal(gone[0][kept], image.pixels[0][kept])
    volume = a_volume()
    inside = cropped(volume, Box3D(x1=0.25, y1=0.25, z1=0.5, x2=0.5, y2=0.5, z2=0.75)).voxels
    assert (inside[6:9, 12:24, 10:20] == volume.voxels.min()).all()
    assert np.array_equal(inside[:3], volume.voxels[:3])
    centre = cropped(image).pixels[0]
    assert (centre[15:85, 15:85] == image.pixels.min()).all() and np.array_equal(centre[:15], image.pixels[0, :15])
    assert (cropped(a_video()).frames[:, :, 10:20, 10:20] == a_video().frames.min()).all()


@pytest.mark.parametrize("visual", VISUALS, ids=["grey", "colour", "HU", "MR", "clip"])
def test_files_read_back_with_unit_spacing_orientation_and_times(visual, tmp_path) -> None:
    ref = write_visual(visual, tmp_path / "new", "a", tmp_path)
    back = read(ref, tmp_path)
    step = 0.51 if getattr(visual, "unit", "") == "HU" else 0 if visual.modality == "MR" else 0.51 / 255
    assert np.abs(values_of(back) - values_of(visual)).max() <= step
    assert (back.spacing_mm, back.modality) == (visual.spacing_mm, visual.modality)
    if isinstance(visual, Volume):
        assert (back.unit, back.orientation) == (visual.unit, visual.orientation)
    if hasattr(visual, "times_s"):
        assert np.abs(back.times_s - visual.times_s).max() < 0.001
    assert ref.sha256 == sha256_of(tmp_path / ref.path)
    again = write_visual(visual, tmp_path / "other", "a", tmp_path)
    assert again.sha256 == ref.sha256, "the same numbers give the same bytes"
    assert not [path for path in (tmp_path / "new").iterdir() if path.name.startswith(".")]


def test_a_window_of_the_file_is_applied_where_the_format_cannot_hold_it(tmp_path) -> None:
    raw = Image(
        pixels=np.array([[[0.0, 500.0, 4000.0]]], np.float32), modality="DX", unit="arbitrary", window=(0, 1000)
    )
    back = read(write_visual(raw, tmp_path, "a", tmp_path), tmp_path)
    assert back.pixels.ravel() == pytest.approx([0, 0.5, 1], abs=0.003)


def a_case(folder: Path, answer=REPORT, prompt="Write the report.", name="s", image=None, **metadata):
    ref = write_visual(image or an_image(seed=sum(map(ord, name))), folder, name, folder)
    sample = Sample(
        sample_id=name, patient_id=name, study_id=name, source="a", licence="CC0-1.0", split="train",
        turns=(Turn(role="user", content=(ref, prompt)), Turn(role="assistant", content=(answer,))),
        metadata={"modality": "CR", **metadata},
    )  # fmt: skip
    return case_of(sample)


def places(folder: Path) -> Places:
    return Places(root=folder, out=folder, folder=folder / "pairs_visuals")


@pytest.mark.parametrize("rule", ["noise", "noise:0.5", "crop"])
def test_the_rejected_side_says_the_same_about_another_image(rule, tmp_path) -> None:
    case = a_case(tmp_path)
    pair = image_pair(case, parse_image_rule(rule), Pool(), places(tmp_path), seed=1)
    assert pair is not None and pair.preference is not None
    chosen, rejected = pair.sides()
    assert chosen[-1] == rejected[-1] and chosen[-1].text == REPORT and rejected[0].text == chosen[0].text
    old, new = chosen[0].visuals[0], rejected[0].visuals[0]
    assert old == case.turns[0].visuals[0] and new.path.startswith("pairs_visuals/")
    assert not np.array_equal(values_of(read(old, tmp_path)), values_of(read(new, tmp_path)))
    assert from_json(to_json(pair), where="x") == pair
    assert image_pair(case, parse_image_rule(rule), Pool(), places(tmp_path), seed=1) == pair
    other = image_pair(case, parse_image_rule(rule), Pool(), places(tmp_path), seed=2)
    assert rule == "crop" or other.sides()[1][0].visuals[0].sha256 != new.sha256


def test_questions_about_one_image_share_its_noise(tmp_path) -> None:
    first = a_case(tmp_path)
    second = case_of(
        Sample(
            **{
                **vars(first.sample),
                "sample_id": "t",
                "turns": (first.turns[0], Turn(role="assistant", content=("yes",))),
            }
        )
    )
    new = [
        image_pair(case, parse_image_rule("noise"), Pool(), places(tmp_path)).sides()[1][0].visuals[0]
        for case in (first, second)
    ]
    assert new[0] == new[1] and len(list((tmp_path / "pairs_visuals").iterdir())) == 1


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [("yes", "Is this an axial CT?"), ("no", "Is there an effusion?"), ("CT", "Which modality is it?"),
        ("yes", "Are the lungs free of consolidation?"),
     ("The lungs are clear. No pleural effusion or pneumothorax is seen.", "Write the report.")],
)  # fmt: skip
def test_a_crop_is_not_made_where_the_text_would_stay_true(answer, prompt, tmp_path) -> None:
    assert image_pair(a_case(tmp_path, answer, prompt), parse_image_rule("crop"), Pool(), places(tmp_path)) is None
    asked = a_case(tmp_path, "yes", "Is there an effusion?", name="t")
    assert image_pair(asked, parse_image_rule("crop"), Pool(), places(tmp_path)) is not None


def test_a_crop_takes_the_box_of_the_answer(tmp_path) -> None:
    case = a_case(tmp_path, "<box>(0.400, 0.400, 0.600, 0.600)</box>", "Where is the nodule?")
    pair = image_pair(case, parse_image_rule("crop"), Pool(), places(tmp_path))
    assert pair.metadata["pair"]["blacked_out"] == "box of the answer"
    kept = read(pair.sides()[1][0].visuals[0], tmp_path).pixels[0]
    assert np.abs(kept[:10] - an_image(seed=ord("s")).pixels[0, :10]).max() < 0.003


@pytest.mark.parametrize(
    ("answer", "prompt", "other_answer", "other_prompt", "made"),
    [
        (REPORT, "Write the report.", "The heart is normal. The lungs are clear in this study.", "Report?", True),
        (REPORT, "Write the report.", "There is a small right pleural effusion in this study.", "Report?", False),
        (REPORT, "Write the report.", "There is no pleural effusion. The heart is enlarged.", "Report?", True),
        ("yes", "Is there an effusion?", "no", "Is there an effusion?", True),
        ("yes", "Is there an effusion?", "Yes.", "Is there an effusion?", False),
        ("yes", "Is there an effusion?", "no", "Is there a mass?", False),
        ("X-ray", "What type of image is this?", "Chest X-ray", "What type of image is this?", False),
        ("left kidney", "Where is the lesion?", "Liver", "Where is the lesion?", True),
    ],
)
def test_another_patient_must_make_the_text_false(answer, prompt, other_answer, other_prompt, made, tmp_path) -> None:
    case, pool = a_case(tmp_path, answer, prompt), Pool()
    other = a_case(tmp_path, other_answer, other_prompt, name="t")
    pool.add(other.group, other.entry)
    pool.add(case.group, case.entry)
    pair = image_pair(case, parse_image_rule("other_patient"), pool, places(tmp_path))
    assert (pair is not None) == made
    if pair is not None:
        assert pair.sides()[1][0].visuals == other.turns[0].visuals and pair.metadata["pair"]["from_sample"] == "t"


def test_text_alone_and_knowledge_have_no_image_pair(tmp_path) -> None:
    turns = (Turn(role="user", content=("What is it?",)), Turn(role="assistant", content=("a lung",)))
    text = case_of(Sample(**{**vars(a_case(tmp_path).sample), "turns": turns}))
    known = a_case(tmp_path, needs_knowledge=True)
    for case in (text, known):
        assert image_pair(case, parse_image_rule("noise"), Pool(), places(tmp_path)) is None


@pytest.mark.parametrize("text", ["blur", "noise:0", "noise:x", "crop:2", "noise:-1"])
def test_unknown_corruptions_are_refused(text) -> None:
    with pytest.raises(ValueError, match="noise"):
        parse_image_rule(text)
