"""Names of pretrained encoders -> the library's own module, with weights or without, and the pixels it expects.

"timm:NAME", "open_clip:NAME[@TAG]" and "transformers:ID"; NAME may be "hf-hub:OWNER/REPOSITORY" or "local-dir:FOLDER"
for timm and open_clip, and ID is a folder or a hub id. Reading from the hub is the libraries' own code and needs the
network; it was not run where this was written.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from torch import Tensor, nn
from transformers import MODEL_FOR_BACKBONE_MAPPING, AutoConfig, PretrainedConfig
from transformers.utils import cached_file

from medvlm.model import vision_libraries
from medvlm.model.pretrained_open_clip import read_open_clip
from medvlm.model.pretrained_timm import read_timm
from medvlm.model.pretrained_transformers import TOWERS, read_transformers
from medvlm.model.pretrained_vit import CannotConvert, PlainViT
from medvlm.model.slice_backbone import SliceBackboneConfig, cut_timm

LIBRARIES = ("timm", "open_clip", "transformers")
_HEADS = ("head.", "fc.", "classifier.")
"""A classifier is not ours; files may have one or not."""
_NOT_ARCHITECTURE = ("_name_or_path", "architectures", "dtype", "transformers_version")
"""Fields of a transformers config that say where and how it was saved."""

Pixels = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of pixels in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which encoder, and from where its weights come.

    Attributes:
        name: with the library before the first colon.
        weights: True for those that the name stands for, False for random ones, or a .safetensors file.
        arguments: of the library's constructor.
        pixels: mean and std instead of the library's.
        shapes_only: make the module on "meta": shapes without memory, and no weights are read.
    """

    name: str
    weights: bool | str = True
    arguments: dict[str, Any]
    pixels: Pixels | None = None
    shapes_only: bool = False

    @property
    def library(self) -> str:
        """One of LIBRARIES."""
        library, colon, rest = self.name.partition(":")
        if not colon or not rest or library not in LIBRARIES:
            raise ValueError(
                f"a pretrained encoder is named LIBRARY:NAME with library one of {', '.join(LIBRARIES)}, got "
                f"{self.name!r}; for example timm:vit_base_patch16_siglip_224"
            )
        return library

    @property
    def identifier(self) -> str:
        """The name without the library."""
        return self.name.partition(":")[2]

    @property
    def reads(self) -> bool:
        """Whether the library reads the weights that the name stands for."""
        return self.weights is True and not self.shapes_only

    def device(self) -> AbstractContextManager[Any]:
        """Where modules are made."""
        return torch.device("meta") if self.shapes_only else nullcontext()

    def fill(self, module: nn.Module) -> None:
        """Read the weights' file, if one was given."""
        if isinstance(self.weights, str) and not self.shapes_only:
            fill_from_file(module, self.weights, self.name)


def read_vit(request: Request) -> PlainViT:
    """The encoder, taken apart.

    Raises:
        CannotConvert: it is no plain vision transformer.
        ValueError: it is unknown, its weights do not fit, or nothing says which pixels it expects.
        ModuleNotFoundError: its library is not installed.
        OSError: its files are not found.
    """
    library = request.library
    if library == "timm":
        module, (mean, std) = _timm(request)
        return read_timm(module, mean=mean, std=std, source=request.name)
    if library == "open_clip":
        module, (mean, std) = _open_clip(request)
        return read_open_clip(module, mean=mean, std=std, source=request.name)
    config = _transformers_config(request)
    if config.model_type not in TOWERS:
        raise CannotConvert(request.name, f"{config.model_type} is none of {', '.join(TOWERS)}")
    with request.device():
        module = _transformers(getattr(transformers, TOWERS[config.model_type]), config, request)
    mean, std = request.pixels or _processor_pixels(request)
    return read_transformers(module, mean=mean, std=std, source=request.name)


def read_slices(request: Request, level: int) -> tuple[SliceBackboneConfig, dict[str, Tensor]]:
    """The config of a SliceBackbone that runs the encoder as it is, and the network's state dict.

    Raises: as ``read_vit``, and ValueError when the network has no feature maps.
    """
    if request.library == "transformers":
        return _transformers_slices(request, level)
    if request.library == "timm":
        module, (mean, std) = _timm(request)
        architecture, arguments = _timm_architecture(request)
    else:
        visual, (mean, std) = _open_clip(request)
        if type(visual).__name__ != "TimmModel":
            raise ValueError(
                f"{request.name}: only open_clip's towers that are timm models run on slices, this is its own "
                f"{type(visual).__name__}; timm has the same networks, for example timm:resnet50_clip.openai"
            )
        module = visual.trunk  # type: ignore[assignment]
        architecture, arguments = str(module.pretrained_cfg["architecture"]), {}  # type: ignore[index]
    maps = _feature_maps(module, request.name)
    if not -len(maps) <= level < len(maps):
        raise ValueError(f"{request.name} has {len(maps)} feature maps, and level is {level}")
    channels, stride = maps[level]
    config = SliceBackboneConfig(
        library="timm",
        architecture=architecture,
        arguments=arguments,
        level=level,
        mean=mean,
        std=std,
        patch_size=(1, stride, stride),
        hidden_size=channels,
        num_hidden_layers=level % len(maps) + 1,
    )
    return config, cut_timm(module, level, request.name).state_dict()


