"""Slice sets: the right slices, at the right places, on the right side, in the right words."""

import numpy as np
import pytest

from medvlm.data_recipes.sample import Turn, VisualRef
from medvlm.eval.slice_sets import Picture, SlicePolicy, frames_at, show, spread
from medvlm.model.geometry import reorient
from medvlm.model.visual import Image, Video, Volume

ONE = SlicePolicy(slices=1, windows=((0.0, 100.0),), longest=0)


def phantom(orientation: str = "SPL") -> Volume:
    """A body of 20 HU with a bright liver on the patient's right, a brighter nose in front and the brightest hat."""
    voxels = np.full((30, 40, 50), 20.0, dtype=np.float32)  # runs to superior, posterior, left
    voxels[:, 15:25, :10] = 60.0  # liver: towards the patient's right
    voxels[:, :5, 22:28] = 80.0  # nose: anterior
    voxels[27:, 10:30, 20:30] = 100.0  # hat: superior
    volume = Volume(voxels=voxels, modality="CT", unit="HU", spacing_mm=(3.0, 1.0, 1.0), orientation="SPL")
    return reorient(volume, orientation)


def pictures(parts) -> list[np.ndarray]:
    return [part.rgb for part in parts if isinstance(part, Picture)]


def words(parts) -> list[str]:
    return [part for part in parts if isinstance(part, str)]


@pytest.mark.parametrize("orientation", ["SPL", "LPS", "RAS", "IAR", "PIR", "ARI"])
def test_sides_are_where_the_words_say_whatever_the_order_of_the_file(orientation):
    """Radiological convention; the sentence names the same side that the picture shows."""
    liver, nose, hat = 153, 204, 255

    (axial,) = pictures(parts := show(phantom(orientation), ONE))
    assert np.nonzero(axial[..., 0] == liver)[1].max() < axial.shape[1] / 2
    assert np.nonzero(axial[..., 0] == nose)[0].max() < axial.shape[0] / 4
    assert "patient's right is on the left of the picture" in words(parts)[0]
    assert "patient's left is on the right of the picture" in words(parts)[0]
    assert "(anterior) is at the top" in words(parts)[0]

    coronal = SlicePolicy(slices=1, plane="coronal", windows=((0.0, 100.0),), longest=0)
    (picture,) = pictures(parts := show(phantom(orientation), coronal))
    assert np.nonzero(picture[..., 0] == liver)[1].max() < picture.shape[1] / 2
    assert np.nonzero(picture[..., 0] == hat)[0].max() < picture.shape[0] / 4
    assert "patient's right is on the left of the picture" in words(parts)[0] and "superior) is at the top" in parts[0]
    assert picture.shape[:2] == (90, 50)  # pixels are square: 30 slices of 3 mm

    sagittal = SlicePolicy(slices=1, plane="sagittal", windows=((0.0, 100.0),), longest=0)
    (picture,) = pictures(parts := show(phantom(orientation), sagittal))
    assert np.nonzero(picture[..., 0] == nose)[1].max() < picture.shape[1] / 4
    assert np.nonzero(picture[..., 0] == hat)[0].max() < picture.shape[0] / 4
    assert "(anterior) is on the left of the picture" in words(parts)[0]


def test_slices_run_as_the_words_say():
    voxels = np.arange(20, dtype=np.float32)[:, None, None] * np.ones((1, 6, 6), np.float32)
    volume = Volume(voxels=voxels, modality="CT", unit="HU", spacing_mm=(2.5, 1.0, 1.0), orientation="SPL")
    policy = SlicePolicy(slices=4, windows=((0.0, 20.0),))
    parts = show(reorient(volume, "IPL"), policy)
    # the middles of four parts of 50 mm: slices 2, 7, 12 and 17, counted from below though the file is from above
    assert [round(p[0, 0, 0] / 255 * 20) for p in pictures(parts)] == [2, 7, 12, 17]
    assert words(parts)[1:] == [
        f"Slice {n} of 4, {mm} mm from the lower end, window (0 to 20 HU):"
        for n, mm in zip((1, 2, 3, 4), ("6.2", "18.8", "31.2", "43.8"), strict=True)
    ]
    assert parts[0].startswith("A CT volume, shown as 4 of 20 axial slices from the lowest (inferior) to the highest")
    assert "It is 50 mm long in this direction; the slices lie about 12.5 mm apart." in parts[0]


