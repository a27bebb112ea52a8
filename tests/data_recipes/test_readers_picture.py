"""Pictures of every kind, as other programs write them."""

from __future__ import annotations

import zlib

import numpy as np
import PIL.Image
import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.sample import VisualRef

GREY = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2


def show(path, **options):
    return read(VisualRef(kind="image", path=path.name, options=options), path.parent)


def test_grey_and_colour(tmp_path):
    PIL.Image.fromarray(GREY).save(tmp_path / "grey.png")
    PIL.Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "grey_as_rgb.png")
    PIL.Image.fromarray(np.stack([GREY, GREY, 255 - GREY], axis=-1)).save(tmp_path / "rgb.png")
    for name in ("grey.png", "grey_as_rgb.png"):
        image = show(tmp_path / name)
        np.testing.assert_allclose(image.pixels, GREY[None] / 255.0, atol=1e-6)
        assert image.unit == "display" and image.spacing_mm is None and image.modality == "unknown"
    assert show(tmp_path / "rgb.png").pixels.shape == (3, 40, 60)
    np.testing.assert_allclose(show(tmp_path / "rgb.png").pixels[2], (255 - GREY) / 255.0, atol=1e-6)


def test_sixteen_bits_keep_their_values_and_name_their_range(tmp_path):
    twelve = GREY.astype(np.uint16) * 10
    PIL.Image.fromarray(twelve).save(tmp_path / "x.png")
    image = show(tmp_path / "x.png")
    assert image.unit == "arbitrary" and image.window == (0.0, float(twelve.max()))
    np.testing.assert_array_equal(image.pixels[0], twelve)


def test_float_tiff_and_its_nan(tmp_path):
    values = GREY.astype(np.float32) / 7
    PIL.Image.fromarray(values).save(tmp_path / "f.tiff")
    np.testing.assert_allclose(show(tmp_path / "f.tiff").pixels[0], values)
    values[0, :3] = np.nan
    PIL.Image.fromarray(values).save(tmp_path / "nan.tiff")
    with pytest.raises(BadSample, match=r"3 of 2400 pixels are NaN"):
        show(tmp_path / "nan.tiff")


def test_transparent_pixels_lie_over_black(tmp_path):
    rgba = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    rgba[:10, ..., 3] = 0
    PIL.Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = show(tmp_path / "a.png").pixels
    assert pixels.shape == (1, 40, 60) and pixels[0, :10].max() == 0
    np.testing.assert_allclose(pixels[0, 10:], GREY[10:] / 255.0, atol=1e-6)


def test_one_bit_palette_and_cmyk(tmp_path):
    PIL.Image.fromarray(GREY > 100).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(show(tmp_path / "bit.png").pixels[0], (GREY > 100).astype(np.float32))
    PIL.Image.fromarray(GREY).convert("P").save(tmp_path / "p.gif")
    np.testing.assert_allclose(show(tmp_path / "p.gif").pixels[0], GREY / 255.0, atol=1e-6)
    PIL.Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    np.testing.assert_allclose(show(tmp_path / "c.jpg").pixels.mean(axis=(1, 2)), [1, 0, 0], atol=0.02)


def test_exif_rotation_is_applied(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the stored picture must be turned clockwise
    PIL.Image.fromarray(GREY).save(tmp_path / "r.png", exif=exif)
    np.testing.assert_allclose(show(tmp_path / "r.png").pixels[0], np.rot90(GREY, -1) / 255.0, atol=1e-6)


def test_extension_that_lies(tmp_path):
    PIL.Image.fromarray(GREY).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.nii.gz")
    assert sniff(tmp_path / "x.nii.gz") == "image" and show(tmp_path / "x.nii.gz").pixels.shape == (1, 40, 60)


def test_pages_of_a_tiff_must_be_chosen(tmp_path):
    pages = [PIL.Image.fromarray(GREY), PIL.Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / "m.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(BadSample, match=r"a TIFF of 2 pages.*options.frame, 0 to 1"):
        show(tmp_path / "m.tiff")
    np.testing.assert_allclose(show(tmp_path / "m.tiff", frame=1).pixels[0], (255 - GREY) / 255.0, atol=1e-6)
    with pytest.raises(BadSample, match=r"options.frame is 2, but the file holds 2"):
        show(tmp_path / "m.tiff", frame=2)


@pytest.mark.parametrize("ending", ["jpg", "png", "tiff", "webp"])
def test_truncated_picture_is_refused_not_padded(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / f"x.{ending}")
    whole = (tmp_path / f"x.{ending}").read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(whole[: len(whole) // 2])
    show(tmp_path / f"x.{ending}")
    with pytest.raises(BadSample, match=rf"cut\.{ending}: expected a whole .*picture.*Mend: copy the file again"):
        show(tmp_path / f"cut.{ending}")


def test_wrong_checksum_is_refused(tmp_path):
    PIL.Image.fromarray(GREY).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    at = data.index(b"IDAT") + 4
    size = int.from_bytes(data[at - 8 : at - 4], "big")
    data[at + size : at + size + 4] = (zlib.crc32(b"other")).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(BadSample, match=r"expected a whole"):
        show(tmp_path / "x.png")


def test_what_is_no_picture(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    with pytest.raises(BadSample, match=r"empty \(0 bytes\)"):
        show(tmp_path / "empty.jpg")
    with pytest.raises(BadSample, match=r"going by its content"):
        show(tmp_path / "text.jpg")
    with pytest.raises(BadSample, match=r"gone.jpg: no such file"):
        show(tmp_path / "gone.jpg")
    assert sniff(tmp_path / "text.jpg") is None and sniff(tmp_path / "empty.jpg") is None


def test_options_are_checked(tmp_path):
    PIL.Image.fromarray(GREY).save(tmp_path / "x.png")
    image = show(tmp_path / "x.png", modality="CR", spacing_mm=[0.2, 0.3])
    assert image.modality == "CR" and image.spacing_mm == (0.2, 0.3)
    with pytest.raises(BadSample, match=r"options.time_index means nothing for this image.*spacing_mm"):
        show(tmp_path / "x.png", time_index=0)
    with pytest.raises(BadSample, match=r"options.spacing_mm is \[0, 1\]; 2 positive millimetres"):
        show(tmp_path / "x.png", spacing_mm=[0, 1])


def test_kind_of_the_manifest_must_fit(tmp_path):
    PIL.Image.fromarray(GREY).save(tmp_path / "x.png")
    with pytest.raises(BadSample, match=r"the file is of kind image, but the manifest says volume"):
        read(VisualRef(kind="volume", path="x.png"), tmp_path)
