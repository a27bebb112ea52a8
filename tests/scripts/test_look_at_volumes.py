"""The sheet of volumes shows the patient's left at the viewer's right, the front on top, the head up."""

import nibabel
import numpy as np
import pytest
from PIL import Image as Pil

from medvlm.scripts.look_at_volumes import CAPTION, GAP, TILE, main

SPACING = (2.0, 1.0, 1.0)


def write(path, mark, codes="RAS"):
    """A dark block (z, y, x) with one bright cube; axes towards Superior, Posterior, Left before it is stored."""
    voxels = np.zeros((24, 40, 40), dtype=np.float32)
    voxels[mark] = 100.0
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels.transpose(2, 1, 0)), affine)
    source, target = nibabel.orientations.axcodes2ornt("LPS"), nibabel.orientations.axcodes2ornt(codes)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(source, target)), path)


def brightness(sheet, row, view, place):
    """Mean grey of one quarter of a tile: place is (top or bottom, left or right)."""
    top = row * (TILE + CAPTION + GAP) + CAPTION
    tile = sheet[top : top + TILE, view * (TILE + GAP) : view * (TILE + GAP) + TILE]
    rows = slice(40, TILE // 2 - 20) if place[0] == "top" else slice(TILE // 2 + 20, TILE - 40)
    columns = slice(30, TILE // 2 - 20) if place[1] == "left" else slice(TILE // 2 + 20, TILE - 30)
    return tile[rows, columns].mean()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_a_mark_is_shown_where_the_letters_say(codes, tmp_path):
    # Upper, front and left of the patient, reaching the middle planes.
    write(tmp_path / "x.nii.gz", (slice(11, 20), slice(6, 21), slice(20, 34)), codes)
    assert main([str(tmp_path), "--out", str(tmp_path / "look.png")]) == 0
    sheet = np.asarray(Pil.open(tmp_path / "look.png").convert("L"), dtype=float)
    assert sheet.shape == (TILE + CAPTION + GAP, 3 * TILE + 2 * GAP)
    for view, bright in enumerate((("top", "right"), ("top", "right"), ("top", "left"))):
        quarters = {(v, h): brightness(sheet, 0, view, (v, h)) for v in ("top", "bottom") for h in ("left", "right")}
        assert max(quarters, key=quarters.get) == bright and quarters[bright] > 60
        assert sum(value < 20 for value in quarters.values()) == 3


def test_what_cannot_be_read_is_said_and_the_rest_shown(tmp_path, capsys):
    write(tmp_path / "good.nii.gz", (slice(0, 9), slice(0, 9), slice(0, 9)))
    bad = nibabel.Nifti1Image(np.full((4, 4, 4), np.nan, dtype=np.float32), np.eye(4))
    nibabel.save(bad, tmp_path / "bad.nii.gz")
    assert main([str(tmp_path), "--out", str(tmp_path / "look.png")]) == 1
    assert "1 volumes" in capsys.readouterr().out
    (tmp_path / "good.nii.gz").unlink()
    assert main([str(tmp_path), "--out", str(tmp_path / "none.png")]) == 2
    assert "no volume that can be read" in capsys.readouterr().err and not (tmp_path / "none.png").exists()
