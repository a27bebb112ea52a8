"""Which cases a page holds, what they are filtered by, and visuals packed so that nothing of them is lost unsaid."""

import base64
import gzip
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import samples_of, write_manifest, write_visuals

from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.upright import upright
from medvlm.eval.case_rows import Shortened
from medvlm.eval.case_tags import comparison_tags, tags_of
from medvlm.eval.cases import AnsweredRun, browse
from medvlm.eval.models import Response, reference_of
from medvlm.eval.pictures import NO_ROOM, STACK_SIZES, Album, embed
from medvlm.eval.run import Settings, evaluate
from medvlm.eval.run_folder import read_plan, responses_of
from medvlm.eval.stages import report_main, report_stage, scores_of
from medvlm.model.visual import Image, Video, Volume


def levels_of(about: dict, text: str) -> np.ndarray:
    """What report_viewer.js makes of a packed scan, written a second time."""
    planes = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    half = len(planes) // 2
    zigzag = planes[:half].astype(np.int32) | (planes[half:].astype(np.int32) << 8)
    differences = ((zigzag >> 1) ^ -(zigzag & 1)).reshape(about["shape"])
    return about["low"] + about["step"] * differences.cumsum(axis=2)


def test_a_scan_keeps_its_hounsfield_units() -> None:
    voxels = np.random.default_rng(0).normal(0, 400, (5, 9, 7)).round().astype(np.float32)
    voxels[0, 0, :2] = (-2000, 9000)
    volume = Volume(voxels=voxels, modality="CT", unit="HU", spacing_mm=(3.0, 2.0, 1.0), orientation="SPL")
    made = embed(volume)
    assert (levels_of(made.about, made.text) == voxels.clip(-1024, 3071)).all()
    assert made.about["spacing"] == [3.0, 2.0, 1.0] and made.about["letters"] == {"left": "R", "right": "L"}
    assert made.about["said"].startswith("as stored: 5 × 9 × 7") and made.about["presets"]["Brain"] == [0.0, 80.0]


def test_a_scan_of_another_unit_keeps_4096_levels() -> None:
    voxels = np.random.default_rng(1).random((3, 8, 8)).astype(np.float32)
    made = embed(Volume(voxels=voxels, modality="MR", unit="arbitrary"))
    assert np.abs(levels_of(made.about, made.text) - voxels).max() <= 0.5001 / 4095
    assert not made.about["presets"] and not made.about["letters"] and not made.about["oriented"]
    flat = embed(Volume(voxels=np.ones((2, 4, 4), np.float32), modality="MR", unit="arbitrary"))
    assert (levels_of(flat.about, flat.text) == 1).all()


def test_a_large_scan_is_averaged_and_says_so() -> None:
    voxels = np.random.default_rng(2).normal(0, 50, (80, 200, 300)).astype(np.float32)
    volume = Volume(voxels=voxels, modality="CT", unit="HU", spacing_mm=(1.0, 1.0, 1.0), orientation="SPL")
    small, large = embed(volume, share=1.0), embed(volume)
    assert small.about["shape"] == [40, 85, 128] and large.about["shape"] == [80, 171, 256]
    assert "80 × 200 × 300 voxels" in small.about["said"] and "area average" in small.about["said"]
    assert small.about["spacing"] == pytest.approx([2.0, 200 / 85, 300 / 128])  # the field of view stays
    assert levels_of(small.about, small.text).mean() == pytest.approx(float(voxels.mean()), abs=0.6)
    assert STACK_SIZES[0] == (256, 96)


