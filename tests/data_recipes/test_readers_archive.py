"""NPZ: one item of one array, mapped where it is stored and unpacked once where it is compressed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import numpy_archive, read, sniff
from medvlm.data_recipes.readers.header_size import header_size
from medvlm.data_recipes.sample import VisualRef

GREY = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 6, 7, 3), dtype=np.uint8)
SOLID = np.random.default_rng(1).normal(size=(3, 4, 5, 6)).astype(np.float32)


def ref(path: Path, kind: str = "image", **options: object) -> VisualRef:
    return VisualRef(kind=kind, path=str(path), options=options)  # type: ignore[arg-type]


@pytest.fixture(params=["stored", "compressed"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save = np.savez if request.param == "stored" else np.savez_compressed
    path = tmp_path / "some.bin"  # told by content, not by name
    with path.open("wb") as file:
        save(file, train_images=GREY, colour=COLOUR, solid=SOLID, turned=np.asfortranarray(SOLID))
    return path


def test_items_of_every_kind(archive: Path) -> None:
    assert sniff(archive) is None
    grey = read(ref(archive, member="train_images", item=3, unit="display", modality="CR"), archive.parent)
    np.testing.assert_allclose(grey.pixels, GREY[3][None] / np.float32(255))
    assert (grey.unit, grey.modality) == ("display", "CR")
    colour = read(ref(archive, member="colour", item=1), archive.parent)
    np.testing.assert_allclose(colour.pixels, COLOUR[1].transpose(2, 0, 1) / np.float32(255))
    for member in ("solid", "turned"):
        volume = read(ref(archive, "volume", member=member, item=2, spacing_mm=[1, 2, 3]), archive.parent)
        np.testing.assert_array_equal(volume.voxels, SOLID[2])
        assert volume.spacing_mm == (1.0, 2.0, 3.0) and volume.unit == "arbitrary"


def test_shapes_come_from_headers(archive: Path) -> None:
    assert numpy_archive.shapes_of(archive)["train_images"] == (5, 6, 7)
    for kind, options, size in (
        ("image", {"member": "train_images", "item": 1}, (1, 6, 7)),
        ("image", {"member": "colour", "item": 1}, (1, 6, 7)),
        ("volume", {"member": "solid", "item": 0, "orientation": "PSL"}, (5, 4, 6)),
    ):
        assert header_size(ref(archive, kind, **options), archive.parent) == size
    with pytest.raises(BadSample, match=r"options\.item is 9"):
        header_size(ref(archive, member="colour", item=9), archive.parent)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"item": 0}, "options.member is None, but the archive holds colour, solid, train_images, turned"),
        ({"member": "labels"}, "options.member is 'labels', but the archive holds"),
        ({"member": "train_images", "item": 5}, "options.item is 5, but the file holds 5"),
        ({"member": "colour"}, r"an array of shape \(4, 6, 7, 3\)"),
        ({"member": "colour", "item": 0, "frame": 1}, "options.frame means nothing"),
        ({"member": "solid", "item": 0, "unit": "display"}, "options.unit is 'display', but values run from"),
    ],
)
def test_what_is_refused(archive: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(BadSample, match=words):
        read(ref(archive, **options), archive.parent)


def test_an_archive_of_one_array_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", GREY)
    assert read(ref(tmp_path / "one.npz", item=1), tmp_path).pixels.shape == (1, 6, 7)


def test_a_stored_member_is_mapped_and_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=GREY)
    mapped = numpy_archive.member_of(path, "images")
    assert numpy_archive.member_of(path, "images") is mapped and not mapped.flags.writeable
    assert mapped.base is not None  # bytes of the file, not a copy
    np.savez(path, images=GREY[:2] + 1, more=GREY)
    np.testing.assert_array_equal(numpy_archive.member_of(path, "images"), GREY[:2] + 1)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BadSample, match="pickled objects"):
        read(ref(tmp_path / "a.npz", item=0), tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archives_are_refused(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.npz"
    save(path, images=np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadSample, match=r"a \.npz archive of arrays"):
        read(ref(path, item=0), tmp_path)
    if save is np.savez_compressed:
        path.write_bytes(whole[:2000] + bytes(50) + whole[2050:])
        with pytest.raises(BadSample, match=r"a \.npz archive of arrays"):
            read(ref(path, item=0), tmp_path)


def test_a_compressed_archive_is_stored_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, out = tmp_path / "packed.npz", tmp_path / "stored.npz"
    np.savez_compressed(packed, images=GREY, solid=SOLID)
    assert numpy_archive.main([str(packed), "--out", str(out)]) == 0
    with zipfile.ZipFile(out) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    with np.load(out) as loaded:
        np.testing.assert_array_equal(loaded["images"], GREY)
    assert read(ref(out, "volume", member="solid", item=0), tmp_path).voxels.shape == (4, 5, 6)
    packed.write_bytes(b"PK\x03\x04 nothing")
    assert numpy_archive.main([str(packed), "--out", str(tmp_path / "x.npz")]) == 2
    assert "packed.npz" in capsys.readouterr().err and not (tmp_path / "x.npz").exists()
