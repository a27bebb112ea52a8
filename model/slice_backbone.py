"""SliceBackbone: an image encoder that is no plain vision transformer (ConvNeXt, ResNet, Swin), run on every slice.

The patches are put together to slices again, every slice goes through the library's own network, and each patch gets
the feature of the network's cell that covers it. Nothing crosses slices or visuals here: depth is left to the projector
and the decoder.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig, PretrainedConfig, PreTrainedModel

from medvlm.model import vision_libraries
from medvlm.model.config import PATCH_CHANNELS, SLICES
from medvlm.model.patches import patch_coordinates


class SliceBackboneConfig(PretrainedConfig):
    """What rebuilds the network without its library's weights.

    Args:
        library: "timm" or "transformers".
        architecture: timm's name of it, or transformers' ``model_type``.
        arguments: of ``timm.create_model``, or the fields of the transformers config.
        level: which of the network's feature maps is read; -1 is the last.
        mean, std: (3,) per channel, of pixels in [0, 1], that the network expects.
        patch_size: (1, s, s) where s is the stride of that map.
        hidden_size: its channels.
        num_hidden_layers: stages that are run; only estimates of memory read it.

    Raises:
        ValueError: another library, or a patch that is not one slice deep and square.
    """

    model_type = SLICES
    base_config_key = "vision_config"

    def __init__(
        self,
        library: str = "timm",
        architecture: str = "resnet18",
        arguments: dict[str, Any] | None = None,
        level: int = -1,
        mean: tuple[float, ...] | list[float] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] | list[float] = (0.229, 0.224, 0.225),
        patch_size: tuple[int, int, int] | list[int] = (1, 32, 32),
        hidden_size: int = 512,
        num_hidden_layers: int = 4,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.library = library
        self.architecture = architecture
        # As JSON will give them back.
        self.arguments: dict[str, Any] = {
            k: list(v) if isinstance(v, tuple) else v for k, v in (arguments or {}).items()
        }
        self.level = level
        self.mean = list(mean)
        self.std = list(std)
        self.patch_size = list(patch_size)
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
        if library not in ("timm", "transformers"):
            raise ValueError(f"vision library must be timm or transformers, got {library!r}")
        depth, rows, cols = self.patch_size
        if depth != 1 or rows != cols:
            raise ValueError(f"slices are encoded one by one: patch_size must be [1, s, s], got {self.patch_size}")

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return PATCH_CHANNELS * self.patch_size[0] * self.patch_size[1] * self.patch_size[2]


class SliceBackbone(PreTrainedModel):
    """Patches (P, patch_dim) of V visuals -> features (P, hidden), in the order of the patches.

    BatchNorm always uses its stored statistics, in training too: statistics of a batch would let the visuals of a pack
    see each other, and a pack often holds the slices of one patient.
    """

    config: SliceBackboneConfig
    config_class = SliceBackboneConfig
    main_input_name = "patches"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    supports_gradient_checkpointing = True

    def __init__(self, config: SliceBackboneConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config)
        self.gradient_checkpointing = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The library has initialised its parameters; a module made on "meta" must compute its buffers again."""
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()  # type: ignore[operator]

    def train(self, mode: bool = True) -> SliceBackbone:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, patches: Tensor, grids: Tensor, spacing: Tensor, axis_kinds: Tensor, merge: list[int]) -> Tensor:
        """Encode every slice on its own.

        Args:
            patches: (P, patch_dim), in the order of ``patches.cut``.
            grids: (V, 3); spacing and axis_kinds are not looked at.
            merge: of the projector, which decides the order of the patches.

        Returns:
            (P, hidden).

        Raises:
            ValueError: the network has no cell for some patch of a slice.
        """
        rows = [tuple(row) for row in grids.tolist()]
        orders = [_raster_order(row, tuple(merge)).to(patches.device) for row in rows]
        pieces = patches.split([len(order) for order in orders])
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (_, height, width) in enumerate(rows):
            groups.setdefault((height, width), []).append(index)
        features: dict[int, Tensor] = {}
        for (height, width), members in groups.items():
            slices = torch.cat([self._slices(pieces[i], orders[i], rows[i]) for i in members])
            encoded = self._encode(slices, height, width)
            for i, cells in zip(members, encoded.split([len(orders[i]) for i in members]), strict=True):
                features[i] = cells[orders[i].argsort()]
        return torch.cat([features[i] for i in range(len(rows))])

    def _slices(self, patches: Tensor, order: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """(depth, 3, H, W), normalised, from the patches of one visual."""
        depth, height, width = grid
        side = self.config.patch_size[1]
        blocks = patches[order].view(depth, height, width, PATCH_CHANNELS, side, side)
        pixels = blocks.permute(0, 3, 1, 4, 2, 5).reshape(depth, PATCH_CHANNELS, height * side, width * side)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.config.mean, self.config.std))
        return (pixels * 0.5 + 0.5 - mean) / std

    def _encode(self, slices: Tensor, height: int, width: int) -> Tensor:
        """(n, 3, H, W) -> (n * height * width, hidden)."""
        slices = slices.to(next(self.backbone.parameters()).dtype)
        if self.gradient_checkpointing and self.training:
            cells = torch.utils.checkpoint.checkpoint(self._feature_map, slices, use_reentrant=False)
        else:
            cells = self._feature_map(slices)
        if tuple(cells.shape[1:]) != (self.config.hidden_size, height, width):
            raise ValueError(
                f"{self.config.architecture} makes a {tuple(cells.shape[1:])} map of a slice of "
                f"{slices.shape[2]}x{slices.shape[3]}, expected {(self.config.hidden_size, height, width)}; larger "
                "slices, another `level` or a fully convolutional network fit"
            )
        return cells.flatten(2).transpose(1, 2).flatten(0, 1)

    def _feature_map(self, slices: Tensor) -> Tensor:
        if self.config.library == "timm":
            maps = self.backbone.forward_intermediates(  # type: ignore[operator]
                slices, indices=[self.config.level], intermediates_only=True, output_fmt="NCHW"
            )
            return maps[-1]
        return self.backbone(slices).feature_maps[-1]


def build_backbone(config: SliceBackboneConfig) -> nn.Module:
    """The library's network, random, without what stands behind the level that is read.

    What nobody reads must go: a parameter without a gradient stops ZeRO and DDP.

    Raises:
        ModuleNotFoundError: the library is not installed.
        ValueError: the network has no feature maps.
    """
    if config.library == "timm":
        module = vision_libraries.timm().create_model(config.architecture, num_classes=0, **config.arguments)
        return cut_timm(module, config.level, config.architecture)
    return AutoBackbone.from_config(AutoConfig.for_model(**config.arguments))


def cut_timm(module: nn.Module, level: int, source: str) -> nn.Module:
    """Drop what stands behind feature map ``level`` of a timm model.

    Raises:
        ValueError: it has no feature maps.
    """
    if not hasattr(module, "prune_intermediate_layers"):
        raise ValueError(
            f"{source}: {type(module).__name__} offers no feature maps (timm's forward_intermediates); choose another "
            "encoder"
        )
    module.prune_intermediate_layers([level], prune_norm=True, prune_head=True)  # type: ignore[operator]
    return module


@lru_cache(maxsize=512)
def _raster_order(grid: tuple[int, int, int], merge: tuple[int, int, int]) -> Tensor:
    """(P,) where each cell of the raster (z, y, x) lies among the patches."""
    place = np.ravel_multi_index(tuple(patch_coordinates(grid, merge).T), grid)
    return torch.from_numpy(np.argsort(place))