def test_pictures_and_clips_are_jpeg_and_keep_their_proportions() -> None:
    picture = embed(Image(pixels=np.zeros((3, 40, 20), np.float32), modality="photo", unit="display"))
    assert Pil.open(BytesIO(base64.b64decode(picture.text))).size == (20, 40)
    assert picture.about["width"] / picture.about["height"] == 0.5
    turned = Image(pixels=np.zeros((1, 40, 20), np.float32), modality="DX", unit="display", orientation="LI")
    assert Pil.open(BytesIO(base64.b64decode(embed(turned).text))).size == (40, 20)
    assert embed(turned).about["width"] / embed(turned).about["height"] == 2
    levels = embed(Image(pixels=np.arange(64, dtype=np.float32).reshape(1, 8, 8), modality="CT", unit="HU"))
    assert levels.about["type"] == "scan" and levels.about["shape"] == [1, 8, 8]
    clip = Video(frames=np.zeros((90, 1, 8, 8), np.float32), times_s=np.arange(90) / 30, modality="US")
    frames = embed(clip)
    assert len(frames.text.split(" ")) == len(frames.about["times"]) == 32 and "32 of 90 frames" in frames.about["said"]


@pytest.mark.parametrize("orientation", [None, "IL", "SL", "IR", "LI", "RI", "PL", "AR", "IP", "IA"])
def test_a_box_is_turned_with_its_picture(orientation: str | None) -> None:
    pixels = np.zeros((10, 20, 1), np.float32)
    pixels[2:5, 12:18] = 1.0  # y 0.2 to 0.5, x 0.6 to 0.9
    turning = upright(orientation)
    shown = turning.pixels(pixels)[:, :, 0]
    (x1, y1), (x2, y2) = turning.box((0.6, 0.2), (0.9, 0.5))
    rows, columns = shown.shape
    inside = shown[round(y1 * rows) : round(y2 * rows), round(x1 * columns) : round(x2 * columns)]
    assert inside.size == 18 and inside.all() and shown.sum() == 18


def test_long_texts_keep_both_ends() -> None:
    text = "start" + "x" * 500 + "end"
    short = Shortened(most=100)(text)
    assert short.startswith("start") and short.endswith("end") and "408 characters left out" in short
    assert Shortened(most=1000)(text) == text


def score(condition: str = "image", **marks: object) -> dict:
    row = {"condition": condition, "kind": "closed", "unparsed": False, "rule": "exact", "empty": False}
    return row | {"truncated": False, "correct": True, "choices": ["left", "right"], "value": "left"} | marks


def test_tags_say_what_went_wrong_and_what_the_controls_say() -> None:
    wrong, unread = {"correct": False}, {"unparsed": True, "correct": False, "value": None}
    assert tags_of([score(), score("no_image"), score("swapped", **wrong)]) == ["right", "blind"]
    assert tags_of([score(), score("no_image", **wrong)]) == ["right", "seen"]
    assert tags_of([score(), score("swapped")]) == ["right", "swayed"]
    assert tags_of([score(), score("choices_shuffled"), score("choices_shuffled", **wrong)]) == ["right", "unstable"]
    assert tags_of([score(**wrong)]) == ["wrong", "wrong_side"]
    assert tags_of([score(**wrong, choices=["yes", "no"])]) == ["wrong"]
    assert tags_of([score(**unread, rule="refused")]) == ["wrong", "unparsed", "refused"]
    report = {"kind": "report", "findings": {"hits": 1, "invented": 2, "missed": 0}, "sides": {"flipped": 1}}
    assert tags_of([score(**report, flags=["x"])]) == ["partly", "invented", "wrong_side", "degenerate"]
    assert comparison_tags(score(), score(**wrong, value="right")) == ["differ", "a_only"]
    assert comparison_tags(score(**unread), score()) == ["unparsed", "differ", "b_only"]
    assert comparison_tags(score(), score()) == ["both"] and comparison_tags(score(**wrong), score(**wrong)) == [
        "neither"
    ]


