"""Scaled decode: only of JPEG, only where it serves, close to the whole picture, and upright."""

from __future__ import annotations

import nibabel
import numpy as np
import PIL.Image
import pytest
from conftest import a_volume

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import picture, read
from medvlm.data_recipes.readers.header_size import header_size
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.scaled_reading import read_for
from medvlm.model import MedVLMProcessor

SIZES = ((512, 512), (513, 700), (301, 1027))


def textured(height: int, width: int, channels: int = 1) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8: smooth shapes, a bright corner that shows which way is up, and fine noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 97.0
    planes = [np.sin(x + c) * np.cos(1.3 * y + c) * 70 + 120 for c in range(channels)]
    array = np.stack(planes, axis=-1) + rng.normal(0, 6, (height, width, channels))
    array[: height // 6, : width // 5] += 60
    return array.clip(0, 255).astype(np.uint8).squeeze()


def ref_of(name: str, kind: str = "image", **options: object) -> VisualRef:
    return VisualRef(kind=kind, path=name, options=options)  # type: ignore[arg-type]


def save(path, array: np.ndarray, turn: int = 1) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    PIL.Image.fromarray(array).save(path, quality=90, exif=exif)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_stay_close_to_those_of_the_whole_picture(tmp_path, processor, size, channels):
    save(tmp_path / "a.jpg", textured(*size, channels))
    ref = ref_of("a.jpg", spacing_mm=[0.2, 0.3])
    whole, scaled = read(ref, tmp_path), read_for(ref, tmp_path, processor)
    assert scaled.pixels.shape[1] < whole.pixels.shape[1] / 1.9 and scaled.full_size == whole.pixels.shape[1:]
    before, after = processor.patch(whole), processor.patch(scaled)
    assert before.grid == after.grid
    np.testing.assert_allclose(after.spacing, before.spacing)
    difference = np.abs(before.patches - after.patches)
    assert difference.mean() < 0.006 and difference.max() < 0.15
    size_told = header_size(ref, tmp_path)
    assert size_told == (1, *size) and processor.cost(size_told, "image") == (len(after.patches), after.tokens)


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_pictures_are_upright(tmp_path, processor, turn):
    save(tmp_path / "a.jpg", textured(304, 904), turn)
    ref = ref_of("a.jpg", spacing_mm=[0.2, 0.3])
    whole, scaled = read(ref, tmp_path), read_for(ref, tmp_path, processor)
    assert scaled.full_size == whole.pixels.shape[1:] and scaled.pixels.size < whole.pixels.size / 3
    before, after = processor.patch(whole), processor.patch(scaled)
    assert before.grid == after.grid and np.abs(before.patches - after.patches).mean() < 0.01
    np.testing.assert_allclose(after.spacing, before.spacing)


def test_a_turned_picture_with_an_odd_edge_is_read_whole(tmp_path, processor):
    save(tmp_path / "a.jpg", textured(301, 901), 3)
    assert read_for(ref_of("a.jpg"), tmp_path, processor).full_size is None


def test_spacing_is_that_of_the_decoded_pixels(tmp_path):
    save(tmp_path / "a.jpg", textured(512, 1024))
    image = picture.read(tmp_path / "a.jpg", spacing_mm=[0.2, 0.3], at_least=lambda whole: (128, 128))
    assert image.pixels.shape == (1, 128, 256) and image.spacing_mm == pytest.approx((0.8, 1.2))


@pytest.mark.parametrize(
    ("wanted", "decoded"),
    [((64, 64), (64, 128)), ((65, 64), (128, 256)), ((100, 64), (256, 512)), ((257, 9), (512, 1024))],
)
def test_the_smallest_scale_that_is_exact_or_clearly_larger(tmp_path, wanted, decoded):
    save(tmp_path / "a.jpg", textured(512, 1024))
    image = picture.read(tmp_path / "a.jpg", at_least=lambda whole: wanted)
    assert image.pixels.shape[1:] == decoded and (image.full_size is None) == (decoded == (512, 1024))


def test_what_is_no_jpeg_or_not_twice_as_large_is_read_as_ever(tmp_path, processor):
    array = textured(600, 600)
    PIL.Image.fromarray(array).save(tmp_path / "a.png")
    PIL.Image.fromarray(textured(600, 600, 3)).save(tmp_path / "b.png")
    save(tmp_path / "small.jpg", array[:80, :90])
    np.save(tmp_path / "a.npy", array)
    nibabel.save(nibabel.Nifti1Image(a_volume().voxels, np.eye(4)), tmp_path / "a.nii.gz")
    for ref in (ref_of("a.png"), ref_of("b.png"), ref_of("small.jpg"), ref_of("a.npy"), ref_of("a.nii.gz", "volume")):
        one, other = read(ref, tmp_path), read_for(ref, tmp_path, processor)
        name = "voxels" if ref.kind == "volume" else "pixels"
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(processor.patch(one).patches, processor.patch(other).patches)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_simplejpeg_gives_the_numbers_of_pillow(tmp_path, channels, subsampling):
    pytest.importorskip("simplejpeg", reason="pip install simplejpeg, or medvlm[bench]")
    for size in SIZES:
        PIL.Image.fromarray(textured(*size, channels)).save(tmp_path / "a.jpg", quality=85, subsampling=subsampling)
        for scale in (1, 2, 4, 8):
            with PIL.Image.open(tmp_path / "a.jpg") as opened:
                opened.draft(None, (size[1] // scale, size[0] // scale))
                fast = picture.turbojpeg(opened, tmp_path / "a.jpg")
                assert fast is not None
                slow = np.asarray(opened)
            np.testing.assert_array_equal(fast, slow if channels == 1 else slow.transpose(2, 0, 1))


def test_at_least_is_no_option_of_a_manifest_and_damage_is_refused(tmp_path, processor):
    save(tmp_path / "a.jpg", textured(600, 600))
    with pytest.raises(BadSample, match=r"options\.at_least means nothing"):
        read_for(ref_of("a.jpg", at_least=[1, 1]), tmp_path, processor)
    raw = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BadSample, match="a whole JPEG picture"):
        read_for(ref_of("cut.jpg"), tmp_path, processor)
    with pytest.raises(BadSample, match="the manifest says volume"):
        read_for(ref_of("a.jpg", "volume"), tmp_path, processor)


def test_a_budget_too_small_is_told_by_patch(tmp_path, processor):
    save(tmp_path / "a.jpg", textured(600, 600))
    tiny = MedVLMProcessor(processor.tokenizer, patch_size=(2, 8, 8), max_patches={"image": 1})
    with pytest.raises(ValueError, match="raise max_patches"):
        tiny.patch(read_for(ref_of("a.jpg"), tmp_path, tiny))
