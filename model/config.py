"""MedVLMConfig = VisionConfig + ProjectorConfig + the config of any transformers causal language model."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.activations import ACT2FN

from medvlm.model.grid import Size3, count_tokens, queries_of
from medvlm.model.visual import Kind

PATCH_CHANNELS = 3
"""Grey visuals fill the three channels alike; a CT fills them with three HU windows."""

SLICES = "medvlm_slices"
"""``model_type`` of an encoder that runs slice by slice (SliceBackboneConfig in slice_backbone.py)."""


class VisionConfig(PretrainedConfig):
    """The packed encoder of 2D, 3D and video patches.

    The defaults are our own encoder; the other settings let the weights of a 2D vision transformer run in it unchanged
    (see docs/encoders.md). A "slab" is the patches of one visual that share one index along z.

    Args:
        patch_size: voxels of one patch along (z or time, y, x).
        rotary: "millimetres" (positions along z, y and x in mm), "plane" (the rotary positions over y and x that a 2D
            encoder was trained with; needs ``plane_rotary``) or "none".
        rotary_wavelengths_mm: shortest and longest wavelength of the rotary positions in millimetres.
        plane_rotary: {"coordinates", "base"} and, for "index", optionally {"offset", "reference", "first_axis"}. The
            head's pairs are cut in two halves of K, and pair i of each has frequency ``base ** (-i / K)``.
            coordinates "unit": patch centres in [-1, 1] of the visual's own grid, times 2 pi (DINOv3: Simeoni et al.
            2025, arXiv:2508.10104); "index": patch index plus ``offset`` (default 0), stretched to ``reference``
            [rows, cols] where given (EVA-02: Fang et al. 2023, arXiv:2303.11331, as in timm's RotaryEmbeddingCat).
            ``first_axis`` ("y", default, or "x") says which axis turns the first half of the pairs.
        place_features: whether ``place``, a linear map of where a patch lies in the field of view, is added.
        table_size: [rows, cols] of a learned position table, interpolated to each visual's (rows, cols) and the same
            for every slab; None for no table.
        table_interpolation: "bicubic" or "bilinear"; table_antialias: as in torch's interpolate.
        prefix_tokens: class and register tokens; each slab has its own copy, which is dropped from the output.
        embedding_norm: LayerNorm after the embedding and its positions, prefix included (CLIP).
        final_norm: LayerNorm at the end.
        attention_norm: LayerNorm before the output map of the attention (EVA).
        layer_scale: a learned scale per channel of both branches of a layer (DINOv2).
        mlp: "plain", or "gated": down(act(gate(x)) * up(x)) (SwiGLU: Shazeer 2020, arXiv:2002.05202).
        mlp_norm: LayerNorm before ``down`` (EVA-02).
        hidden_act: a name in transformers' ACT2FN.
        depth_window: a token sees the slabs of its own visual that lie at most this many patches away along z; None for
            all of them, 0 for its own alone (what a 2D encoder does). Time of a video counts as z.
        unknown_voxel_mm: millimetres that one voxel counts for when the file does not state its spacing, so that
            positions fall back to voxel indices.
        second_in_mm: how far apart two frames one second apart lie on axis 0 of a video.

    Raises:
        ValueError: settings that do not fit each other, with the mend.
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
        rotary: str = "millimetres",
        rotary_wavelengths_mm: tuple[float, float] | list[float] = (20.0, 2000.0),
        plane_rotary: dict[str, Any] | None = None,
        place_features: bool = True,
        table_size: tuple[int, int] | list[int] | None = None,
        table_interpolation: str = "bicubic",
        table_antialias: bool = True,
        prefix_tokens: int = 0,
        embedding_norm: bool = False,
        final_norm: bool = True,
        attention_norm: bool = False,
        layer_scale: bool = False,
        mlp: str = "plain",
        mlp_norm: bool = False,
        hidden_act: str = "gelu_pytorch_tanh",
        depth_window: int | None = None,
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
        self.rotary = rotary
        self.rotary_wavelengths_mm = list(rotary_wavelengths_mm)
        self.plane_rotary = plane_rotary
        self.place_features = place_features
        self.table_size = None if table_size is None else list(table_size)
        self.table_interpolation = table_interpolation
        self.table_antialias = table_antialias
        self.prefix_tokens = prefix_tokens
        self.embedding_norm = embedding_norm
        self.final_norm = final_norm
        self.attention_norm = attention_norm
        self.layer_scale = layer_scale
        self.mlp = mlp
        self.mlp_norm = mlp_norm
        self.hidden_act = hidden_act
        self.depth_window = depth_window
        self.unknown_voxel_mm = unknown_voxel_mm
        self.second_in_mm = second_in_mm
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
        self._check_heads()
        self._check_choices()
        self._check_plane_rotary()

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        t, h, w = self.patch_size
        return PATCH_CHANNELS * t * h * w

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def _check_heads(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"vision hidden_size {self.hidden_size} must be a multiple of num_attention_heads "
                f"{self.num_attention_heads}; change one of them"
            )
        if self.rotary == "millimetres" and (self.head_dim % 2 or self.head_dim < 6):
            raise ValueError(
                f"a vision head needs an even number of at least 6 dimensions for three rotary axes, got "
                f"{self.head_dim} (hidden_size {self.hidden_size} / num_attention_heads {self.num_attention_heads}); "
                "change one of the two, or set rotary: none"
            )
        if self.rotary == "plane" and self.head_dim % 4:
            raise ValueError(
                f"a vision head needs a multiple of 4 dimensions for rotary: plane, got {self.head_dim}; change "
                "hidden_size or num_attention_heads"
            )

    def _check_choices(self) -> None:
        for name, choices in (
            ("rotary", ("millimetres", "plane", "none")),
            ("mlp", ("plain", "gated")),
            ("table_interpolation", ("bicubic", "bilinear")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"vision {name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("prefix_tokens", "depth_window"):
            value = getattr(self, name)
            if value is None and name == "depth_window":
                continue
            if type(value) is not int or value < 0:
                also = ", or null for all slabs" if name == "depth_window" else ""
                raise ValueError(f"vision {name} must be a whole number of at least 0{also}, got {value!r}")
        if len(self.patch_size) != 3 or any(type(size) is not int or size < 1 for size in self.patch_size):
            raise ValueError(f"vision patch_size must be three whole numbers (z or time, y, x), got {self.patch_size}")
        table = self.table_size
        if table is not None and (len(table) != 2 or any(type(size) is not int or size < 1 for size in table)):
            raise ValueError(f"vision table_size must be [rows, cols], got {table}; null means no position table")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"vision hidden_act {self.hidden_act!r} is unknown; choose one of {', '.join(ACT2FN)}")

    def _check_plane_rotary(self) -> None:
        plane = self.plane_rotary
        if (self.rotary == "plane") != (plane is not None):
            raise ValueError(
                f"vision rotary: plane and plane_rotary need each other, got rotary {self.rotary!r} and plane_rotary "
                f"{plane}; set both, for example plane_rotary: {{coordinates: unit, base: 100.0}}, or neither"
            )
        if plane is None:
            return
        allowed = {"coordinates", "base", "offset", "reference", "first_axis"}
        if plane.get("coordinates") == "unit":
            allowed -= {"offset", "reference"}
        if set(plane) - allowed or not {"coordinates", "base"} <= set(plane):
            raise ValueError(
                f"vision plane_rotary needs coordinates and base and may have {sorted(allowed)} with coordinates "
                f"{plane.get('coordinates')!r}, got {sorted(plane)}"
            )
        if plane["coordinates"] not in ("unit", "index") or plane.get("first_axis", "y") not in ("y", "x"):
            raise ValueError(f"vision plane_rotary: coordinates is unit or index, first_axis is y or x, got {plane}")
        if not plane["base"] > 0:
            raise ValueError(f"vision plane_rotary: base must be above 0, got {plane['base']}")
        reference = plane.get("reference")
        if reference is not None and len(reference) != 2:
            raise ValueError(f"vision plane_rotary: reference must be [rows, cols], got {reference}")


_PROJECTOR_SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {"merge": [1, 2, 2]},
    "soft_moe": {"merge": [1, 2, 2], "num_experts": 4, "slots_per_expert": 16},
    "pooling": {"pool": [2, 2, 2]},
    "perceiver": {"queries": 64, "num_hidden_layers": 6, "num_attention_heads": 8},
    "attention_pooling": {"queries": 256, "num_attention_heads": 8},
}
"""Kind of projector -> the settings that it has, besides ``hidden_size``, and their defaults."""


class ProjectorConfig(PretrainedConfig):
    """What stands between encoder and decoder, and how many visual tokens it makes of a grid of patches.

    Args:
        kind: "mlp" (merged neighbours; LLaVA-1.5, Qwen2-VL), "soft_moe" (the same with a soft mixture of experts),
            "pooling" (averaged blocks; M3D), "perceiver" (Flamingo) or "attention_pooling" (CoCa, CT-CHAT).
            mlp, soft_moe and pooling make more tokens of a larger grid; the other two always make ``queries``.
        hidden_size: width of the hidden layer of its MLPs.
        merge: neighbours along (z, y, x) that are laid side by side and become one visual token. For mlp and soft_moe
            (default 1, 2, 2); [1, 1, 1] for the others.
        pool: patches along (z, y, x) that are averaged into one visual token; only for pooling (default 2, 2, 2).
        queries: visual tokens of each visual: a number, or one for each of image, volume and video; only for perceiver
            (default 64) and attention_pooling (default 256).
        num_hidden_layers: cross-attention layers; only for perceiver (default 6).
        num_attention_heads: only for perceiver and attention_pooling (default 8).
        num_experts, slots_per_expert: only for soft_moe (default 4 and 16).

    Raises:
        ValueError: an unknown kind, or a setting that the kind does not have, with the mend.
    """

    model_type = "medvlm_projector"
    base_config_key = "projector_config"

    def __init__(
        self,
        kind: str = "mlp",
        hidden_size: int = 2048,
        merge: tuple[int, int, int] | list[int] | None = None,
        pool: tuple[int, int, int] | list[int] | None = None,
        queries: int | dict[str, int] | None = None,
        num_hidden_layers: int | None = None,
        num_attention_heads: int | None = None,
        num_experts: int | None = None,
        slots_per_expert: int | None = None,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        if kind not in _PROJECTOR_SETTINGS:
            raise ValueError(f"projector kind is {kind!r}; use one of {', '.join(_PROJECTOR_SETTINGS)}")
        given: dict[str, Any] = {
            "merge": merge, "pool": pool, "queries": queries, "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads, "num_experts": num_experts,
            "slots_per_expert": slots_per_expert,
        }  # fmt: skip
        if "merge" not in _PROJECTOR_SETTINGS[kind] and merge is not None and list(merge) == [1, 1, 1]:
            given["merge"] = None
        values = _settings_of(kind, given)
        self.kind = kind
        self.hidden_size = hidden_size
        self.merge: list[int] = values["merge"] or [1, 1, 1]
        self.pool: list[int] | None = values["pool"]
        self.queries: dict[str, int] | None = values["queries"]
        self.num_hidden_layers: int | None = values["num_hidden_layers"]
        self.num_attention_heads: int | None = values["num_attention_heads"]
        self.num_experts: int | None = values["num_experts"]
        self.slots_per_expert: int | None = values["slots_per_expert"]
        self.initializer_range = initializer_range
        super().__init__(**kwargs)

    def token_rule(self) -> dict[str, Any] | None:
        """What a processor must know, besides ``merge``, to count visual tokens: its argument ``projector``."""
        rule = {"pool": self.pool, "queries": self.queries}
        return {name: value for name, value in rule.items() if value is not None} or None

    def tokens(self, grid: Size3, kind: Kind) -> int:
        """Visual tokens that a visual of ``kind`` with ``grid`` patches along (z or time, y, x) becomes."""
        return count_tokens(grid, kind, merge=self.merge, **(self.token_rule() or {}))


def _settings_of(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Every setting checked and with its default, lists and dicts JSON-ready; None where ``kind`` has no such thing."""
    defaults = _PROJECTOR_SETTINGS[kind]
    values: dict[str, Any] = dict.fromkeys(given)
    for name, value in given.items():
        if name not in defaults:
            if value is not None:
                having = [other for other, settings in _PROJECTOR_SETTINGS.items() if name in settings]
                raise ValueError(
                    f"a projector of kind {kind!r} has no {name}, but {name} is {value}; remove {name}, or set kind to "
                    f"{' or '.join(having)}"
                )
            continue
        value = defaults[name] if value is None else value
        if name == "queries":
            values[name] = queries_of(value)
        elif name in ("merge", "pool"):
            if len(value) != 3 or not all(isinstance(v, int) and v > 0 for v in value):
                raise ValueError(f"projector {name} is {value}; use three whole numbers above 0, for z, y and x")
            values[name] = list(value)
        else:
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"projector {name} is {value!r}; use a whole number above 0")
            values[name] = value
    return values


class MedVLMConfig(PretrainedConfig):
    """Everything needed to build MedVLMForConditionalGeneration without weights.

    Args:
        vision_config: VisionConfig, SliceBackboneConfig, or the dict of one of them: its ``model_type`` says which
            ("medvlm_vision", the default, or "medvlm_slices").
        projector_config: ProjectorConfig or its dict.
        text_config: config of any ``AutoModelForCausalLM`` model, or its dict with ``model_type``.
        visual_token_id: the placeholder that visual tokens replace.
        heads: name of a head beside the language model (heads.py) -> its arguments; most models have none.
    """

    model_type = "medvlm"
    sub_configs = {  # noqa: RUF012 (transformers reads it as a class attribute)
        "vision_config": VisionConfig,
        "projector_config": ProjectorConfig,
        "text_config": AutoConfig,
    }

    def __init__(
        self,
        vision_config: PretrainedConfig | dict[str, Any] | None = None,
        projector_config: ProjectorConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        visual_token_id: int | None = None,
        heads: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(vision_config, dict) or vision_config is None:
            vision_config = own_vision_config(vision_config or {})
        if isinstance(projector_config, dict) or projector_config is None:
            projector_config = own_projector_config(projector_config or {})
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
        self.heads = heads or {}
        kwargs.setdefault("tie_word_embeddings", getattr(text_config, "tie_word_embeddings", False))
        super().__init__(**kwargs)


def check_vision_settings(values: dict[str, Any]) -> None:
    """Refuse what VisionConfig does not know: transformers would take a misspelt setting in silence.

    For settings written by hand; the config.json of a checkpoint also holds fields of transformers' own.

    Raises:
        ValueError: names the settings, and those that there are.
    """
    _refuse_unknown(values, VisionConfig, "model.vision")


def own_projector_config(values: dict[str, Any]) -> ProjectorConfig:
    """ProjectorConfig from its fields; those of a checkpoint say their ``model_type``, those written by hand do not.

    Raises:
        ValueError: a setting that there is not, or that the kind does not have.
    """
    if "model_type" not in values:
        _refuse_unknown(values, ProjectorConfig, "model.projector")
    return ProjectorConfig(**_without_model_type(values))


def _refuse_unknown(values: dict[str, Any], config: type[PretrainedConfig], where: str) -> None:
    known = [name for name in inspect.signature(config.__init__).parameters if name not in ("self", "kwargs")]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where} has no setting {', '.join(unknown)}; it has {', '.join(known)}")


def own_vision_config(values: dict[str, Any]) -> PretrainedConfig:
    """VisionConfig or SliceBackboneConfig from its fields; ``model_type`` says which, VisionConfig where it is missing.

    Raises:
        ValueError: another ``model_type``, or a setting that there is not.
    """
    if "model_type" not in values:
        check_vision_settings(values)
        return VisionConfig(**values)
    if values["model_type"] == VisionConfig.model_type:
        return VisionConfig(**_without_model_type(values))
    if values["model_type"] == SLICES:
        # Imported here because slice_backbone.py builds on this file.
        from medvlm.model.slice_backbone import SliceBackboneConfig

        return SliceBackboneConfig(**_without_model_type(values))
    raise ValueError(
        f"vision_config: model_type {values['model_type']!r} is unknown; choose {VisionConfig.model_type} or {SLICES}"
    )


def _without_model_type(values: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (values or {}).items() if key != "model_type"}