class Mixed:
    """Right on every other question; writes markup where it is wrong."""

    name = "mixed"

    def answer(self, requests):
        return [
            Response(text=reference_of(r.question) if place % 2 else "</script><script>boom()</script>")
            for place, r in enumerate(requests)
        ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    write_visuals(folder, 4)
    samples = [sample for patient in range(4) for sample in samples_of(patient)]
    manifest = write_manifest(folder / "m.jsonl", samples)
    evaluate(Mixed(), [manifest], folder / "run", Settings(conditions=("image", "no_image")), gallery_size=5)
    return folder / "run"


def answered(folder: Path, name: str = "mixed") -> AnsweredRun:
    return AnsweredRun(
        name=name, asks=read_plan(folder), scores=scores_of(folder), responses=responses_of(folder)
    )  # fmt: skip


def unpacked(cases: str) -> dict:
    return dict(json.loads(gzip.decompress(base64.b64decode(cases))))


def test_the_page_is_the_same_to_the_byte_and_holds_no_markup_of_a_model(run: Path) -> None:
    page = (run / "report.html").read_bytes()
    report_stage(run, gallery_size=5)
    assert (run / "report.html").read_bytes() == page
    assert b"boom" not in page and b"http://" not in page and b"https://" not in page
    held = unpacked(page.decode().split('id="cases-data">')[1].split("<")[0])
    assert any(answer["text"] == "</script><script>boom()</script>" for answer in held["cases"][0]["answers"])


def test_the_command_says_how_many_pictures_there_are(run: Path) -> None:
    page = run / "report.html"
    before = page.read_bytes()
    assert report_main([str(run), "--gallery", "60"]) == 0
    assert page.read_bytes().count(b'type="text/plain" id="medium-') == 12
    assert report_main([str(run), "--gallery", "60", "--media-megabytes", "0"]) == 0
    assert page.read_bytes().count(b'type="text/plain" id="medium-') == 0
    assert report_main([str(run), "--gallery", "5"]) == 0 and page.read_bytes() == before


def test_the_cap_keeps_wrong_ones_first_and_says_what_it_left_out(run: Path) -> None:
    whole = browse([answered(run)], read, pictured=0)
    assert whole.shown == whole.total == 60 and whole.chosen[0].startswith("All 60 cases")
    part = browse([answered(run)], read, pictured=3, most=12)
    words = [case["verdict"] for case in unpacked(part.cases)["cases"]]
    assert part.shown == len(words) == 12 and "12 of 60 cases" in part.chosen[0]
    assert words.count("right") == 4 and "right" not in words[:8]  # two wrong for each right one
    assert part.pictured == 3 and "3 of 12 cases" in part.chosen[1]
    assert browse([answered(run)], read, pictured=3, most=12) == part


def test_the_budget_of_media_ends_and_says_so(run: Path) -> None:
    full = browse([answered(run)], read, pictured=60)
    size = sum(len(one.text) for one in full.media)
    part = browse([answered(run)], read, pictured=60, megabytes=size / 2e6)
    assert 0 < len(part.media) < len(full.media) == 12 and sum(len(one.text) for one in part.media) <= size / 2
    missing = [reason for case in unpacked(part.cases)["cases"] for reason in case["missing"]]
    assert set(missing) == {NO_ROOM} and all(len(case["missing"]) <= 1 for case in unpacked(part.cases)["cases"])


def test_a_file_that_is_gone_leaves_the_rest_of_the_page(run: Path, tmp_path: Path) -> None:
    album = Album(read=read, budget=1e6)
    gone = album.place_of(VisualRef(kind="image", path="gone.png"), tmp_path)
    assert isinstance(gone, str) and not album.full
    assert album.place_of(VisualRef(kind="image", path="0.png"), run.parent) == 0
    assert album.place_of(VisualRef(kind="image", path="0.png"), run.parent) == 0 and len(album.pages) == 1


def test_choices_that_are_bare_letters_are_shown_with_their_texts(run: Path) -> None:
    case = next(one for one in unpacked(browse([answered(run)], read).cases)["cases"] if one["kind"] == "choice")
    assert (
        case["choices"] == ["upper", "lower", "middle"] and case["right"] == [0] and case["reference"] == ["A. upper"]
    )


def test_two_runs_need_questions_in_common(run: Path) -> None:
    one, other = answered(run, "a"), answered(run, "b")
    both = unpacked(browse([one, other], read, pictured=0).cases)
    assert both["runs"] == ["a", "b"] and {answer["run"] for answer in both["cases"][0]["answers"]} == {0, 1}
    with pytest.raises(ValueError, match="no question in common"):
        browse([one, AnsweredRun(name="b", asks=(), scores=(), responses=())], read)
    with pytest.raises(ValueError, match="one run or two"):
        browse([], read)
