"""MedVLMConfig = VisionConfig + ProjectorConfig + the config of any transformers causal language model."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

PATCH_CHANNELS = 3
"""Grey visuals fill the three channels alike; a CT fills them with three HU windows."""


class VisionConfig(PretrainedConfig):
    """The packed encoder of 2D, 3D and video patches.

    Args:
        patch_size: voxels of one patch along (z or time, y, x).
        rotary_wavelengths_mm: shortest and longest wavelength of the rotary positions.
        unknown_voxel_mm: millimetres that one voxel counts for when the file does not state its spacing, so that
            positions fall back to voxel indices.
        second_in_mm: how far apart two frames one second apart lie on axis 0 of a video.
    """

    model_type = "medvlm_vision"
    base_config_key = "vision_config"

    def __init__(
        self,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        patch_size: tuple[int, int, int] | list[int] = (2, 16, 16),
        rotary_wavelengths_mm: tuple[float, float] | list[float] = (20.0, 2000.0),
        unknown_voxel_mm: float = 1.0,
        second_in_mm: float = 100.0,
        layer_norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.patch_size = list(patch_size)
        self.rotary_wavelengths_mm = list(rotary_wavelengths_mm)
        self.unknown_voxel_mm = unknown_voxel_mm
        self.second_in_mm = second_in_mm
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
        if hidden_size % num_attention_heads or (hidden_size // num_attention_heads) % 2:
            raise ValueError(
                f"vision hidden_size {hidden_size} must be an even multiple of num_attention_heads "
                f"{num_attention_heads}; change one of them"
            )
        if hidden_size // num_attention_heads < 6:
            raise ValueError(
                f"a vision head needs at least 6 dimensions for three rotary axes, got "
                f"{hidden_size // num_attention_heads}; use fewer heads"
            )

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        t, h, w = self.patch_size
        return PATCH_CHANNELS * t * h * w


class ProjectorConfig(PretrainedConfig):
    """The MLP between encoder and decoder; ``merge`` neighbours along (z, y, x) become one visual token."""

    model_type = "medvlm_projector"
    base_config_key = "projector_config"

    def __init__(
        self,
        hidden_size: int = 2048,
        merge: tuple[int, int, int] | list[int] = (1, 2, 2),
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.merge = list(merge)
        self.initializer_range = initializer_range
        super().__init__(**kwargs)


class MedVLMConfig(PretrainedConfig):
    """Everything needed to build MedVLMForConditionalGeneration without weights.

    Args:
        vision_config: VisionConfig or its dict.
        projector_config: ProjectorConfig or its dict.
        text_config: config of any ``AutoModelForCausalLM`` model, or its dict with ``model_type``.
        visual_token_id: the placeholder that visual tokens replace.
    """

    model_type = "medvlm"
    sub_configs = {  # noqa: RUF012 (transformers reads it as a class attribute)
        "vision_config": VisionConfig,
        "projector_config": ProjectorConfig,
        "text_config": AutoConfig,
    }

    def __init__(
        self,
        vision_config: VisionConfig | dict[str, Any] | None = None,
        projector_config: ProjectorConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        visual_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(vision_config, dict) or vision_config is None:
            vision_config = VisionConfig(**_without_model_type(vision_config))
        if isinstance(projector_config, dict) or projector_config is None:
            projector_config = ProjectorConfig(**_without_model_type(projector_config))
        if text_config is None:
            text_config = {"model_type": "qwen3"}
        if isinstance(text_config, dict):
            if "model_type" not in text_config:
                raise ValueError("text_config needs model_type, for example 'qwen3' or 'llama'")
            text_config = AutoConfig.for_model(**text_config)
        self.vision_config = vision_config
        self.projector_config = projector_config
        self.text_config = text_config
        self.visual_token_id = visual_token_id
        kwargs.setdefault("tie_word_embeddings", getattr(text_config, "tie_word_embeddings", False))
        super().__init__(**kwargs)


def _without_model_type(values: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (values or {}).items() if key != "model_type"}
