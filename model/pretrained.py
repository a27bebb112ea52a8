"""Weights that exist (timm, open_clip, transformers) -> an encoder of medvlm, by name.

A plain vision transformer becomes a VisionEncoder: packed, in 2D and 3D, at any size, with the numbers of the original
at its native size (docs/encoders.md says how close). Anything else runs as it is on slices (``slices=True``).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PretrainedConfig

from medvlm.model.config import VisionConfig, own_vision_config
from medvlm.model.pretrained_sources import Pixels, Request, read_slices, read_vit
from medvlm.model.pretrained_vit import assemble
from medvlm.model.slice_backbone import SliceBackbone, SliceBackboneConfig
from medvlm.model.vision import VisionEncoder

FREE_FIELDS = (
    "depth_window",
    "rotary",
    "rotary_wavelengths_mm",
    "place_features",
    "unknown_voxel_mm",
    "second_in_mm",
    "initializer_range",
)
"""Fields of VisionConfig that a user may set on a converted encoder; its architecture fixes the others."""


def load_encoder(
    name: str,
    *,
    weights: bool | str = True,
    patch_depth: int = 1,
    drop_layers: int = 0,
    depth_window: int | None = 0,
    slices: bool = False,
    level: int = -1,
    arguments: dict[str, Any] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    **fields: Any,
) -> VisionEncoder | SliceBackbone:
    """The encoder that ``name`` stands for, with its weights.

    Args:
        name: "timm:NAME", "open_clip:NAME@TAG", "open_clip:hf-hub:OWNER/REPOSITORY", "open_clip:local-dir:FOLDER",
            "transformers:FOLDER_OR_ID".
        weights: True for those that the name stands for, False for random ones, or a .safetensors file in the
            library's own naming.
        patch_depth: slices that one patch holds; the kernel is inflated.
        drop_layers: last layers that are left out, with the final norm (1 is LLaVA's penultimate layer).
        depth_window: as in VisionConfig; 0 is what the encoder was trained as.
        slices: run it as it is on every slice, which is the way for what is no plain vision transformer.
        level: with ``slices``: which feature map, -1 for the last.
        arguments: of the library's constructor, for example {"img_size": 384}.
        mean, std: per channel, of pixels in [0, 1], instead of the library's.
        fields: FREE_FIELDS of VisionConfig.

    Raises:
        CannotConvert: no plain vision transformer; says why.
        ValueError: an unknown name, weights that do not fit, or settings that the encoder fixes.
        ModuleNotFoundError: the library is not installed.
        OSError: files that are not found.
    """
    given = {**fields, "patch_depth": patch_depth, "drop_layers": drop_layers, "depth_window": depth_window}
    pixels = _pixels(name, mean, std)
    request = Request(name=name, weights=weights, arguments=dict(arguments or {}), pixels=pixels)
    if slices:
        _check_slices(request, given)
        config, state = read_slices(request, level)
        encoder = SliceBackbone(config)
        encoder.backbone.load_state_dict(state)
        return encoder.eval()
    found, state = assemble(read_vit(request), patch_depth=patch_depth, drop_layers=drop_layers, source=name)
    converted = _converted_config(name, found, {**fields, "depth_window": depth_window})
    if not converted.place_features:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("place.")}
    vit = VisionEncoder(converted)
    vit.load_state_dict(state)
    return vit.eval()


def encoder_config(
    name: str,
    *,
    patch_depth: int = 1,
    drop_layers: int = 0,
    depth_window: int | None = 0,
    slices: bool = False,
    level: int = -1,
    arguments: dict[str, Any] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    **fields: Any,
) -> VisionConfig | SliceBackboneConfig:
    """The config of ``load_encoder``'s answer; no weights are read and no memory is taken for them."""
    fields.pop("weights", None)
    given = {**fields, "patch_depth": patch_depth, "drop_layers": drop_layers, "depth_window": depth_window}
    pixels = _pixels(name, mean, std)
    if not slices and pixels is None:
        pixels = ((0.5,) * 3, (0.5,) * 3)  # folded into weights, which are not made here
    request = Request(name=name, weights=False, arguments=dict(arguments or {}), pixels=pixels, shapes_only=True)
    if slices:
        _check_slices(request, given)
        return read_slices(request, level)[0]
    found, _ = assemble(read_vit(request), patch_depth=patch_depth, drop_layers=drop_layers, source=name)
    return _converted_config(name, found, {**fields, "depth_window": depth_window})


def vision_config(vision: dict[str, Any]) -> PretrainedConfig:
    """The encoder's config that ``model.vision`` of a curriculum describes; no weights are read.

    Args:
        vision: arguments of VisionConfig; or of SliceBackboneConfig with ``model_type: medvlm_slices``; or
            ``pretrained`` (a name) with the arguments of ``load_encoder`` and, instead of ``patch_depth``,
            ``patch_size``.

    Raises: as ``load_encoder``.
    """
    if "pretrained" in vision:
        arguments = _arguments(vision)
        config = encoder_config(**arguments)
        _check_patch_size(vision, config)
        return config
    return own_vision_config(vision)


def fill_pretrained(encoder: nn.Module, vision: dict[str, Any]) -> None:
    """Put the weights that ``model.vision`` names, if it names any, into an encoder made from ``vision_config``."""
    if "pretrained" in vision:
        encoder.load_state_dict(load_encoder(**_arguments(vision)).state_dict())


def _arguments(vision: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``load_encoder``."""
    arguments = {key: value for key, value in vision.items() if key not in ("pretrained", "patch_size", "model_type")}
    patch_size = vision.get("patch_size")
    if patch_size is not None:
        if "patch_depth" in vision:
            raise ValueError("model.vision has patch_size and patch_depth; keep patch_size")
        if len(patch_size) != 3:
            raise ValueError(f"model.vision.patch_size must be [z, y, x], got {patch_size}")
        arguments["patch_depth"] = patch_size[0]
    return {"name": vision["pretrained"], **arguments}


def _check_patch_size(vision: dict[str, Any], config: PretrainedConfig) -> None:
    wanted = vision.get("patch_size")
    if wanted is not None and list(wanted)[1:] != config.patch_size[1:]:
        raise ValueError(
            f"model.vision.patch_size is {list(wanted)}, but {vision['pretrained']} has patches of "
            f"{config.patch_size[1]}x{config.patch_size[2]}: only the first number, its depth, is free; write "
            f"[{wanted[0]}, {config.patch_size[1]}, {config.patch_size[2]}]"
        )


def _pixels(name: str, mean: list[float] | None, std: list[float] | None) -> Pixels | None:
    if (mean is None) != (std is None):
        raise ValueError(f"{name}: mean and std go together, got mean {mean} and std {std}")
    if mean is None or std is None:
        return None
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"{name}: mean and std are 3 numbers each and std is positive, got {mean} and {std}")
    return tuple(mean), tuple(std)


def _check_slices(request: Request, given: dict[str, Any]) -> None:
    neutral = {"patch_depth": 1, "drop_layers": 0, "depth_window": 0}
    wrong = sorted(key for key, value in given.items() if key not in neutral or value not in (neutral[key], None))
    if wrong:
        raise ValueError(
            f"{request.name}: {', '.join(wrong)} cannot be set with slices: true, which encodes every slice alone with "
            "the network as it is; leave it out"
        )


def _converted_config(name: str, found: dict[str, Any], fields: dict[str, Any]) -> VisionConfig:
    unknown = sorted(set(fields) - set(FREE_FIELDS))
    if unknown:
        raise ValueError(
            f"{name}: {', '.join(unknown)} cannot be set, the encoder fixes it; free are {', '.join(FREE_FIELDS)}"
        )
    if fields.get("rotary", found["rotary"]) != found["rotary"]:
        if fields["rotary"] != "millimetres":
            raise ValueError(
                f"{name}: rotary may be {found['rotary']} (its own) or millimetres, got {fields['rotary']}"
            )
        found = {**found, "plane_rotary": None}
    return VisionConfig(**{**found, **fields})
