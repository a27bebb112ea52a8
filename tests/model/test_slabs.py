"""Fast ways against plain ones: windows, resampling and cutting give the same bits slab by slab, channel by channel."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import a_video, a_volume, an_image

from medvlm.model import Image, MedVLMProcessor, Video, Volume
from medvlm.model import slabs as slabs_module
from medvlm.model.geometry import resize_image, resize_volume
from medvlm.model.grid import GridRule
from medvlm.model.intensity import IntensityRule, apply_window, to_channels
from medvlm.model.slabs import windowed_and_resized

WINDOWS = ((-1350.0, 150.0), (-135.0, 215.0), (-500.0, 1300.0))


def cut_plainly(array: np.ndarray, rule: GridRule) -> np.ndarray:
    """(3, D, H, W) -> (P, patch_dim) by one transposition of the whole."""
    (t, h, w), (mt, mh, mw) = rule.patch, rule.merge
    gt, gh, gw = rule.grid(array.shape[1:])  # type: ignore[arg-type]
    blocks = array.reshape(3, gt // mt, mt, t, gh // mh, mh, h, gw // mw, mw, w)
    return blocks.transpose(1, 4, 7, 2, 5, 8, 0, 3, 6, 9).reshape(gt * gh * gw, -1)


def patches_plainly(visual: Image | Volume, processor: MedVLMProcessor) -> np.ndarray:
    """Windows of everything, then three channels resampled, then cut."""
    rule, channels = processor.rule, to_channels(visual, IntensityRule.from_dict(processor.intensity))
    if isinstance(visual, Volume):
        target = rule.target_size(visual.voxels.shape, "volume")  # type: ignore[arg-type]
        array = np.stack([resize_volume(channel, target) for channel in channels])
    else:
        target = rule.target_size((1, *visual.pixels.shape[1:]), "image")
        array = np.repeat(resize_image(channels[:, 0], target[1:])[:, None], target[0], axis=1)
    return cut_plainly(array * 2.0 - 1.0, rule)


@pytest.mark.parametrize("slab_bytes", [1, 1 << 16, 1 << 30])
@pytest.mark.parametrize("size", [(8, 24, 24), (12, 48, 40), (5, 48, 31), (30, 10, 60), (12, 7, 40), (7, 48, 40)])
def test_slabs_equal_the_whole(monkeypatch, slab_bytes, size):
    monkeypatch.setattr(slabs_module, "SLAB_BYTES", slab_bytes)
    voxels = a_volume().voxels
    for view in (voxels, voxels[::-1, ::-1], np.ascontiguousarray(voxels.T).T):
        whole = [resize_volume(apply_window(view, window), size) for window in WINDOWS]
        np.testing.assert_array_equal(windowed_and_resized(view, WINDOWS, size), np.stack(whole))


def visuals() -> list[Image | Volume]:
    rng = np.random.default_rng(0)
    colour = rng.random((3, 70, 51), dtype=np.float32)
    return [
        an_image(),
        an_image(1, 300, 90),
        Image(pixels=colour, modality="photo", unit="display"),
        Image(pixels=colour[:1] * 3000 - 1000, modality="CT", unit="HU"),
        Image(pixels=colour[:1] * 4000, modality="DX", unit="arbitrary", window=(100.0, 3000.0)),
        a_volume(),
        a_volume(1, 33),
        Volume(voxels=a_volume(2, 5).voxels, modality="MR", unit="arbitrary"),
        Volume(voxels=np.full((9, 20, 20), -500, np.float32), modality="CT", unit="HU"),
    ]


@pytest.mark.parametrize("changes", [{}, {"patch_size": (1, 8, 8), "merge": (1, 1, 1)}, {"merge": (2, 2, 2)}])
def test_patches_equal_the_plain_ones(processor, changes):
    made = MedVLMProcessor(
        processor.tokenizer,
        **{"patch_size": (2, 8, 8), "max_patches": processor.max_patches, "max_depth": processor.max_depth, **changes},
    )
    for visual in visuals():
        np.testing.assert_array_equal(made.patch(visual).patches, patches_plainly(visual, made))


def test_frames_equal_the_plain_ones(processor):
    video: Video = a_video()
    rule = processor.rule
    target = rule.target_size((6, 32, 32), "video")
    chosen = np.linspace(0, 5, target[0]).round().astype(int)
    frames = np.stack([resize_image(np.repeat(frame, 3, axis=0), target[1:]) for frame in video.frames[chosen]], axis=1)
    np.testing.assert_array_equal(processor.patch(video).patches, cut_plainly(frames * 2.0 - 1.0, rule))


def test_a_part_of_a_pixel_at_the_edge_counts_as_a_part():
    pixels = np.zeros((1, 3, 3), dtype=np.float32)
    pixels[:, :, 2] = 1.0
    shown = resize_image(pixels, (1, 1), extent=(3.0, 2.5))
    assert shown.item() == pytest.approx(0.5 / 2.5)
