"""Pictures stand upright with true marks; the report escapes what models write and plots what it is given."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pil

from medvlm.data_recipes.thumbnails import thumbnail
from medvlm.eval.aggregate import aggregate
from medvlm.eval.plots import training_curves
from medvlm.eval.report import write_report
from medvlm.model.visual import Image, Video, Volume


def grey(visual):
    return np.asarray(Pil.open(BytesIO(thumbnail(visual))).convert("RGB")).astype(int)


def yellow(pixels):
    """Columns that hold the colour of the marks."""
    return np.where(((pixels[..., 0] > 200) & (pixels[..., 2] < 90)).any(axis=0))[0]


def corner_image(orientation):
    pixels = np.zeros((1, 40, 40), np.float32)
    pixels[0, :10, :10] = 1.0  # row 0, column 0
    return Image(pixels=pixels, modality="DX", unit="display", orientation=orientation)


@pytest.mark.parametrize(
    ("orientation", "bright"),
    [
        (None, (0, 0)),
        ("IL", (0, 0)),
        ("SL", (1, 0)),  # rows run up: turned over
        ("IR", (0, 1)),  # columns run to the patient's right: mirrored
        ("LI", (0, 0)),  # transposed
        ("RI", (0, 1)),
        ("PL", (0, 0)),
        ("AR", (1, 1)),
        ("IP", (0, 0)),
        ("IA", (0, 1)),
    ],
)
def test_pictures_are_turned_upright(orientation, bright):
    pixels = grey(corner_image(orientation)).mean(axis=2)
    half = len(pixels) // 2
    quarters = {
        (r, c): pixels[r * half : r * half + half, c * half : c * half + half].mean() for r in (0, 1) for c in (0, 1)
    }
    assert max(quarters, key=quarters.__getitem__) == bright


def test_sides_are_marked_only_when_known():
    assert len(yellow(grey(corner_image(None)))) == 0
    assert len(yellow(grey(corner_image("IP")))) == 0  # lateral: no side to mark
    marks = yellow(grey(corner_image("IL")))
    assert marks.min() < 20 and marks.max() > 300


def test_the_same_scan_stored_otherwise_looks_the_same():
    voxels = np.full((12, 20, 20), -1000, np.float32)
    voxels[6, 2:8, 12:18] = 100.0  # front left of the patient
    volume = Volume(voxels=voxels, modality="CT", unit="HU", orientation="SPL", spacing_mm=(5.0, 2.0, 2.0))
    turned = Volume(
        voxels=np.ascontiguousarray(voxels.transpose(2, 1, 0)[::-1, ::-1]),
        modality="CT",
        unit="HU",
        orientation="RAS",
        spacing_mm=(2.0, 2.0, 5.0),
    )
    assert (grey(volume) == grey(turned)).all()
    unknown = Volume(voxels=voxels, modality="CT", unit="HU")
    assert (grey(volume) != grey(unknown)).any()


def test_strips_hold_six_tiles_or_fewer():
    clip = Video(frames=np.zeros((9, 3, 16, 16), np.float32), times_s=np.arange(9.0), modality="US")
    short = Video(frames=np.zeros((2, 3, 16, 16), np.float32), times_s=np.arange(2.0), modality="US")
    assert grey(clip).shape == (2 * 190 + 3, 3 * 190 + 6, 3)
    assert grey(short).shape == (190, 2 * 190 + 3, 3)


def a_score(**changes):
    row = {
        "request_id": "r", "sample_id": "s", "patient": "a/1", "condition": "image", "kind": "closed", "topic": "side",
        "dimension": "2d", "value": "left", "rule": "exact", "unparsed": False, "empty": False, "truncated": False,
        "correct": True, "choices": ["left", "right"], "reference": "left",
    }  # fmt: skip
    return {**row, **changes}


def test_report_escapes_and_shows_everything(tmp_path):
    scores = [a_score(), a_score(patient="a/2", correct=False, value=None, unparsed=True, rule="conflict")]
    metrics = aggregate(scores, tmp_path, not_asked={"swapped": {"no partner": 3}}, run={"model": "<b>mine</b>"})
    runs = tmp_path / "metrics.jsonl"
    runs.write_text("".join(json.dumps({"stage": "align", "step": i, "loss": 3.0 / (i + 1)}) + "\n" for i in range(9)))
    quarantine = [{"where": "m:1", "reason": "torn <script>file", "mend": "copy it again", "sample_id": None}]
    write_report(tmp_path / "r.html", metrics, None, quarantine, [runs], {"Preferences": {"accuracy": 0.91234}})
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>file" not in html and "&lt;script&gt;file" in html and "<b>mine</b>" not in html
    for piece in ("copy it again", "Preferences", "0.9123", "no partner", "align", "50.0", "names several choices"):
        assert piece in html, piece
    assert "http://" not in html and "https://" not in html  # it refers to nothing outside of itself
    assert not list(tmp_path.glob("*.tmp"))


def test_curves_of_nothing_are_none(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 1, "lr": 0.1}\n')
    assert training_curves([], "loss") is None and training_curves([tmp_path / "m.jsonl"], "loss") is None
