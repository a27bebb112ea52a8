"""Pretrained encoders with what the core installation has: transformers' own."""

from __future__ import annotations

import json

import pytest
import torch
from pretrained_encoders import check_in_medvlm, medvlm_with, sized_processor

from medvlm.model.pretrained import encoder_config, load_encoder, vision_config
from medvlm.model.pretrained_transformers import read_transformers
from medvlm.model.pretrained_vit import CannotConvert
from medvlm.scripts.bench.encoder_cases import MEAN, STD, Case
from medvlm.scripts.bench.encoder_parity import WITHIN, compare, encode

SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 48, "patch_size": 8}
FLEXIBLE = {key: value for key, value in SMALL.items() if key != "image_size"} | {"num_patches": 36}
VITS = {
    "siglip": Case(label="", library="transformers", architecture="SiglipVisionConfig", arguments=SMALL),
    "siglip2": Case(label="", library="transformers", architecture="Siglip2VisionConfig", arguments=FLEXIBLE),
    "clip": Case(label="", library="transformers", architecture="CLIPVisionConfig", arguments=SMALL),
    "dinov2": Case(label="", library="transformers", architecture="Dinov2Config", arguments=SMALL),
    "registers": Case(
        label="", library="transformers", architecture="Dinov2WithRegistersConfig",
        arguments=SMALL | {"use_swiglu_ffn": True},
    ),
    "dinov3": Case(
        label="", library="transformers", architecture="DINOv3ViTConfig",
        arguments=SMALL | {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
}  # fmt: skip
RESNET = Case(
    label="", library="transformers", architecture="ResNetConfig", slices=True,
    arguments={"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
)  # fmt: skip


@pytest.mark.parametrize("family", VITS)
def test_converted_features_are_the_library_s(family, tmp_path):
    original, native, other = compare(VITS[family], tmp_path)
    assert native.spread > 0.3 and native.largest < WITHIN
    assert other is not None and other.size[0] != other.size[1] and other.largest < WITHIN
    assert encoder_config(original.name).to_dict() == load_encoder(original.name).config.to_dict()


@pytest.mark.parametrize("family", ["siglip", "clip", "dinov3"])
@pytest.mark.parametrize("depth_window", [0, 1, None])
def test_equal_slices_give_the_answer_of_the_picture(family, depth_window, tmp_path):
    original = VITS[family].make(tmp_path)
    picture = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        flat = encode(load_encoder(original.name), picture)
        deep = load_encoder(original.name, patch_depth=2, depth_window=depth_window)
        assert deep.config.patch_size[0] == 2 and deep.config.depth_window == depth_window
        slabs = encode(deep, picture[:, None].expand(-1, 6, -1, -1)).view(3, *flat.shape)
    assert (slabs - flat).abs().max() < WITHIN < flat.std()
    # Slices that differ must not.
    with torch.no_grad():
        changed = encode(deep, torch.stack([picture, *[1 - picture] * 5], dim=1))
    assert (changed[: len(flat)] - flat).abs().max() > 0.1


def test_penultimate_layer_is_the_library_s_hidden_state(tmp_path):
    original = VITS["clip"].make(tmp_path)
    from transformers import CLIPVisionModel

    library = CLIPVisionModel.from_pretrained(tmp_path).eval()
    picture = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(3))
    column = [torch.tensor(values)[:, None, None] for values in (MEAN, STD)]
    with torch.no_grad():
        states = library((picture - column[0])[None] / column[1], output_hidden_states=True).hidden_states
        ours = encode(load_encoder(original.name, drop_layers=1), picture)
    assert (ours - states[-2][0, 1:]).abs().max() < WITHIN
    assert (ours - states[-1][0, 1:]).abs().max() > 0.1


def test_what_cannot_be_converted_says_why_and_what_to_do(tmp_path):
    original = RESNET.make(tmp_path)
    with pytest.raises(CannotConvert, match=r"resnet is none of .*siglip.*`slices: true`"):
        load_encoder(original.name)


def test_a_parameter_that_nobody_took_is_refused():
    from transformers import Dinov2Config, Dinov2Model

    module = Dinov2Model(Dinov2Config(**SMALL))
    module.encoder.layer[1].attention.q_norm = torch.nn.LayerNorm(12)
    with pytest.raises(CannotConvert, match=r"normalises queries and keys \(encoder.layer.1.attention.q_norm.weight"):
        read_transformers(module, mean=MEAN, std=STD, source="planted")


def test_wrong_use_ends_in_a_message_with_the_mend(tmp_path):
    original = VITS["siglip"].make(tmp_path)
    vision = {"pretrained": original.name}
    assert vision_config(vision | {"patch_size": [4, 8, 8]}).patch_size == [4, 8, 8]
    for settings, message in (
        ({"patch_size": [2, 16, 16]}, r"patches of 8x8: only the first number.*write \[2, 8, 8\]"),
        ({"hidden_size": 96}, "hidden_size cannot be set, the encoder fixes it"),
        ({"drop_layers": 3}, r"drop_layers must lie in 0..2"),
        ({"patch_depth": 0}, "at least 1 slice deep"),
        ({"mean": [0.5] * 3}, "mean and std go together"),
        ({"rotary": "plane"}, "rotary may be none"),
        ({"arguments": {"layers": 2}}, "has no field 'layers'"),
        ({"slices": True}, "no feature maps"),
    ):
        with pytest.raises(ValueError, match=message):
            vision_config(vision | settings)
    with pytest.raises(ValueError, match="LIBRARY:NAME with library one of timm, open_clip, transformers"):
        load_encoder("siglip-so400m")
    with pytest.raises(OSError, match="no_such_folder"):
        load_encoder(f"transformers:{tmp_path}/no_such_folder")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"no preprocessor_config.json.*set `mean` and `std`"):
        load_encoder(original.name)
    assert load_encoder(original.name, mean=list(MEAN), std=list(STD)).config.hidden_size == 48


def test_encoder_and_checkpoint_that_disagree_are_said(tmp_path):
    from safetensors.torch import load_file, save_file

    original = VITS["siglip"].make(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state = {name.removeprefix("vision_model."): value for name, value in state.items()}
    file = str(tmp_path / "other.safetensors")
    save_file(state, file)
    with torch.no_grad():
        picture = torch.rand(3, 48, 48)
        assert torch.equal(
            encode(load_encoder(original.name, weights=file), picture), encode(load_encoder(original.name), picture)
        )
    state["embeddings.position_embedding.weight"] = torch.zeros(49, 48)
    state["extra.weight"] = state.pop("post_layernorm.weight")
    save_file(state, file)
    with pytest.raises(ValueError) as caught:
        load_encoder(original.name, weights=file)
    for part in (
        "1 missing: post_layernorm.weight", "1 unexpected: extra.weight",
        "embeddings.position_embedding.weight (49, 48), expected (36, 48)", "img_size",
    ):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"\.safetensors files, got .*model\.bin"):
        load_encoder(original.name, weights="model.bin")


@pytest.mark.parametrize("family", ["siglip", "dinov3"])
def test_a_model_with_a_converted_encoder_trains_saves_and_loads(family, processor, tmp_path):
    original = VITS[family].make(tmp_path)
    vision = {"pretrained": original.name, "patch_size": [2, 8, 8], "depth_window": 1}
    check_in_medvlm(vision, sized_processor(processor, (2, 8, 8)), tmp_path / "checkpoint")


def test_a_model_with_a_network_on_slices_trains_saves_and_loads(processor, tmp_path):
    original, native, other = compare(RESNET, tmp_path)
    assert native.largest < WITHIN and other.largest < WITHIN and native.spread > 0.1
    config = vision_config({"pretrained": original.name, "slices": True})
    assert config.patch_size == [1, 8, 8] and config.hidden_size == 16
    vision = {"pretrained": original.name, "slices": True, "patch_size": [1, 8, 8]}
    check_in_medvlm(vision, sized_processor(processor, (1, 8, 8)), tmp_path / "checkpoint")


def test_config_files_say_what_the_encoder_became(processor, tmp_path):
    original = RESNET.make(tmp_path)
    model = medvlm_with({"pretrained": original.name, "slices": True}, sized_processor(processor, (1, 8, 8)))
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))["vision_config"]
    assert saved["model_type"] == "medvlm_slices" and saved["mean"] == list(MEAN)
    assert str(tmp_path) not in json.dumps(saved)
