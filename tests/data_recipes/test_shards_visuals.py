"""What a shard gives back is what resampling the source gives; the webdataset library reads the same files."""

from __future__ import annotations

import io
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from shard_sources import colour_jpeg, ct_nifti, grey_png, mixed_set, row, write_rows

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.readers.header_size import header_size
from medvlm.data_recipes.sample import Sample, VisualRef, read_jsonl
from medvlm.data_recipes.shards.arrays import array_in, from_array, npy_bytes, to_array
from medvlm.data_recipes.shards.members import refs_of
from medvlm.data_recipes.shards.reader import ShardSet
from medvlm.data_recipes.shards.resolution import Resolution, parse_resolution, picture_size, resample
from medvlm.data_recipes.shards.shard import main
from medvlm.model.visual import Image, Video, Volume, kind_of

SIZES = {
    "source": ["--size", "source"],
    "sizes": ["--size", "image=32", "volume=8x16x16", "video=5x32"],
    "millimetres": ["--size", "volume=5x1.6x1.6mm"],
    "pixels": ["--max-pixels", "500"],
}


def rows_by_id(shards: ShardSet) -> dict[str, Sample]:
    rows = [shards.row(index) for index in range(len(shards))]
    assert all(isinstance(one, Sample) for one in rows)
    return {one.sample_id: one for one in rows}


def assert_same(got, wanted, at_most: float = 0.0) -> None:
    assert type(got) is type(wanted)
    for field in fields(wanted):
        a, b = getattr(got, field.name), getattr(wanted, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype and a.shape == b.shape and a.flags.writeable
            assert float(np.abs(a - b).max()) <= at_most
        else:
            assert a == b, field.name


@pytest.mark.parametrize("name", SIZES)
def test_a_shard_gives_what_resampling_the_source_gives(tmp_path, name):
    source = mixed_set(tmp_path / "source")
    assert main([str(source), "--out", str(tmp_path / "out"), "--rows-per-shard", "5", *SIZES[name]]) == 1
    resolution = parse_resolution(SIZES[name][1:] if name != "pixels" else [], 500 if name == "pixels" else None)
    stored = rows_by_id(ShardSet.open(tmp_path / "out"))
    originals = {one.sample_id: one for one in read_jsonl(source) if isinstance(one, Sample)}
    assert sorted(set(originals) - set(stored)) == ["s/11", "s/5", "s/8"]
    compared = 0
    for sample_id, got in stored.items():
        wanted = originals[sample_id]
        assert [turn.text for turn in got.turns] == [turn.text for turn in wanted.turns]
        assert got.metadata == wanted.metadata
        assert [len(side) for side in got.sides()] == [len(side) for side in wanted.sides()]
        for ref, old in zip(refs_of(got), refs_of(wanted), strict=True):
            if old.kind == "video" and resolution.video_frames and "max_frames" not in old.options:
                old = VisualRef(kind="video", path=old.path, options={**old.options, "max_frames": 5})
            visual = read(ref, Path("/nowhere"))
            assert_same(visual, resample(read(old, source.parent), resolution))
            if ref.kind == "image":
                assert header_size(ref, Path("/nowhere")) == (1, *visual.pixels.shape[1:])
            if ref.kind == "volume":
                assert header_size(ref, Path("/nowhere")) == visual.voxels.shape
            compared += 1
    assert compared == 14


def test_the_webdataset_library_reads_a_set(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="the bench extra is not installed")
    source = mixed_set(tmp_path / "source")
    main([str(source), "--out", str(tmp_path / "out"), "--rows-per-shard", "4", *SIZES["sizes"]])
    shards = ShardSet.open(tmp_path / "out")
    urls = [str(tmp_path / "out" / entry["name"]) for entry in shards.shards]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(theirs) == len(shards) == 12
    for index, one in enumerate(theirs):
        ours = shards.row(index)
        assert one["json"]["sample_id"] == ours.sample_id
        for ref in refs_of(ours):
            name = ref.options["member"].partition(".")[2]
            if ref.options["stored"] == "array":
                visual = read(ref, Path("/"))
                mine = {"image": "pixels", "volume": "voxels", "video": "frames"}[kind_of(visual)]
                np.testing.assert_array_equal(one[name].astype(np.float32), getattr(visual, mine))


def test_original_bytes_are_untouched(tmp_path):
    source = mixed_set(tmp_path / "source")
    main([str(source), "--out", str(tmp_path / "out"), *SIZES["source"]])
    for one in rows_by_id(ShardSet.open(tmp_path / "out")).values():
        for ref in refs_of(one):
            assert ref.options["stored"] == "source"
            data = Path(ref.path).read_bytes()[ref.options["offset"] :][: ref.options["size"]]
            assert any(data == file.read_bytes() for file in source.parent.iterdir())


def test_small_pictures_keep_their_file_and_large_ones_do_not(tmp_path):
    source = mixed_set(tmp_path / "source")
    main([str(source), "--out", str(tmp_path / "out"), *SIZES["sizes"]])
    rows = rows_by_id(ShardSet.open(tmp_path / "out")).values()
    kinds = {one.sample_id: [ref.options["stored"] for ref in refs_of(one)] for one in rows}
    assert kinds["s/10"] == ["source"] and kinds["s/0"] == ["array"] and kinds["s/9"] == ["array", "array"]
    assert kinds["s/12"] == ["array", "source"]


def test_whole_hounsfield_units_stay_two_bytes_and_resampled_ones_become_floats(tmp_path):
    ct_nifti(tmp_path / "ct.nii.gz")
    volume = read(VisualRef(kind="volume", path="ct.nii.gz", options={"unit": "HU", "modality": "CT"}), tmp_path)
    array, options = to_array(volume, "exact")
    assert array.dtype == np.int16
    assert_same(from_array(array_in(bytearray(npy_bytes(array))), "volume", options), volume)
    smaller = resample(volume, Resolution(volume_size=(6, 10, 12)))
    assert smaller.spacing_mm == pytest.approx((5.0, 1.6, 1.6)) and smaller.unit == "HU"
    assert to_array(smaller, "exact")[0].dtype == np.float32


RNG = np.random.default_rng(0)
PHOTO = Image(pixels=RNG.random((3, 9, 7), np.float32), modality="photo", unit="display")
CLIP = Video(frames=RNG.random((4, 1, 9, 7), np.float32), times_s=np.arange(4) / 3, modality="US")
HU = RNG.normal(0, 400, (5, 6, 7)).astype(np.float32)
CT = Volume(voxels=HU, modality="CT", unit="HU", window=(-160.0, 240.0))
UPTAKE = RNG.gamma(2, 2, (5, 6, 7)).astype(np.float32)
PET = Volume(voxels=UPTAKE, modality="PT", unit="SUV", orientation="SPL")
FLAT = Volume(voxels=np.full((2, 3, 4), 0.3, np.float32), modality="MR", unit="arbitrary")


@pytest.mark.parametrize(
    ("visual", "dtype", "bound"),
    [
        (PHOTO, "u1", 1 / 510),
        (CLIP, "u1", 1 / 510),
        (CT, "i2", 0.5),
        (PET, "u2", float(np.ptp(UPTAKE)) / 131070),
        (FLAT, "f4", 0.0),
    ],
)
def test_rounding_stays_within_its_bound(visual, dtype, bound):
    array, options = to_array(visual, "rounded")
    assert array.dtype == np.dtype(dtype)
    again = from_array(array_in(bytearray(npy_bytes(array))), kind_of(visual), json.loads(json.dumps(options)))
    assert_same(again, visual, at_most=bound * (1 + 1e-5))
    assert_same(from_array(to_array(visual, "exact")[0], kind_of(visual), to_array(visual, "exact")[1]), visual)


def test_members_are_never_unpickled():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="numbers in C order"):
        array_in(bytearray(file.getvalue()))


