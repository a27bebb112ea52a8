"""Token reduction: the bound holds, drift is kept, no body is taken for background, and positions keep their gaps."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import TEXTS, a_chat, a_video, an_image, tiny_model
from transformers import AttentionInterface, AttentionMaskInterface

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.packing import Limits, collate, length_of
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import VisualRef
from medvlm.model import Image, MedVLMProcessor, Video, Volume
from medvlm.model.intensity import IntensityRule, to_channels
from medvlm.model.medvlm import has_gaps
from medvlm.model.reduction import (
    BoundedReduction,
    HuluMedReduction,
    as_columns,
    background_tokens,
    brightest_in_tokens,
    reduction_from,
    stand_ins,
)
from medvlm.model.tokenizer import train_tokenizer


def processor_with(reduction: dict | None, **more: object) -> MedVLMProcessor:
    settings = {"patch_size": (2, 8, 8), "max_patches": {"image": 64, "volume": 512}, "max_depth": {"volume": 16}}
    return MedVLMProcessor(train_tokenizer(TEXTS, 400), reduction=reduction, **{**settings, **more})


def a_body(seed: int = 0, depth: int = 16, *, noise: float = 2.0) -> Volume:
    """A chest: air around an ellipse of soft tissue with two lungs in it, a bone that ends half way, and a node."""
    y, x = np.mgrid[0:64, 0:64] / 63 - 0.5
    slices = np.full((depth, 64, 64), -1000.0)
    slices[:, (y / 0.36) ** 2 + (x / 0.44) ** 2 < 1] = 40
    for side in (-0.19, 0.19):
        slices[:, (y / 0.2) ** 2 + ((x - side) / 0.13) ** 2 < 1] = -870
    slices[: depth // 2, 44:50, 29:35] = 500
    slices[10:12, 30:36, 18:22] = 60
    slices += np.random.default_rng(seed).normal(0, noise, slices.shape)
    return Volume(voxels=slices.astype(np.float32), modality="CT", unit="HU", spacing_mm=(5.0, 4.0, 4.0))


def a_walk(seed: int, tokens=(20, 3, 4), values=24, step=0.05) -> np.ndarray:
    """(N, values) patches in [-1, 1]: each column walks at random along z."""
    rng = np.random.default_rng(seed)
    depth, height, width = tokens
    steps = rng.normal(0, step * rng.random(), (depth, height * width, values))
    start = rng.random((1, height * width, values))
    return (np.clip(start + steps.cumsum(axis=0), 0, 1) * 2 - 1).astype(np.float32).reshape(-1, values)


def keep(rule, patches: np.ndarray, tokens: tuple[int, int, int], kind: str = "volume") -> np.ndarray:
    return rule.keep(as_columns(patches, tokens), kind, None)


def errors(patches: np.ndarray, kept: np.ndarray, tokens: tuple[int, int, int]) -> np.ndarray:
    """Largest difference in [0, 1] of every token to the one that stands for it."""
    values = as_columns(patches, tokens).reshape(kept.size, -1)
    return np.abs(values - values[stand_ins(kept, tokens)]).max(axis=1) / 2


# --- the rule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.0, 0.02, 0.1, 0.3])
def test_the_bound_holds_for_random_walks(bound):
    dropped = 0
    for seed in range(40):
        patches, tokens = a_walk(seed), (20, 3, 4)
        kept = keep(BoundedReduction(bound=bound, background=False), patches, tokens)
        assert kept[:12].all(), "the first slice is what everything refers to"
        assert errors(patches, kept, tokens).max() <= bound + 1e-7
        dropped += int((~kept).sum())
        # No kept token could have been dropped: each is beyond the bound of the kept one before it.
        without = kept.reshape(20, 12).copy()
        for z, column in zip(*np.nonzero(without[1:]), strict=True):
            fewer = without.copy()
            fewer[z + 1, column] = False
            assert errors(patches, fewer.reshape(-1), tokens)[(z + 1) * 12 + column] > bound
    assert dropped > 0 or bound == 0


def test_repeated_slices_cost_nothing():
    patches = np.tile(a_walk(1, (1, 3, 4)), (6, 1))
    kept = keep(BoundedReduction(bound=0.0), patches, (6, 3, 4))
    assert kept.sum() == 12 and kept[:12].all()


def test_slow_drift_is_kept_where_the_previous_slice_loses_it():
    drift = np.repeat(np.arange(20, dtype=np.float32)[:, None, None] * 0.045, 4, axis=1).repeat(24, axis=2)
    patches, tokens = (drift * 2 - 1).reshape(-1, 24), (20, 2, 2)
    ours = keep(BoundedReduction(bound=0.1), patches, tokens)
    theirs = keep(HuluMedReduction(), patches, tokens, "volume")
    assert errors(patches, ours, tokens).max() <= 0.1
    column = np.arange(20) * 4 + 3  # not the corner, which Hulu-Med keeps of a static slice
    assert patches[column][ours[column]].max() >= patches.max() - 0.2
    assert theirs[column].sum() == 1 and errors(patches, theirs, tokens)[column].max() > 0.8


def test_one_voxel_is_enough_to_stay():
    """A mean over the token would lose it."""
    patches = np.zeros((2 * 4, 3000), dtype=np.float32)
    patches[5, 1234] = 0.5
    kept = keep(BoundedReduction(), patches, (2, 2, 2))
    assert np.flatnonzero(kept).tolist() == [0, 1, 2, 3, 5]
    assert not keep(HuluMedReduction(), patches, (2, 2, 2), "volume")[5]


def test_hulu_med_by_hand():
    values = np.array([[0, 0, 0], [0.11, 0.09, 0.5], [0.15, 0.18, 0.5], [0.15, 0.18, 0.5]], dtype=np.float32)
    kept = keep(HuluMedReduction(), values.reshape(-1, 1), (4, 1, 3), "video")
    # Slice 1: 0.11 and 0.5 are over 0.1. Slice 2: nothing is, so its first token stays; slice 3 likewise.
    assert kept.reshape(4, 3).tolist() == [[True] * 3, [True, False, True], [True, False, False], [True, False, False]]
    assert keep(HuluMedReduction(), values.reshape(-1, 1), (4, 1, 3), "image").all()


@pytest.mark.parametrize("budget", [12, 13, 40, 100, 239])
def test_a_budget_holds_and_raises_the_bound_no_more_than_it_must(budget):
    patches, tokens = a_walk(3, step=0.4), (20, 3, 4)
    free = keep(BoundedReduction(bound=0.02, background=False), patches, tokens)
    assert free.sum() == 240
    kept = keep(BoundedReduction(bound=0.02, max_tokens={"volume": budget}), patches, tokens)
    assert kept.sum() <= budget and kept[:12].all()
    worst = errors(patches, kept, tokens).max()
    # A bound that is a little lower would not have fitted.
    tighter = keep(BoundedReduction(bound=max(0.0, worst - 0.05)), patches, tokens)
    assert worst < 1 and tighter.sum() > budget - 30
    other = keep(BoundedReduction(bound=0.02, max_tokens={"video": 12}), patches, tokens)
    assert other.sum() == 240, "the budget is of another kind"


def test_a_budget_below_one_slice_is_refused():
    said = r"reduction\.max_tokens\.volume is 11, fewer than the 12 tokens of one slice; raise it, or lower max_patches"
    with pytest.raises(ValueError, match=said):
        keep(BoundedReduction(bound=0.0, max_tokens={"volume": 11}), a_walk(0), (20, 3, 4))


# --- background ----------------------------------------------------------------------------------------------


def test_only_what_is_connected_to_the_border_of_its_slice_is_background():
    layer = np.array([
        [0, 0, 0, 0, 0, 0],
        [0, 9, 9, 9, 9, 0],
        [0, 9, 0, 9, 9, 0],
        [0, 9, 9, 0, 9, 0],
        [0, 0, 9, 9, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ])  # fmt: skip
    expected = (layer == 0).copy()
    expected[2, 2] = expected[3, 3] = False  # enclosed: touching at a corner is not a way out
    # The layer above is all air: the hollow must not drain through it.
    found = background_tokens(np.stack([np.zeros_like(layer), layer]), 0.0).reshape(2, 6, 6)
    assert found[0].all() and np.array_equal(found[1], expected)


def test_lung_and_body_stay_and_the_air_around_them_goes():
    body = a_body(noise=5)
    kept = processor_with({"bound": None}, merge=(1, 1, 1)).patch(body).kept.reshape(8, 8, 8)
    brightest = brightest_in_tokens(body.voxels[None], (2, 8, 8))
    assert np.array_equal(kept, brightest >= -900), "nothing in this body is darker than -900"
    assert not kept[:, 0].any() and kept[:, 3:5, 1:7].all(), "air above; lungs in the middle"


def test_emphysema_is_not_air_around_the_body():
    body = a_body()
    voxels = body.voxels.copy()
    voxels[:, 24:40, 16:32] = -1000  # one whole token of lung without tissue, from the first slice to the last
    patched = processor_with({"bound": None}, merge=(1, 1, 1)).patch(replace(body, voxels=voxels))
    assert (brightest_in_tokens(voxels[None], (2, 8, 8))[:, 3:5, 2:4] == -1000).all()
    assert patched.kept.reshape(8, 8, 8)[:, 3:5, 2:4].all()


def test_the_border_of_a_radiograph_and_of_a_clip_is_black():
    pixels = np.zeros((1, 64, 64), dtype=np.float32)
    pixels[:, 16:48, 16:48] = 0.5
    pixels[:, 30:34, 30:34] = 0
    processor = processor_with({})
    image = processor.patch(Image(pixels=pixels, modality="DX", unit="display"))
    assert image.kept.reshape(4, 4).sum() == 4 and image.kept.reshape(4, 4)[1:3, 1:3].all()
    frames = np.repeat(pixels[None], 4, axis=0)
    clip = processor.patch(Video(frames=frames, times_s=np.arange(4) / 10, modality="US"))
    assert clip.kept.reshape(2, 4, 4).sum() == 4 and not clip.kept.reshape(2, 4, 4)[1].any()
    blank = processor.patch(Image(pixels=pixels * 0, modality="DX", unit="display"))
    assert blank.kept.sum() == 1 and blank.kept[0], "one token is always kept"


# --- the processor -------------------------------------------------------------------------------------------


def test_a_still_body_is_mostly_repetition_and_its_changes_stay():
    whole, reduced = processor_with(None).patch(a_body()), processor_with({"bound": 0.1}).patch(a_body())
    assert np.array_equal(whole.patches, reduced.patches) and whole.kept.all()
    kept = reduced.kept.reshape(8, 4, 4)
    assert reduced.tokens < 0.45 * whole.tokens
    assert kept[4, 2:, 1:3].any(), "the bone ends in layer 4"


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_cells_of_a_noisy_scan_stay_within_the_bound(cell):
    """Against means worked out from the resampled picture, not from patches."""
    body = a_body(noise=25)
    processor = processor_with({"bound": 0.1, "cell": cell})
    patched = processor.patch(body)
    kept = patched.kept.reshape(8, 4, 4)
    channels = to_channels(body, IntensityRule())
    means = channels.reshape(3, 8, 2, 64 // cell, cell, 64 // cell, cell).mean(axis=(2, 4, 6))
    worst = 0.0
    for y, x in np.ndindex(4, 4):
        mine = means[:, :, y * 16 // cell : (y + 1) * 16 // cell, x * 16 // cell : (x + 1) * 16 // cell]
        last = None
        for z in range(8):
            if kept[z, y, x]:
                last = mine[:, z]
            elif last is not None:
                worst = max(worst, float(np.abs(mine[:, z] - last).max()))
    assert worst <= 0.1 + 1e-6
    # Noise is no content: the larger the cell, the less of it is left to tell tokens apart.
    if cell == 1:
        assert kept.mean() > 0.9
    if cell >= 4:
        assert kept.mean() < 0.6 and worst > 0.01


def test_a_node_of_one_cell_stays_where_the_mean_of_its_token_would_lose_it():
    body = a_body(noise=0)
    voxels = body.voxels.copy()
    voxels[6:8, 24:28, 16:20] += 200  # 16 mm of 64 mm: a sixteenth of its token
    for reduction, stays in (({"bound": 0.1}, True), ({"method": "hulu_med"}, False)):
        kept = [
            processor_with(reduction).patch(replace(body, voxels=v)).kept.reshape(8, 4, 4)
            for v in (body.voxels, voxels)
        ]
        assert not kept[0][3, 1, 1] and kept[1][3, 1, 1] == stays


def test_a_cell_that_does_not_divide_the_patch_is_refused():
    with pytest.raises(ValueError, match=r"reduction\.cell is 3, which does not divide a patch of 8 x 8 voxels"):
        processor_with({"cell": 3}).patch(a_body())


@pytest.mark.parametrize("reduction", [None, {"bound": 0.05, "max_tokens": {"volume": 40}}, {"method": "hulu_med"}])
def test_it_is_saved_with_the_processor(tmp_path, reduction):
    processor = processor_with(reduction, slices="nearest", position_gaps=False)
    processor.save_pretrained(tmp_path)
    again = MedVLMProcessor.from_pretrained(tmp_path)
    assert (again.reduction, again.slices, again.position_gaps) == (reduction, "nearest", False)
    assert again.visual_settings() == processor.visual_settings()
    assert np.array_equal(again.patch(a_body()).kept, processor.patch(a_body()).kept)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "top_k"}, r"reduction.method is 'top_k'; use bounded or hulu_med"),
        ({"bounds": 0.1}, r"reduction.bounds is not a setting of 'bounded'; use background, bound, cell, max_tokens"),
        ({"method": "hulu_med", "bound": 0.1}, r"reduction.bound is not a setting of 'hulu_med'; use threshold"),
        ({"bound": 1.5}, r"reduction.bound is 1.5; channels are in \[0, 1\]"),
        ({"max_tokens": {"scan": 3}}, r"max_tokens has the unknown kind 'scan'; use image, volume, video"),
        ({"max_tokens": {"volume": 0}}, r"max_tokens.volume is 0; one token is always kept"),
    ],
)
def test_wrong_settings_name_the_key_and_the_mend(settings, said):
    with pytest.raises(ValueError, match=said):
        processor_with(settings)
    assert reduction_from(None) is None


def test_a_reduced_visual_comes_back_from_the_cache(tmp_path):
    np.save(tmp_path / "scan.npy", a_body().voxels)
    ref = VisualRef(kind="volume", path="scan.npy", options={"unit": "HU", "modality": "CT"})
    processor = processor_with({})
    first = Renderer(processor, tmp_path, tmp_path / "cache").visual(ref)
    again = Renderer(processor, tmp_path, tmp_path / "cache").visual(ref)
    assert np.array_equal(first.kept, again.kept) and 0 < first.tokens < len(first.kept)
    other = Renderer(processor_with({"bound": None}), tmp_path, tmp_path / "cache").visual(ref)
    assert other.tokens > first.tokens, "another setting never finds this entry"
    tight = Renderer(processor_with({"bound": 0.0, "max_tokens": {"volume": 3}}), tmp_path)
    with pytest.raises(BadSample, match=r"fewer than the 16 tokens of one slice.*Mend"):
        tight.visual(ref)


def test_a_sample_over_the_budget_fits_after_reduction():
    chat = a_chat(["volume"], "Which side?", "left")
    costs = [
        length_of([p.render(chat, [p.patch(a_body())])]) for p in (processor_with(None), processor_with({"bound": 0.1}))
    ]
    assert costs[0].visual_tokens == costs[0].visual_tokens_made == costs[1].visual_tokens_made == 128
    assert costs[1].tokens == costs[0].tokens - (128 - costs[1].visual_tokens)
    Limits(tokens=128, patches=600).check(costs[1], where="s")
    with pytest.raises(BadSample, match=r"over the budget of 128 tokens.*processor.reduction makes fewer tokens"):
        Limits(tokens=128, patches=600).check(costs[0], where="s")


# --- positions and the decoder -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reducing():
    return processor_with({"bound": 0.1})


def some_chats() -> list[tuple[list[dict], list]]:
    bare = Image(
        pixels=np.pad(an_image().pixels[:, :40, :40], ((0, 0), (24, 0), (0, 24))), modality="CR", unit="display"
    )
    return [
        (a_chat(["volume"], "On which side is the mass?", "left"), [a_body(1)]),
        (a_chat([], "Is there a pleural effusion?", "no"), []),
        (a_chat(["image", "volume"], "Which zone?", "right lower zone"), [bare, a_body(2, 10)]),
        (a_chat(["video"], "Is there a nodule?", "yes"), [a_video()]),
    ]


def rendered(processor):
    return [processor.render(chat, [processor.patch(v) for v in visuals]) for chat, visuals in some_chats()]


def test_positions_are_those_of_the_whole_grid(reducing):
    whole = processor_with(None)
    for (chat, visuals), short in zip(some_chats(), rendered(reducing), strict=True):
        full = whole.render(chat, [whole.patch(v) for v in visuals])
        stays = np.ones(len(full.tokens), dtype=bool)
        stays[full.tokens == whole.visual_token_id] = (
            np.concatenate([v.kept for v in short.visuals]) if visuals else np.ones(0, dtype=bool)
        )
        assert np.array_equal(short.tokens, full.tokens[stays])
        assert np.array_equal(short.positions, full.positions[stays])
    closed = processor_with({"bound": 0.1}, position_gaps=False)
    for side in rendered(closed):
        assert np.array_equal(side.positions, np.arange(len(side.tokens)))


def flash_like(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """What flash attention's variable-length kernel computes, from the same arguments."""
    ends = kwargs["cu_seq_lens_q"].tolist()
    assert kwargs["cu_seq_lens_q"].dtype == torch.int32 and torch.equal(
        kwargs["cu_seq_lens_q"], kwargs["cu_seq_lens_k"]
    )
    assert kwargs["max_length_q"] == kwargs["max_length_k"] == max(b - a for a, b in pairwise(ends))
    out = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, scale=scaling, enable_gqa=True
        )
        for a, b in pairwise(ends)
    ]
    return torch.cat(out, dim=2).transpose(1, 2), None


