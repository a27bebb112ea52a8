"""Pretrained encoders of timm and open_clip. The core installation has neither: scripts/test_extras.sh runs this."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("timm", reason="timm is not installed; bash scripts/test_extras.sh runs these tests")
pytest.importorskip("open_clip", reason="open_clip is not installed; bash scripts/test_extras.sh runs these tests")

from pretrained_encoders import check_in_medvlm, sized_processor

from medvlm.model import vision_libraries
from medvlm.model.pretrained import encoder_config, load_encoder, vision_config
from medvlm.model.pretrained_timm import read_timm
from medvlm.model.pretrained_vit import CannotConvert
from medvlm.scripts.bench.encoder_cases import MEAN, STD, Case
from medvlm.scripts.bench.encoder_parity import WITHIN, compare, encode

NARROW = {"embed_dim": 48, "num_heads": 3, "depth": 3}


def timm_case(architecture, **arguments):
    return Case(label="", library="timm", architecture=architecture, arguments=NARROW | arguments)


def open_clip_folder(trunk, pool, **arguments):
    settings = {"timm_model_name": trunk, "timm_pool": pool, "timm_proj": "linear", "image_size": 224} | arguments
    return Case(label="", library="open_clip", architecture="local-dir", arguments=settings)


CASES = {
    "vit": timm_case("vit_tiny_patch16_224", img_size=64),
    "deit3": timm_case("deit3_small_patch16_224", img_size=64),
    "clip": timm_case("vit_base_patch16_clip_quickgelu_224", img_size=64),
    "siglip": timm_case("vit_base_patch16_siglip_224", img_size=64),
    "dinov2": timm_case("vit_small_patch14_dinov2", img_size=56),
    "registers": timm_case("vit_small_patch14_reg4_dinov2", img_size=56),
    "swiglu": timm_case("vit_giant_patch14_reg4_dinov2", img_size=56),
    "dinov3": timm_case("vit_small_plus_patch16_dinov3", img_size=64),
    "eva": timm_case("eva_giant_patch14_224", img_size=56),
    "eva02": timm_case("eva02_tiny_patch14_224", img_size=56),
    "eva02_clip": timm_case("eva02_base_patch16_clip_224", img_size=64),
    "perception": timm_case("vit_pe_core_tiny_patch16_384", img_size=64),
    "naflex": timm_case("naflexvit_base_patch16_siglip"),
    "naflex_factorised": timm_case("naflexvit_base_patch16_gap", pos_embed="factorized"),
    "open_clip": Case(
        label="", library="open_clip", architecture="ViT-B-32-quickgelu",
        arguments={"layers": 2, "width": 64, "head_width": 32, "image_size": 96},
    ),
    "open_clip_scaled": Case(
        label="", library="open_clip", architecture="ViT-B-16",
        arguments={"layers": 2, "width": 64, "head_width": 32, "image_size": 64, "ls_init_value": 1e-5,
                   "final_ln_after_pool": True},
    ),
    "biomedclip": open_clip_folder("vit_tiny_patch16_224", ""),
}  # fmt: skip


@pytest.mark.parametrize("family", CASES)
def test_converted_features_are_the_library_s(family, tmp_path):
    original, native, other = compare(CASES[family], tmp_path)
    assert native.spread > 0.3 and native.largest < WITHIN
    assert (other is None) == (CASES[family].library == "open_clip")
    assert other is None or (other.size[0] != other.size[1] and other.largest < WITHIN)
    arguments = {key: value for key, value in original.arguments.items() if key != "weights"}
    encoder = load_encoder(original.name, **original.arguments)
    assert encoder_config(original.name, **arguments).to_dict() == encoder.config.to_dict()


@pytest.mark.parametrize("family", ["dinov2", "eva02"])
def test_equal_slices_give_the_answer_of_the_picture(family, tmp_path):
    original = CASES[family].make(tmp_path)
    picture = torch.rand(3, 56, 56, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        flat = encode(load_encoder(original.name, **original.arguments), picture)
        deep = load_encoder(original.name, **original.arguments, patch_depth=4, depth_window=1)
        slabs = encode(deep, picture[:, None].expand(-1, 12, -1, -1)).view(3, *flat.shape)
    assert (slabs - flat).abs().max() < WITHIN < flat.std()


@pytest.mark.parametrize(
    ("architecture", "arguments", "reason"),
    [
        ("swin_tiny_patch4_window7_224", {}, "attends in shifted windows"),
        ("beit_base_patch16_224", {"depth": 1}, "relative position bias"),
        ("convnext_atto", {}, "ConvNeXt is not a plain vision transformer"),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}, "distillation token"),
        ("vit_tiny_patch16_224", {"depth": 1, "qk_norm": True}, "normalises queries and keys"),
        ("vit_small_r26_s32_224", {"depth": 1}, "convolutional stem"),
        ("naflexvit_base_patch16_par_gap", {"depth": 1}, "pos_embed_ar_preserving"),
        ("vit_small_patch16_rope_mixed_224", {"depth": 1}, "learned or of a kind not built here"),
    ],
)
def test_what_cannot_be_converted_says_why_and_what_to_do(architecture, arguments, reason):
    with pytest.raises(CannotConvert, match=rf"timm:{architecture} cannot be converted.*{reason}.*`slices: true`"):
        encoder_config(f"timm:{architecture}", arguments=arguments)


def test_a_block_in_another_order_is_refused():
    module = vision_libraries.timm().create_model("vit_tiny_patch16_224", num_classes=0, depth=1)
    read_timm(module, mean=MEAN, std=STD, source="whole")
    module.extra = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(CannotConvert, match=r"no place for \(extra\)"):
        read_timm(module, mean=MEAN, std=STD, source="planted")


def test_unknown_names_are_said_with_those_that_are_like_them(tmp_path):
    for name, message in (
        ("timm:vit_base_patch16_siglip_225", "did you mean .*vit_base_patch16_siglip_224"),
        ("timm:vit_base_patch16_siglip_224.webly", r"no weights 'webly'.*it has .*webli"),
        ("open_clip:ViT-B-61", "did you mean .*ViT-B-16"),
        ("open_clip:ViT-B-16", "needs the tag of its weights: open_clip:ViT-B-16@TAG, one of openai"),
        ("open_clip:ViT-B-16@laion", "no weights 'laion'.*laion2b_s34b_b88k"),
    ):
        with pytest.raises(ValueError, match=message):
            load_encoder(name)
    with pytest.raises(CannotConvert, match="ModifiedResNet is not a plain vision transformer"):
        encoder_config("open_clip:RN50@openai")
    with pytest.raises(ValueError, match=r"own ModifiedResNet; timm has the same networks"):
        encoder_config("open_clip:RN50@openai", slices=True)
    for name in (f"open_clip:local-dir:{tmp_path}", f"timm:local-dir:{tmp_path}"):
        with pytest.raises(FileNotFoundError, match=r"config\.json"):
            load_encoder(name)
    with pytest.raises(ValueError, match=r"could not make it with arguments .*dephth"):
        load_encoder("timm:vit_tiny_patch16_224", weights=False, arguments={"dephth": 2})


@pytest.mark.parametrize(
    "case",
    [
        Case(label="", library="timm", architecture="test_resnet", slices=True),
        Case(
            label="", library="timm", architecture="swin_tiny_patch4_window7_224", slices=True,
            arguments={"strict_img_size": False, "depths": [1, 1], "embed_dim": 24, "num_heads": [2, 4]},
        ),
    ],
    ids=["resnet", "swin"],
)  # fmt: skip
def test_a_network_on_slices_trains_saves_and_loads(case, processor, tmp_path):
    original, native, other = compare(case, tmp_path)
    assert max(native.largest, other.largest) < WITHIN < native.spread
    vision = {"pretrained": original.name, **original.arguments}
    patch_size = vision_config(vision).patch_size
    check_in_medvlm(vision, sized_processor(processor, patch_size), tmp_path / "checkpoint")


def test_biomedclip_s_kind_trains_saves_and_loads(processor, tmp_path):
    original = CASES["biomedclip"].make(tmp_path)
    vision = {"pretrained": original.name, "patch_size": [2, 16, 16], "depth_window": 1}
    check_in_medvlm(vision, sized_processor(processor, (2, 16, 16)), tmp_path / "checkpoint")
