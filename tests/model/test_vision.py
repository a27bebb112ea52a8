"""The encoder alone: nobody sees a neighbour, windows hold, positions and pretrained settings mean what they say."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from conftest import a_video, a_volume, an_image, tiny_model
from torch.nn import functional as F
from transformers import DINOv3ViTConfig
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding

from medvlm.data_recipes.packing import collate
from medvlm.model import MedVLMConfig, VisionConfig, load_checkpoint, save_checkpoint
from medvlm.model import vision as vision_module
from medvlm.model.batch import IMAGE, VIDEO, VOLUME
from medvlm.model.patches import patch_coordinates
from medvlm.model.vision import VisionEncoder
from medvlm.model.vision_attention import attention_kernel, plan_attention
from medvlm.model.vision_positions import Places, plane_angles, table_positions

NAN = float("nan")
UNIT = {"coordinates": "unit", "base": 100.0}
INDEX = {"coordinates": "index", "base": 10000.0, "reference": [6, 6]}
PRETRAINED = {
    "place_features": False, "table_size": [4, 6], "prefix_tokens": 5, "embedding_norm": True, "final_norm": False,
    "attention_norm": True, "layer_scale": True, "mlp": "gated", "mlp_norm": True, "hidden_act": "silu",
}  # fmt: skip
"""Every setting of a pretrained encoder at once, away from its default."""


def an_encoder(seed: int = 0, **settings) -> VisionEncoder:
    """A tiny encoder in which no parameter is zero, one or so small that an equality would prove nothing."""
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "patch_size": (2, 4, 4), **settings,
    }  # fmt: skip
    torch.manual_seed(seed)
    encoder = VisionEncoder(VisionConfig(**settings))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return encoder.eval()


def rotary(kind: str) -> dict:
    return {"rotary": "plane", "plane_rotary": UNIT if kind == "unit" else INDEX} if kind in ("unit", "index") else {
        "rotary": kind
    }  # fmt: skip


@dataclasses.dataclass
class Pack:
    """Visuals ready for an encoder with patches of ``width`` numbers."""

    patches: torch.Tensor
    grids: torch.Tensor
    spacing: torch.Tensor
    axis_kinds: torch.Tensor

    def one(self, index: int) -> "Pack":
        ends = [0, *self.grids.prod(dim=1).cumsum(0).tolist()]
        patches = self.patches[ends[index] : ends[index + 1]]
        at = slice(index, index + 1)
        return Pack(patches, self.grids[at], self.spacing[at], self.axis_kinds[at])


def a_pack(merge: list[int], width: int = 96) -> Pack:
    """Images of different sizes, volumes of one to seven slabs (even numbers when the merge is 2), and a video."""
    even = merge[0] == 2
    rows = [
        (IMAGE, (merge[0], 4, 6), (NAN, 4.0, 4.0)),
        (IMAGE, (merge[0], 4, 6), (NAN, NAN, NAN)),
        (VOLUME, (6 if even else 7, 4, 4), (5.0, 0.7, 0.7)),
        (IMAGE, (merge[0], 6, 2), (NAN, 1.0, 1.0)),
        (VOLUME, (2, 2, 6), (2.5, 1.0, 1.0)),
        (VIDEO, (4, 4, 4), (0.04, NAN, NAN)),
        (VOLUME, (2 if even else 3, 2, 2), (NAN, NAN, NAN)),
        (VOLUME, (4 if even else 5, 2, 4), (8.0, 2.0, 2.0)),
    ]
    grids = torch.tensor([grid for _, grid, _ in rows])
    generator = torch.Generator().manual_seed(5)
    patches = torch.randn(int(grids.prod(dim=1).sum()), width, generator=generator)
    kinds = torch.tensor([kind for kind, _, _ in rows])
    return Pack(patches, grids, torch.tensor([spacing for _, _, spacing in rows]), kinds)


def run(encoder: VisionEncoder, pack: Pack, merge: list[int]) -> torch.Tensor:
    return encoder(pack.patches, pack.grids, pack.spacing, pack.axis_kinds, merge)


def packed_against_alone(encoder: VisionEncoder, merge: list[int], backward: bool = True) -> dict[str, float]:
    """Largest difference between one pack and each visual alone, relative to the scale of what is compared."""
    pack = a_pack(merge)
    pack.patches.requires_grad_(backward)
    with torch.set_grad_enabled(backward):
        together = run(encoder, pack, merge)
        apart = torch.cat([run(encoder, pack.one(index), merge) for index in range(len(pack.grids))])
    assert together.std() > 0.1, "the outputs must differ enough for an equality to mean something"
    found = {"features": relative(together, apart)}
    if backward:
        weights = torch.randn(together.shape, generator=torch.Generator().manual_seed(6))
        names = [name for name, _ in encoder.named_parameters()]
        wanted = [pack.patches, *encoder.parameters()]
        sides = [torch.autograd.grad((side * weights).sum(), wanted) for side in (together, apart)]
        for name, first, second in zip(["patches", *names], *sides, strict=True):
            found[name] = relative(first, second)
    return found


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(((first - second).abs().max() / second.abs().max()).detach())


WINDOWS = [None, 0, 1, 2]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["millimetres", "unit", "index", "none"])
@pytest.mark.parametrize("merge", [[1, 2, 2], [2, 2, 2]], ids=str)
def test_packed_equals_each_visual_alone_forward_and_backward(attention, kind, merge):
    for window, settings in itertools.product(WINDOWS, ({}, PRETRAINED)):
        encoder = an_encoder(depth_window=window, **settings, **rotary(kind))
        encoder.set_attn_implementation(attention)
        for name, difference in packed_against_alone(encoder, merge).items():
            assert difference < 5e-5, (name, window, sorted(settings))


@pytest.mark.parametrize("settings", [{}, {"depth_window": 1}, {"depth_window": 1, "prefix_tokens": 3}], ids=str)
def test_packed_equals_alone_with_checkpointing(settings):
    encoder = an_encoder(**settings).train()
    plain = packed_against_alone(encoder, [1, 2, 2])
    encoder.gradient_checkpointing = True
    again = packed_against_alone(encoder, [1, 2, 2])
    assert max(again.values()) < 5e-5
    assert plain.keys() == again.keys()


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("settings", [{}, {"depth_window": 1, **PRETRAINED}], ids=["native", "pretrained"])
def test_a_planted_leak_is_reported(monkeypatch, attention, settings):
    encoder = an_encoder(**settings)
    encoder.set_attn_implementation(attention)
    backward = attention != "flex_attention"
    assert max(packed_against_alone(encoder, [1, 2, 2], backward).values()) < 5e-5

    def leaky(grids, *rest):
        plan = plan_attention(grids, *rest)
        if len(grids) == 1:
            return plan
        # The first visual, an image of one slab, sees one token of the next.
        return dataclasses.replace(plan, key_lengths=(plan.key_lengths[0] + 1, *plan.key_lengths[1:]))

    monkeypatch.setattr(vision_module, "plan_attention", leaky)
    found = packed_against_alone(encoder, [1, 2, 2], backward)
    assert found["features"] > 1e-3
    assert not backward or found["patches"] > 1e-3


@pytest.mark.parametrize("kind", ["millimetres", "unit", "none"])
@pytest.mark.parametrize("merge", [[1, 2, 2], [2, 2, 2]], ids=str)
def test_all_kernels_agree(kind, merge):
    for window, settings in itertools.product(WINDOWS, ({}, PRETRAINED)):
        encoder = an_encoder(depth_window=window, **settings, **rotary(kind))
        out = {}
        for attention in ("eager", "sdpa", "flex_attention"):
            encoder.set_attn_implementation(attention)
            assert encoder.config._attn_implementation == attention
            with torch.no_grad():
                out[attention] = run(encoder, a_pack(merge), merge)
        torch.testing.assert_close(out["sdpa"], out["eager"], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(out["flex_attention"], out["sdpa"], atol=2e-5, rtol=1e-5)


def test_flex_refuses_to_train_on_a_cpu():
    encoder = an_encoder()
    encoder.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match=r"no backward pass on a CPU; train with attn_implementation: sdpa"):
        run(encoder, a_pack([1, 2, 2]), [1, 2, 2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2"])
@pytest.mark.parametrize("window", WINDOWS)
def test_kernels_of_a_gpu_give_the_gradients_of_sdpa(attention, window):
    half = attention == "flash_attention_2"
    if half:
        pytest.importorskip("flash_attn")
    encoder = an_encoder(depth_window=window, **PRETRAINED).cuda().to(torch.bfloat16 if half else torch.float32)
    pack = Pack(**{field.name: getattr(a_pack([1, 2, 2]), field.name).cuda() for field in dataclasses.fields(Pack)})
    grads = {}
    for name in (attention, "sdpa"):
        encoder.set_attn_implementation(name)
        out = run(encoder, pack, [1, 2, 2]).float()
        grads[name] = torch.autograd.grad(out.square().sum(), list(encoder.parameters()))
    for first, second in zip(grads[attention], grads["sdpa"], strict=True):
        assert relative(first.float(), second.float()) < (5e-2 if half else 1e-3)


# The depth window


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("window", [0, 1, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("settings", [{}, PRETRAINED], ids=["native", "pretrained"])
@pytest.mark.parametrize("merge", [[1, 2, 2], [2, 2, 2]], ids=str)
def test_influence_ends_at_the_window(layers, window, attention, settings, merge):
    encoder = an_encoder(num_hidden_layers=layers, depth_window=window, **settings)
    encoder.set_attn_implementation(attention)
    grid = (8, 2, 2)
    z = torch.from_numpy(patch_coordinates(grid, tuple(merge))[:, 0])
    patches = torch.randn(32, 96, generator=torch.Generator().manual_seed(0))
    changed = patches.clone()
    changed[z == 3] += 1.0
    rest = torch.tensor([grid]), torch.tensor([[5.0, 1.0, 1.0]]), torch.tensor([VOLUME])
    with torch.no_grad():
        moved = (encoder(patches, *rest, merge) - encoder(changed, *rest, merge)).abs().amax(dim=1)
    reached = (z - 3).abs() <= window * layers
    assert moved[reached].min() > 1e-5, "inside the window every token must feel the change"
    assert moved[~reached].max() == 0 if (~reached).any() else True


def test_without_a_window_every_slab_sees_every_other():
    plan = plan_attention([(5, 2, 2), (1, 3, 3), (3, 1, 1)])
    assert (plan.query_lengths, plan.key_starts, plan.key_lengths) == ((20, 9, 3), (0, 20, 29), (20, 9, 3))
    assert plan.each_sees_itself
    assert plan == plan_attention([(5, 2, 2), (1, 3, 3), (3, 1, 1)], 0, 4)


def test_plan_with_prefix_and_window():
    plan = plan_attention([(4, 1, 2), (1, 1, 1)], 1, 1)
    assert plan.query_lengths == (3, 3, 3, 3, 2)
    assert plan.key_starts == (0, 0, 3, 6, 12)
    assert plan.key_lengths == (6, 9, 9, 6, 2)
    assert not plan.each_sees_itself
    assert plan.pairs == 3 * (6 + 9 + 9 + 6) + 4


def test_a_window_costs_less_and_copies_no_keys(monkeypatch):
    grids = [(40, 4, 4)]
    full, near = plan_attention(grids), plan_attention(grids, 0, 1)
    assert near.pairs < full.pairs / 10
    q, k, v = torch.randn(3, 2, 640, 16)
    seen = []
    original = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: (seen.append(k), original(q, k, v))[1])
    attention_kernel("sdpa", near, q.device)(q, k, v)
    # The interior of the volume, 38 of 40 slabs, is one call, and its keys are a view of k.
    assert [key.shape[0] for key in seen] == [1, 38, 1]
    assert seen[1].untyped_storage().data_ptr() == k.untyped_storage().data_ptr()


# Volumes of equal slices, scans of any depth


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", ["unit", "index", "none"])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_constant_volume_gives_the_features_of_its_slice(depth, kind, window):
    settings = {**PRETRAINED, **rotary(kind)}
    flat = an_encoder(depth_window=0, **settings, patch_size=(1, 4, 4))
    deep = an_encoder(depth_window=window, **settings, patch_size=(depth, 4, 4))
    weights = flat.state_dict()
    kernel = weights["embed.weight"].reshape(32, 3, 1, 4, 4) / depth
    weights["embed.weight"] = kernel.expand(-1, -1, depth, -1, -1).reshape(32, -1)
    deep.load_state_dict(weights)
    for height, width, merge in ((4, 6, [1, 2, 2]), (6, 4, [2, 2, 2]), (8, 2, [1, 1, 1])):
        image = torch.randn(height * width, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        grid = (6, height, width)
        _, y, x = torch.from_numpy(patch_coordinates(grid, tuple(merge))).T
        plane = torch.from_numpy(patch_coordinates((1, height, width), (1, *merge[1:])))
        at = torch.zeros(height, width, dtype=torch.long)
        at[plane[:, 1], plane[:, 2]] = torch.arange(height * width)
        volume = image[at[y, x]].expand(-1, -1, depth, -1, -1).flatten(1)
        with torch.no_grad():
            expected = flat(
                image.flatten(1), torch.tensor([[1, height, width]]), torch.full((1, 3), NAN), torch.tensor([IMAGE]),
                [1, *merge[1:]],
            )  # fmt: skip
            features = deep(
                volume, torch.tensor([grid]), torch.tensor([[3.0, 1.0, 1.0]]), torch.tensor([VOLUME]), merge
            )
        assert expected.std() > 0.1
        torch.testing.assert_close(features, expected[at[y, x]], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"depth_window": 1}, {"depth_window": 1, **PRETRAINED}], ids=str)
@pytest.mark.parametrize("slices", [1, 2, 3, 7])
def test_a_scan_of_any_number_of_slices_works(processor, settings, slices):
    encoder = an_encoder(patch_size=(2, 8, 8), **settings)
    chat = [
        {"role": "user", "content": [{"type": "image"}] * 3},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
    ]
    shown = [processor.patch(visual) for visual in (a_volume(2, slices), an_image(1), a_video(3))]
    batch = collate([("s", [processor.render(chat, shown)])])
    pack = Pack(batch.patches, batch.grids, batch.spacing, batch.axis_kinds)
    merge = list(processor.rule.merge)
    with torch.no_grad():
        together = run(encoder, pack, merge)
        alone = torch.cat([run(encoder, pack.one(index), merge) for index in range(3)])
    assert together.isfinite().all() and together.std() > 0.1
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


# Positions


def places_of(grids: list[tuple[int, int, int]], config: VisionConfig) -> Places:
    count = len(grids)
    return Places(torch.tensor(grids), torch.full((count, 3), NAN), torch.full((count,), VOLUME), config, [1, 1, 1])


def test_plane_rotary_is_that_of_dinov3():
    source = DINOv3ViTConfig(hidden_size=32, num_attention_heads=2, patch_size=4, image_size=32)
    cos, sin = DINOv3ViTRopePositionEmbedding(source).eval()(torch.zeros(1, 3, 24, 20))
    config = VisionConfig(hidden_size=32, num_attention_heads=2, rotary="plane", plane_rotary=UNIT)
    angles = plane_angles(places_of([(2, 6, 5)], config), config, 8)
    for slab in angles.reshape(2, 30, 8):
        torch.testing.assert_close(slab.cos().tile(2), cos, atol=1e-6, rtol=0)
        torch.testing.assert_close(slab.sin().tile(2), sin, atol=1e-6, rtol=0)


def test_index_rotary_by_hand():
    def angles(**plane):
        config = VisionConfig(
            hidden_size=32, num_attention_heads=2, rotary="plane",
            plane_rotary={"coordinates": "index", "base": 16.0, **plane},
        )  # fmt: skip
        return plane_angles(places_of([(1, 3, 4)], config), config, 8)[1 * 4 + 3]  # y = 1, x = 3

    steps = torch.tensor([1.0, 0.5, 0.25, 0.125])  # 16 ** (-i / 4)
    torch.testing.assert_close(angles(), torch.cat([1 * steps, 3 * steps]))
    torch.testing.assert_close(angles(first_axis="x"), torch.cat([3 * steps, 1 * steps]))
    torch.testing.assert_close(angles(offset=1), torch.cat([2 * steps, 4 * steps]))
    torch.testing.assert_close(angles(reference=[6, 2]), torch.cat([2 * steps, 1.5 * steps]))


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
def test_table_is_untouched_at_its_own_size_and_interpolated_elsewhere(mode, antialias):
    config = VisionConfig(table_size=[3, 4], table_interpolation=mode, table_antialias=antialias)
    table = torch.randn(12, 5)
    own, other, small = table_positions(
        table, places_of([(2, 3, 4), (2, 5, 6), (1, 2, 2)], config), config
    ).split([24, 60, 4])  # fmt: skip
    assert torch.equal(own.reshape(2, 12, 5)[0], table)
    assert torch.equal(own.reshape(2, 12, 5)[1], table)
    for found, depth, size in ((other, 2, (5, 6)), (small, 1, (2, 2))):
        image = table.T.reshape(1, 5, 3, 4)
        expected = F.interpolate(image, size=size, mode=mode, align_corners=False, antialias=antialias)
        torch.testing.assert_close(found, expected[0].flatten(1).T.repeat(depth, 1))


def test_rotary_none_knows_no_place():
    encoder = an_encoder(rotary="none", place_features=False)
    pack = a_pack([1, 1, 1]).one(2)
    order = torch.randperm(len(pack.patches), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = run(encoder, pack, [1, 1, 1])
        second = run(encoder, dataclasses.replace(pack, patches=pack.patches[order]), [1, 1, 1])
    torch.testing.assert_close(second, first[order], atol=1e-5, rtol=1e-5)


# Settings and files


def test_defaults_have_the_parameters_of_before():
    names = {name for name, _ in VisionEncoder(VisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                                            intermediate_size=48)).named_parameters()}  # fmt: skip
    modules = ["embed", "place", "norm"] + [
        f"layers.0.{name}" for name in ("norm1", "attention.qkv", "attention.out", "norm2", "mlp.up", "mlp.down")
    ]
    assert names == {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


def test_pretrained_settings_have_the_agreed_parameters():
    names = set(an_encoder(num_hidden_layers=1, **PRETRAINED).state_dict())
    for name in ("table", "prefix", "embedding_norm.weight", "layers.0.scale1", "layers.0.scale2",
                 "layers.0.mlp.gate.weight", "layers.0.mlp.norm.weight", "layers.0.attention.norm.weight"):  # fmt: skip
        assert name in names
    assert not {name for name in names if name.startswith(("place.", "norm."))}


def test_a_model_with_all_settings_is_saved_and_loaded_exactly(processor, tmp_path):
    model = tiny_model(processor)
    torch.manual_seed(1)
    settings = {**model.config.vision_config.to_dict(), **PRETRAINED, **rotary("index"), "depth_window": 1}
    config = MedVLMConfig(
        vision_config=settings, projector_config=model.config.projector_config, text_config=model.config.text_config,
        visual_token_id=processor.visual_token_id,
    )  # fmt: skip
    model = type(model)(config).eval()
    assert model.vision.table.std() > 0.01 and model.vision.prefix.std() > 0.01
    assert torch.equal(model.vision.layers[0].scale1, torch.ones(64))
    save_checkpoint(tmp_path / "checkpoint", model, processor)
    loaded, _ = load_checkpoint(tmp_path / "checkpoint")
    before, after = (side.config.vision_config.to_dict() for side in (model, loaded))
    assert {**after, "dtype": None} == {**before, "dtype": None}
    visuals = [[a_volume()]]
    chat = [[{"role": "user", "content": [{"type": "volume"}, {"type": "text", "text": "Is there a nodule?"}]}]]
    inputs = processor(messages=chat, visuals=visuals)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)


def test_the_encoder_alone_takes_another_attention_than_the_decoder(processor, model):
    model.set_attn_implementation({"vision_config": "flex_attention"})
    assert model.vision.config._attn_implementation == "flex_attention"
    assert model.text.config._attn_implementation == "sdpa_packed"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotary": "polar"}, r"rotary must be one of millimetres, plane, none, got 'polar'"),
        ({"rotary": "plane"}, r"rotary: plane and plane_rotary need each other.*set both"),
        ({"plane_rotary": UNIT}, r"rotary: plane and plane_rotary need each other.*or neither"),
        ({"rotary": "plane", "plane_rotary": {"base": 10.0}}, r"plane_rotary needs coordinates and base"),
        ({"rotary": "plane", "plane_rotary": {**UNIT, "offset": 1}}, r"may have \['base', 'coordinates', 'first_axis'"),
        ({"rotary": "plane", "plane_rotary": {**INDEX, "coordinates": "mm"}}, r"coordinates is unit or index"),
        ({"rotary": "plane", "plane_rotary": {**UNIT, "base": 0}}, r"base must be above 0, got 0"),
        ({"rotary": "plane", "plane_rotary": {**INDEX, "reference": [3]}}, r"reference must be \[rows, cols\]"),
        ({"hidden_size": 60, "num_attention_heads": 4}, r"even number of at least 6.*got 15 .*or set rotary: none"),
        ({"hidden_size": 16, "num_attention_heads": 4}, r"even number of at least 6.*got 4 "),
        ({"hidden_size": 40, "rotary": "plane", "plane_rotary": UNIT, "num_attention_heads": 4}, r"multiple of 4.*10"),
        ({"hidden_size": 50, "num_attention_heads": 4}, r"50 must be a multiple of num_attention_heads 4"),
        ({"depth_window": -1}, r"depth_window must be a whole number of at least 0, or null for all slabs, got -1"),
        ({"depth_window": 1.5}, r"depth_window must be a whole number"),
        ({"prefix_tokens": -2}, r"prefix_tokens must be a whole number of at least 0, got -2"),
        ({"table_size": [4]}, r"table_size must be \[rows, cols\], got \[4\]; null means no position table"),
        ({"table_interpolation": "nearest"}, r"table_interpolation must be one of bicubic, bilinear"),
        ({"mlp": "moe"}, r"mlp must be one of plain, gated"),
        ({"hidden_act": "gellu"}, r"hidden_act 'gellu' is unknown; choose one of"),
        ({"patch_size": (0, 8, 8)}, r"patch_size must be three whole numbers"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig(**{"hidden_size": 32, "num_attention_heads": 2, **settings})


def test_odd_heads_are_allowed_without_rotary_positions():
    encoder = an_encoder(hidden_size=30, num_attention_heads=2, rotary="none")
    assert encoder.config.head_dim == 15
    with torch.no_grad():
        assert run(encoder, a_pack([1, 2, 2]), [1, 2, 2]).isfinite().all()


def test_unknown_kind_of_encoder_is_refused():
    with pytest.raises(ValueError, match=r"model_type 'vit' is unknown; choose medvlm_vision or medvlm_slices"):
        MedVLMConfig(vision_config={"model_type": "vit"})


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValueError, match=r"model\.vision has no setting rotery; it has hidden_size, .*rotary"):
        MedVLMConfig(vision_config={"hidden_size": 32, "num_attention_heads": 2, "rotery": "none"})


def test_unknown_attention_is_refused():
    encoder = an_encoder()
    encoder.config._attn_implementation = "paged|eager"
    with pytest.raises(ValueError, match=r"no attention .*one of eager, sdpa, flash_attention_2, flex_attention"):
        run(encoder, a_pack([1, 2, 2]), [1, 2, 2])


def test_frequencies_reach_every_axis():
    """Another spacing along each axis alone changes the features (millimetre rotary, no place features)."""
    encoder = an_encoder(place_features=False, rotary_wavelengths_mm=(2.0, 50.0))
    pack = a_pack([1, 2, 2]).one(2)
    outs = []
    for axis in (None, 0, 1, 2):
        spacing = pack.spacing.clone()
        if axis is not None:
            spacing[:, axis] *= 1.5
        with torch.no_grad():
            outs.append(run(encoder, dataclasses.replace(pack, spacing=spacing), [1, 2, 2]).numpy())
    assert all(np.abs(other - outs[0]).max() > 1e-3 for other in outs[1:])
