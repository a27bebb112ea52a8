"""Encoders of timm, open_clip and transformers with random weights, and what their own libraries answer.

Every parameter is drawn anew, at a scale at which it matters: the libraries' own initial layer scale of 1e-5 or
positions of zero would hide errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

from medvlm.model import vision_libraries

MEAN, STD = (0.40, 0.50, 0.60), (0.20, 0.30, 0.25)
"""Of the transformers cases: unequal, so that channels cannot be mixed up unseen."""

Features = Callable[[Tensor], Tensor]
"""(3, H, W) pixels in [0, 1] -> (rows * cols, channels) in raster order."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """An encoder in its own library.

    Attributes:
        name, arguments: of ``load_encoder``, which finds the same weights.
        kind: the library's class; layers: of it, for the table.
        features: at the native size; anywhere: at any size, None where the library knows one size only.
        size: (H, W), native.
        compared: what the features are in the library's words.
    """

    name: str
    arguments: dict[str, Any]
    kind: str
    features: Features
    size: tuple[int, int]
    compared: str
    anywhere: Features | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """How to make an Original.

    Attributes:
        label: for the table.
        library: "timm", "open_clip" or "transformers".
        architecture: timm's or open_clip's name, or the name of a transformers config class.
        arguments: of the constructor; narrow or shallow ones keep large models small.
        slices: compare the SliceBackbone.
    """

    label: str
    library: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    slices: bool = False

    def make(self, folder: Path) -> Original:
        """Draw the weights and leave them in ``folder``, which must be empty."""
        makers = {"timm": _timm, "open_clip": _open_clip, "transformers": _transformers}
        return makers[self.library](self, folder)


def redraw(module: nn.Module, seed: int = 0) -> Any:
    """Every parameter and stored statistic anew: matrices of unit gain, tokens and positions 0.5, norms around 1."""
    generator = torch.Generator().manual_seed(seed)
    norms = {
        id(part.weight)
        for part in module.modules()
        if isinstance(part, (nn.LayerNorm, nn.BatchNorm2d)) and part.weight is not None
    }
    with torch.no_grad():
        for name, value in module.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if any(part in name for part in ("pos", "token", "class_embedding", "latent", "probe")):
                value.copy_(0.5 * drawn)
            elif value.ndim > 1:
                value.copy_(drawn * (value.numel() / value.shape[0]) ** -0.5)
            elif id(value) in norms or any(part in name for part in ("gamma", "lambda")):
                value.copy_(1 + 0.3 * drawn)
            else:
                value.copy_(0.3 * drawn)
        for name, stored in module.named_buffers():
            if name.endswith("running_mean"):
                stored.copy_(0.3 * torch.randn(stored.shape, generator=generator))
            elif name.endswith("running_var"):
                stored.copy_(0.5 + torch.rand(stored.shape, generator=generator))
    return module.eval()


def _normalised(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    column = [torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std)]
    return ((pixels - column[0]) / column[1])[None]


def _timm(case: Case, folder: Path) -> Original:
    timm = vision_libraries.timm()
    module = redraw(timm.create_model(case.architecture, num_classes=0, **case.arguments))
    file = folder / "model.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in module.state_dict().items()}, file)
    expected = module.pretrained_cfg
    features, compared = _timm_features(module, expected["mean"], expected["std"], case.slices)
    anywhere = None
    flexible = {"VisionTransformer": True, "Eva": True}.get(type(module).__name__, False)
    if flexible and not case.slices:
        other = timm.create_model(case.architecture, num_classes=0, **{**case.arguments, "dynamic_img_size": True})
        other.load_state_dict(module.state_dict())
        anywhere = _timm_features(other.eval(), expected["mean"], expected["std"], False)[0]
    elif case.slices or type(module).__name__ == "NaFlexVit":
        anywhere = features
    native = case.arguments.get("img_size") or expected["input_size"][-1]
    arguments: dict[str, Any] = {"weights": str(file), "arguments": case.arguments}
    return Original(
        name=f"timm:{case.architecture}",
        arguments={**arguments, "slices": True} if case.slices else arguments,
        kind=type(module).__name__,
        features=features,
        anywhere=anywhere,
        size=(native, native),
        compared=compared,
    )


def _timm_features(module: Any, mean: Any, std: Any, slices: bool) -> tuple[Features, str]:
    def patch_tokens(pixels: Tensor) -> Tensor:
        return module.forward_features(_normalised(pixels, mean, std))[0, module.num_prefix_tokens :]

    def last_map(pixels: Tensor) -> Tensor:
        maps = module.forward_intermediates(_normalised(pixels, mean, std), intermediates_only=True, output_fmt="NCHW")
        return maps[-1][0].flatten(1).T

    return (last_map, "forward_intermediates, last") if slices else (patch_tokens, "forward_features")


def _open_clip(case: Case, folder: Path) -> Original:
    open_clip = vision_libraries.open_clip()
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    if "timm_model_name" in case.arguments:  # a folder as open_clip saves one to the hub
        config = {"embed_dim": 64, "vision_cfg": case.arguments, "text_cfg": {}}
        visual = redraw(_build_vision_tower(64, CLIPVisionCfg(**case.arguments)))
        mean, std = MEAN, STD
        whole = {"model_cfg": config, "preprocess_cfg": {"mean": list(mean), "std": list(std)}}
        (folder / "open_clip_config.json").write_text(json.dumps(whole), encoding="utf-8")
        state = {f"visual.{name}": value.contiguous() for name, value in visual.state_dict().items()}
        state["text.token_embedding.weight"] = torch.zeros(2, 2)
        safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
        features, compared = _timm_features(visual.trunk, mean, std, case.slices)
        name, arguments = f"open_clip:local-dir:{folder}", {}
        kind = f"TimmModel ({type(visual.trunk).__name__})"
    else:
        config = open_clip.get_model_config(case.architecture)
        settings = CLIPVisionCfg(**{**config["vision_cfg"], **case.arguments})
        visual = redraw(_build_vision_tower(config["embed_dim"], settings, config.get("quick_gelu", False)))
        file = folder / "visual.safetensors"
        safetensors.torch.save_file({k: v.contiguous() for k, v in visual.state_dict().items()}, file)
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        visual.output_tokens = True

        def features(pixels: Tensor) -> Tensor:
            return visual(_normalised(pixels, mean, std))[1][0]

        name, arguments = f"open_clip:{case.architecture}", {"weights": str(file), "arguments": case.arguments}
        kind, compared = type(visual).__name__, "tokens of output_tokens=True"
    return Original(
        name=name,
        arguments={**arguments, "slices": True} if case.slices else arguments,
        kind=kind,
        features=features,
        anywhere=features if case.slices else None,
        size=tuple(visual.image_size),
        compared=compared,
    )


def _transformers(case: Case, folder: Path) -> Original:
    config = getattr(transformers, case.architecture)(**case.arguments)
    if case.slices:
        config.out_features = [config.stage_names[-1]]
        module = redraw(transformers.AutoBackbone.from_config(config))
    else:
        module = redraw(getattr(transformers, case.architecture.removesuffix("Config") + "Model")(config))
    module.save_pretrained(folder)
    processor = {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    features, anywhere = _transformers_features(module, case.slices)
    side = 64 if case.slices else getattr(config, "image_size", None)
    side = side or round(config.num_patches**0.5) * config.patch_size
    return Original(
        name=f"transformers:{folder}",
        arguments={"slices": True} if case.slices else {},
        kind=type(module).__name__,
        features=features,
        anywhere=anywhere,
        size=(side, side),
        compared="feature_maps, last" if case.slices else "last_hidden_state",
    )


def _transformers_features(module: Any, slices: bool) -> tuple[Features, Features]:
    config = module.config
    prefix = 0
    if hasattr(module, "embeddings"):
        embeddings = module.embeddings
        prefix += int(hasattr(embeddings, "cls_token") or hasattr(embeddings, "class_embedding"))
        prefix += int(getattr(config, "num_register_tokens", 0))

    def plain(pixels: Tensor) -> Tensor:
        return module(_normalised(pixels, MEAN, STD)).last_hidden_state[0, prefix:]

    def resized(pixels: Tensor) -> Tensor:
        found = module(_normalised(pixels, MEAN, STD), interpolate_pos_encoding=True)
        return found.last_hidden_state[0, prefix:]

    def patches(pixels: Tensor) -> Tensor:
        side = config.patch_size
        rows, cols = pixels.shape[1] // side, pixels.shape[2] // side
        blocks = _normalised(pixels, MEAN, STD)[0].reshape(3, rows, side, cols, side).permute(1, 3, 2, 4, 0)
        return module(
            pixel_values=blocks.reshape(1, rows * cols, -1),
            pixel_attention_mask=torch.ones(1, rows * cols),
            spatial_shapes=torch.tensor([[rows, cols]]),
        ).last_hidden_state[0]

    def feature_map(pixels: Tensor) -> Tensor:
        return module(_normalised(pixels, MEAN, STD)).feature_maps[-1][0].flatten(1).T

    if slices:
        return feature_map, feature_map
    if config.model_type == "siglip2_vision_model":
        return patches, patches
    return (plain, resized) if config.model_type in ("siglip_vision_model", "clip_vision_model") else (plain, plain)