AttentionInterface.register("flash_like", flash_like)
AttentionMaskInterface.register("flash_like", lambda *_, **__: None)


@pytest.mark.parametrize("attention", ["sdpa_packed", "flash_like"])
def test_a_pack_with_gaps_equals_its_samples_alone(reducing, attention):
    model = tiny_model(reducing)
    model.text.config._attn_implementation = attention  # the setter asks whether flash attention is installed
    samples = rendered(reducing)
    pack = collate([(str(n), [sample]) for n, sample in enumerate(samples)])
    pack.check(visual_token_id=reducing.visual_token_id)
    assert has_gaps(pack.positions[None], pack.cu_seqlens)
    with torch.no_grad():
        together = model(**pack.model_inputs()).logits[0]
        for sample, start, stop in zip(samples, pack.cu_seqlens, pack.cu_seqlens[1:], strict=False):
            alone = model(**collate([("alone", [sample])]).model_inputs()).logits[0]
            torch.testing.assert_close(together[start:stop], alone, atol=1e-5, rtol=0)
        closed = model(
            **{
                **pack.model_inputs(),
                "position_ids": torch.cat([torch.arange(n) for n in pack.cu_seqlens.diff()])[None],
            }
        )
    assert (closed.logits[0] - together).abs().max() > 1e-2, "gaps must matter, or the test shows nothing"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_an_attention_that_would_cut_at_gaps_refuses_them(reducing, attention):
    model = tiny_model(reducing)
    model.text.set_attn_implementation(attention)
    pack = collate([(str(n), [sample]) for n, sample in enumerate(rendered(reducing))])
    with pytest.raises(ValueError, match=rf"attention '{attention}'.*position_gaps: false.*sdpa_packed"):
        model(**pack.model_inputs())
    closed = processor_with({"bound": 0.1}, position_gaps=False)
    pack = collate([(str(n), [sample]) for n, sample in enumerate(rendered(closed))])
    with torch.no_grad():
        found = model(**pack.model_inputs()).logits
        model.text.set_attn_implementation("sdpa_packed")
        torch.testing.assert_close(found, model(**pack.model_inputs()).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rows", [[0, 2], [0], [1, 3]])
@pytest.mark.parametrize("attention", ["sdpa_packed", "eager"])
def test_generation_goes_on_from_the_positions_of_the_prompt(reducing, attention, rows):
    """With and without cache, alone and in a batch of different lengths, and step by step through packs."""
    model = tiny_model(reducing)
    chats = [(some_chats()[n][0][:1], some_chats()[n][1]) for n in rows]
    expected = []
    for chat, visuals in chats:
        side = reducing.render(chat, [reducing.patch(v) for v in visuals], add_generation_prompt=True)
        written: list[int] = []
        for _ in range(6):
            tokens = np.concatenate([side.tokens, written]).astype(np.int64)
            positions = np.concatenate([side.positions, side.positions[-1] + 1 + np.arange(len(written))])
            longer = replace(side, tokens=tokens, positions=positions, supervised=np.zeros(len(tokens), dtype=bool))
            with torch.no_grad():
                logits = model(**collate([("s", [longer])]).model_inputs()).logits[0, -1]
            written.append(int(logits.argmax()))
        expected.append(written)
    model.text.set_attn_implementation(attention)
    inputs = reducing(messages=[chat for chat, _ in chats], visuals=[visuals for _, visuals in chats])
    assert ("position_ids" in inputs) == (
        rows != [1, 3] or bool(has_gaps(torch.from_numpy(rendered(reducing)[3].positions)[None]))
    )
    for cache in (True, False):
        out = model.generate(
            **inputs, max_new_tokens=6, do_sample=False, use_cache=cache, eos_token_id=None, pad_token_id=0
        )
        assert out[:, inputs["input_ids"].shape[1] :].tolist() == expected


# --- slices --------------------------------------------------------------------------------------------------


def numbered(depth: int) -> Volume:
    """Slice k holds k everywhere, windowed to k / 255."""
    voxels = np.repeat(np.arange(depth, dtype=np.float32), 256).reshape(depth, 16, 16)
    return Volume(voxels=voxels, modality="MR", unit="arbitrary", spacing_mm=(3.0, 1.0, 1.0), window=(0.0, 255.0))


def shown_slices(processor: MedVLMProcessor, volume: Volume) -> np.ndarray:
    patched = processor.patch(volume)
    means = patched.patches.reshape(patched.grid[0], -1, 3, processor.patch_size[0], 64).mean(axis=(1, 2, 4))
    return (means.reshape(-1) + 1) / 2 * 255


@pytest.mark.parametrize("slices", ["average", "nearest"])
def test_forty_slices_in_a_budget_of_180_are_forty(slices):
    processor = processor_with(None, max_depth={"volume": 180}, slices=slices)
    np.testing.assert_allclose(shown_slices(processor, numbered(40)), np.arange(40), atol=1e-3)


@pytest.mark.parametrize("depth", [16, 17, 31, 100, 201])
def test_chosen_slices_are_different_and_evenly_spaced(depth):
    processor = processor_with(None, slices="nearest")
    shown = shown_slices(processor, numbered(depth)).round()
    assert len(set(shown.tolist())) == 16
    assert np.abs(np.diff(shown) - depth / 16).max() <= 1
    assert abs(shown.mean() - (depth - 1) / 2) <= 0.5, "the middle of the scan stays in the middle"
    assert processor.patch(numbered(depth)).spacing[0] == pytest.approx(3 * depth / 16)


def test_averaged_slices_hold_all_that_they_replace():
    shown = shown_slices(processor_with(None), numbered(100))
    np.testing.assert_allclose(shown, (np.arange(16) + 0.5) * 100 / 16 - 0.5, atol=0.02)


def test_a_patch_thicker_than_the_volume():
    """Averaging interpolates to one whole patch and the spacing says so; choosing slices cannot, and says so."""
    patched = processor_with(None).patch(numbered(1))
    assert patched.grid[0] == 1 and patched.spacing[0] == pytest.approx(1.5)
    said = (
        r"patch larger than the volume: 1 slices, but one token is 2 slices thick.*slices: average.*thinner patch_size"
    )
    with pytest.raises(ValueError, match=said):
        processor_with(None, slices="nearest").patch(numbered(1))
    with pytest.raises(ValueError, match="slices is 'closest'; use average or nearest"):
        processor_with(None, slices="closest")