def _feature_maps(module: Any, source: str) -> list[tuple[int, int]]:
    """Channels and stride of each feature map of a timm model."""
    found = getattr(module, "feature_info", None)
    if not found:
        raise ValueError(f"{source}: {type(module).__name__} offers no feature maps; choose another encoder")
    return [(int(row["num_chs"]), int(row["reduction"])) for row in getattr(found, "info", found)]


def _timm(request: Request) -> tuple[nn.Module, Pixels]:
    timm = vision_libraries.timm()
    _timm_architecture(request)
    with request.device():
        try:
            module = timm.create_model(request.identifier, pretrained=request.reads, num_classes=0, **request.arguments)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"{request.name}: timm could not make it with arguments {request.arguments}: {error}"
            ) from error
    request.fill(module)
    expected = module.pretrained_cfg
    return module, request.pixels or (tuple(expected["mean"]), tuple(expected["std"]))


def _timm_architecture(request: Request) -> tuple[str, dict[str, Any]]:
    """timm's name of the architecture and the arguments that make it, without any weights."""
    timm = vision_libraries.timm()
    source, _, place = request.identifier.rpartition(":")
    if source in ("hf-hub", "hf_hub"):
        _, name, arguments = timm.models.load_model_config_from_hf(place)
        return name, {**(arguments or {}), **request.arguments}
    if source == "local-dir":
        if not (Path(place) / "config.json").is_file():
            raise FileNotFoundError(f"{request.name}: {place} holds no config.json of a timm model")
        _, name, arguments = timm.models.load_model_config_from_path(place)
        return name, {**(arguments or {}), **request.arguments}
    name, _, tag = request.identifier.partition(".")
    if not timm.is_model(name):
        raise ValueError(f"timm has no encoder {name!r}{_alike(name, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise ValueError(f"timm has no weights {tag!r} of {name}; it has {', '.join(tags) or 'none'}")
    if request.reads and not tags:
        raise ValueError(
            f"timm has no weights of {name}; give a file (`weights: FILE.safetensors`) or `weights: false`"
        )
    return name, dict(request.arguments)


def _open_clip(request: Request) -> tuple[nn.Module, Pixels]:
    """The image tower; the text tower is never made, because its tokenizer and config may lie elsewhere."""
    open_clip = vision_libraries.open_clip()
    from open_clip import factory
    from open_clip.model import _build_vision_tower

    name, _, tag = request.identifier.partition("@")
    schema, place = factory.parse_model_name(name)
    if schema is None:
        config, pixels, file = _open_clip_builtin(request, open_clip, name, tag)
    else:
        config, pixels, file = _open_clip_place(request, factory, schema, place)
    with request.device():
        visual = _build_vision_tower(
            config["embed_dim"], {**config["vision_cfg"], **request.arguments}, config.get("quick_gelu", False)
        )
    if file is not None:
        state = factory.load_state_dict(file, weights_only=True)
        part = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
        fill(visual, part, request.name, str(file))
    request.fill(visual)
    return visual, request.pixels or pixels


def _open_clip_builtin(
    request: Request, open_clip: Any, name: str, tag: str
) -> tuple[dict[str, Any], Pixels, str | None]:
    config = open_clip.get_model_config(name.replace("/", "-"))
    if config is None:
        raise ValueError(f"open_clip has no model {name!r}{_alike(name, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag and tag not in tags:
        raise ValueError(f"open_clip has no weights {tag!r} of {name}; it has {', '.join(tags) or 'none'}")
    if request.reads and not tag:
        raise ValueError(f"{request.name} needs the tag of its weights: open_clip:{name}@TAG, one of {', '.join(tags)}")
    weights = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    file = open_clip.download_pretrained(weights) if request.reads else None
    if weights.get("quick_gelu", config.get("quick_gelu", False)) != config.get("quick_gelu", False):
        config["quick_gelu"] = weights["quick_gelu"]
    return config, _open_clip_pixels(weights), file


def _open_clip_place(
    request: Request, factory: Any, schema: str, place: str
) -> tuple[dict[str, Any], Pixels, str | None]:
    if schema == "local-dir":
        path = Path(place) / "open_clip_config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{request.name}: {place} holds no open_clip_config.json")
        whole = json.loads(path.read_text(encoding="utf-8"))
        file = factory._find_checkpoint_in_dir(Path(place)) if request.reads else None
        if request.reads and file is None:
            raise FileNotFoundError(f"{request.name}: {place} holds no weights (open_clip_model.safetensors)")
    else:
        whole = factory._get_hf_config(place)
        file = factory.download_pretrained_from_hf(place) if request.reads else None
    if "model_cfg" not in whole:
        raise ValueError(f"{request.name}: open_clip_config.json has no model_cfg")
    return whole["model_cfg"], _open_clip_pixels(whole.get("preprocess_cfg", {})), file


def _open_clip_pixels(preprocessing: dict[str, Any]) -> Pixels:
    from open_clip.transform import PreprocessCfg

    default = PreprocessCfg()
    mean, std = preprocessing.get("mean") or default.mean, preprocessing.get("std") or default.std
    return tuple(mean), tuple(std)


def _transformers_config(request: Request) -> PretrainedConfig:
    config = AutoConfig.from_pretrained(request.identifier)
    vision = getattr(config, "vision_config", None)
    config = config if vision is None else vision
    for name, value in request.arguments.items():
        if not hasattr(config, name):
            raise ValueError(f"{request.name}: a {config.model_type} config has no field {name!r}")
        setattr(config, name, value)
    return config


def _transformers(kind: Any, config: PretrainedConfig, request: Request) -> Any:
    if not request.reads:
        module = kind._from_config(config, dtype=torch.float32)
        request.fill(module)
        return module
    module, report = kind.from_pretrained(
        request.identifier, config=config, dtype=torch.float32, output_loading_info=True
    )
    wrong = {key: sorted(map(str, report[key])) for key in ("missing_keys", "mismatched_keys") if report.get(key)}
    wrong = {key: [name for name in names if ".head." not in f".{name}"] for key, names in wrong.items()}
    if any(wrong.values()):
        raise ValueError(f"the weights of {request.name} do not fit its config: {wrong}; the checkpoint is damaged")
    return module


def _transformers_slices(request: Request, level: int) -> tuple[SliceBackboneConfig, dict[str, Tensor]]:
    config = _transformers_config(request)
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ValueError(f"{request.name}: transformers has no feature maps (AutoBackbone) of a {config.model_type}")
    kind: Any = MODEL_FOR_BACKBONE_MAPPING[type(config)]
    stages = config.stage_names[1:]  # without the stem
    if not -len(stages) <= level < len(stages):
        raise ValueError(f"{request.name} has {len(stages)} feature maps, and level is {level}")
    config.out_features = [stages[level]]
    with request.device():
        module = _transformers(kind, config, request)
    with torch.device("meta"):  # what the stride is, a transformers config does not say
        shape = kind._from_config(config)(torch.zeros(1, 3, 256, 256)).feature_maps[-1].shape
    mean, std = request.pixels or _processor_pixels(request)
    found = SliceBackboneConfig(
        library="transformers",
        architecture=config.model_type,
        arguments={key: value for key, value in config.to_diff_dict().items() if key not in _NOT_ARCHITECTURE},
        level=level,
        mean=mean,
        std=std,
        patch_size=(1, 256 // shape[2], 256 // shape[2]),
        hidden_size=shape[1],
        num_hidden_layers=level % len(stages) + 1,
    )
    return found, module.state_dict()


def _processor_pixels(request: Request) -> Pixels:
    """Mean and std from the checkpoint's preprocessor_config.json."""
    path = cached_file(request.identifier, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        raise ValueError(
            f"{request.name} has no preprocessor_config.json that says which pixels it expects; set `mean` and `std` "
            "(3 numbers each, of pixels in [0, 1])"
        )
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    rescale = found.get("rescale_factor", 1 / 255)
    if not found.get("do_rescale", True) or abs(rescale * 255 - 1) > 1e-3 or "image_mean" not in found:
        raise ValueError(
            f"{request.name}: its preprocessor does not scale 8-bit pixels to [0, 1] before mean and std; set `mean` "
            "and `std` (3 numbers each, of pixels in [0, 1])"
        )
    return tuple(found["image_mean"]), tuple(found["image_std"])


def fill_from_file(module: nn.Module, file: str, source: str) -> None:
    """Read a .safetensors file into a library's module.

    Raises:
        ValueError: another kind of file (a pickle may run code), or tensors that do not fit.
        FileNotFoundError: there is none.
    """
    if not file.endswith(".safetensors"):
        raise ValueError(f"{source}: weights are read from .safetensors files, got {file}; convert it first")
    if not Path(file).is_file():
        raise FileNotFoundError(f"{source}: there is no file {file}")
    fill(module, safetensors.torch.load_file(file), source, file)


def fill(module: nn.Module, state: dict[str, Tensor], source: str, file: str) -> None:
    """Load a state dict that must fit, but for a classifier.

    Raises:
        ValueError: names the first tensors that are missing, unexpected, or of another shape.
    """
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(_HEADS)}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(_HEADS)}
    shapes = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    wrong = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in wrong.items() if names)
        raise ValueError(
            f"the weights in {file} do not fit {source} ({found}); name the encoder that they were trained as, with "
            "its arguments (img_size, for example)"
        )
    module.load_state_dict(state, strict=False)


def _alike(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