def test_windows_and_colours():
    both = show(phantom(), SlicePolicy(slices=2, windows=("lung", "bone")))
    assert len(pictures(both)) == 4
    assert [w.split(", ")[-1] for w in words(both)[1:]] == [
        "lung window (-1350 to 150 HU):", "bone window (-500 to 1300 HU):",
    ] * 2  # fmt: skip
    rgb = show(phantom(), SlicePolicy(slices=2, windows=("lung", "soft_tissue", "bone"), colours="rgb"))
    assert len(pictures(rgb)) == 2 and "green: soft tissue window (-135 to 215 HU)" in rgb[0]
    body = pictures(rgb)[0][0, 0]  # 20 HU
    assert body.tolist() == [round(255 * v) for v in (1370 / 1500, 155 / 350, 520 / 1800)]


def test_what_is_unknown_is_said_to_be():
    volume = Volume(voxels=phantom().voxels, modality="MR", unit="arbitrary")
    parts = show(volume, SlicePolicy(slices=3))
    assert "orientation is unknown: the sides of the patient cannot be told" in parts[0]
    assert "Distances are unknown" in parts[0] and words(parts)[1] == "Slice 1 of 3:"
    assert "right" not in " ".join(words(parts)) and " mm" not in " ".join(words(parts))
    # one window for the whole volume, though the windows of the policy are two
    assert len(pictures(parts)) == 3


def test_large_slices_are_averaged_down_and_few_are_shown_whole():
    volume = Volume(
        voxels=np.zeros((3, 100, 200), np.float32), modality="CT", unit="HU", spacing_mm=(1.0, 1.0, 1.0),
        orientation="SPL",
    )  # fmt: skip
    parts = show(volume, SlicePolicy(slices=12, windows=("lung",), longest=50))
    assert [p.shape for p in pictures(parts)] == [(25, 50, 3)] * 3 and "all 3 axial slices" in parts[0]


def test_frames_are_even_in_time():
    times = np.concatenate([np.linspace(0, 1, 50), np.linspace(1.1, 5.0, 10)])  # many frames in the first second
    chosen = frames_at(times, 5)
    assert np.abs(times[chosen] - [0.5, 1.5, 2.5, 3.5, 4.5]).max() < 0.25
    assert frames_at(np.array([0.0, 0.1, 0.2, 90.0]), 3).tolist() == [2, 3]  # none twice
    video = Video(
        frames=np.linspace(0, 1, 60, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32),
        times_s=times + 7.0, modality="US",
    )  # fmt: skip
    parts = show(video, SlicePolicy(frames=5))
    assert parts[0] == "A US clip of 5.0 s, shown as 5 of 60 frames in their order in time."
    assert words(parts)[1:] == [f"Frame {n} of 5, t = {times[i]:.2f} s:" for n, i in enumerate(chosen, start=1)]
    assert [int(p[0, 0, 0]) for p in pictures(parts)] == [round(255 * i / 59) for i in chosen]


def test_an_image_is_one_picture_and_keeps_its_place_among_the_words():
    image = Image(pixels=np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4), modality="CR", unit="display")
    first, second = VisualRef(kind="image", path="a.png"), VisualRef(kind="image", path="b.png")
    turns = (Turn(role="user", content=("Before:", first, "After:", second, "What changed?")),)
    (role, parts), = spread(turns, [show(image, ONE)] * 2)  # fmt: skip
    assert role == "user" and words(parts) == ["Before:", "After:", "What changed?"]
    assert [isinstance(part, Picture) for part in parts] == [False, True, False, True, False]
    back = parts[1].image()
    assert np.abs(back.pixels - image.pixels).max() <= 0.5 / 255
    with pytest.raises(ValueError, match="3 visuals were shown"):
        spread(turns, [show(image, ONE)] * 3)


def test_policies_from_the_command_line():
    policy = SlicePolicy.from_text("slices=5, plane=coronal,windows=lung+-10:90,colours=grey,frames=3,longest=0")
    assert policy == SlicePolicy(slices=5, plane="coronal", windows=("lung", (-10.0, 90.0)), frames=3, longest=0)
    assert SlicePolicy.from_text("") == SlicePolicy()
    assert policy.to_dict()["windows"] == ["lung", [-10.0, 90.0]] and policy.to_dict()["version"] == 1
    for text, complaint in (
        ("depth=3", "no setting of slices"), ("slices=many", "cannot be read"), ("slices=0", "at least 1"),
        ("plane=oblique", "use one of axial"), ("windows=liver", "no window 'liver'"), ("windows=9:1", "low < high"),
        ("colours=rgb", "rgb needs three"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=complaint):
            SlicePolicy.from_text(text)