def test_limits():
    assert picture_size(3000, 2000, 512, None) == (512, 341)
    assert picture_size(3000, 2000, None, 1_000_000) == (1224, 816)
    assert picture_size(10, 20, 512, 10_000) == (10, 20)
    height, width = picture_size(1, 5000, None, 100)
    assert height * width <= 100
    for bad in (["image=0"], ["image"], ["volume=1x2"], ["volume=1..5x1x1mm"], ["movie=3"], ["source", "image=3"], []):
        with pytest.raises(ValueError, match="size"):
            parse_resolution(bad)
    unknown = Volume(voxels=np.zeros((2, 3, 4), np.float32), modality="MR", unit="arbitrary")
    with pytest.raises(ValueError, match="spacing of the volume is unknown"):
        resample(unknown, parse_resolution(["volume=1x1x1mm"]))


def test_a_visual_without_spacing_is_quarantined_when_millimetres_are_asked_for(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((4, 5, 6)))
    grey_png(tmp_path / "g.png")
    colour_jpeg(tmp_path / "c.jpg")
    rows = [row(0, [{"type": "volume", "path": "v.npy"}]), row(1, [{"type": "image", "path": "g.png"}])]
    manifest = write_rows(tmp_path / "train.jsonl", rows)
    assert main([str(manifest), "--out", str(tmp_path / "out"), "--size", "volume=1x1x1mm"]) == 1
    bad = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert "spacing of the volume is unknown" in bad["reason"] and bad["where"].endswith("train.jsonl:1")
    assert bad["sample_id"] == "s/0" and len(ShardSet.open(tmp_path / "out")) == 1


def test_a_row_that_names_no_place_is_refused(tmp_path):
    ref = VisualRef(kind="image", path="x.tar", options={"member": "0.0.npy", "offset": 512})
    with pytest.raises(BadSample, match=r"options\.crc32 is missing"):
        read(ref, tmp_path)
