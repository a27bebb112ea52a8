"""MedVLMForConditionalGeneration: encode, project, write into the placeholders, decode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from medvlm.model.batch import IGNORED, IMAGE, PackedBatch, shown_by_row, write_features
from medvlm.model.config import MedVLMConfig
from medvlm.model.heads import build_heads
from medvlm.model.language_head import LanguageHead, decoder_of, head_of
from medvlm.model.packed_attention import NAME as PACKED
from medvlm.model.projector import build_projector, check_kept
from medvlm.model.vision import build_encoder

COMPONENTS = ("vision", "projector", "text")
"""The three parts of every model; a parameter's name begins with one of them, or with "heads"."""

_VISUAL_INPUTS = ("patches", "grids", "spacing", "axis_kinds", "kept", "visual_tokens", "placements", "features")

Made = TypeVar("Made")


class MedVLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A packed vision encoder, a projector and any transformers causal language model."""

    config_class = MedVLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ["image", "video", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _no_split_modules = ["EncoderLayer"]  # noqa: RUF012

    def __init__(self, config: MedVLMConfig) -> None:
        super().__init__(config)
        self.vision = build_encoder(config.vision_config)
        self.projector = build_projector(
            config.projector_config, config.vision_config.hidden_size, config.text_config.hidden_size
        )
        self.text = AutoModelForCausalLM.from_config(config.text_config)
        if self.text.config._attn_implementation == "sdpa" and self.text._supports_attention_backend:
            self.text.set_attn_implementation(PACKED)
        if config.heads:
            self.heads = build_heads(config)
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.text.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        self.text.set_input_embeddings(value)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.text.get_output_embeddings()

    pads_because = ""
    """Why samples of a pack cannot lie end to end; empty, because they can."""

    encode_covers = frozenset({"vision"})
    """The components that ``encode_pack`` runs."""

    def component_of(self, name: str) -> str:
        """vision, projector, text or heads: the part that a parameter or module of this model belongs to."""
        return name.split(".")[0]

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Component -> (hidden size, layers), for the estimate of memory."""
        vision, text = self.config.vision_config, self.config.text_config
        return {
            "vision": (vision.hidden_size, vision.num_hidden_layers),
            "text": (text.hidden_size, text.num_hidden_layers),
        }

    @property
    def merge(self) -> list[int]:
        """Patches along (z, y, x) that become one visual token."""
        return self.config.projector_config.merge

    def visual_features(
        self,
        patches: Tensor,
        grids: Tensor,
        spacing: Tensor,
        axis_kinds: Tensor,
        kept: Tensor,
        visual_tokens: Tensor,
        placements: Tensor,
        features: Tensor | None = None,
    ) -> Tensor:
        """Visual tokens (N, text_hidden) in the order of the placeholders; each visual is encoded once.

        Args:
            features: (P, vision_hidden) of ``encode``, when it has run before.
        """
        check_kept(self.config.projector_config, grids, axis_kinds, kept)
        encoded = self.encode(patches, grids, spacing, axis_kinds) if features is None else features
        projected = self.projector(encoded, grids, kept, axis_kinds)
        counts = visual_tokens.tolist()
        order = placements.tolist()
        if order == list(range(len(counts))):
            return projected
        pieces = projected.split(counts)
        return torch.cat([pieces[index] for index in order])

    def encode(self, patches: Tensor, grids: Tensor, spacing: Tensor, axis_kinds: Tensor) -> Tensor:
        """What the encoder makes of patches (P, patch_dim): (P, vision_hidden), before the projector."""
        vision = self.config.vision_config
        if patches.shape[1] != vision.patch_dim:
            raise ValueError(
                f"a patch holds {patches.shape[1]} numbers, but those of the encoder hold {vision.patch_dim} "
                f"(patch_size {vision.patch_size}); use the processor that was saved with this model"
            )
        return self.vision(patches, grids, spacing, axis_kinds, self.merge)

    def encode_pack(self, batch: PackedBatch) -> Tensor:
        """``features`` of ``batch``, for passes that share them.

        Of a pack of text those of the blank visual, so that all ranks run the same parts in the same order.
        """
        if len(batch.grids) == 0:
            return self.encode(*self._dummy_visual()[:4])
        return self.encode(batch.patches, batch.grids, batch.spacing, batch.axis_kinds)

    def _dummy_visual(self) -> tuple[Tensor, ...]:
        """A blank visual of the smallest grid.

        A rank whose pack holds text only must still run every trainable part, or the collectives of ZeRO-2/3 of
        its neighbours wait for ever (seen with two gloo processes; DeepSpeed issue 7170).
        """
        device = self.device
        grid = torch.tensor([self.merge], device=device)
        tokens = self.config.projector_config.tokens(tuple(self.merge), "image")
        return (
            torch.zeros(math.prod(self.merge), self.config.vision_config.patch_dim, device=device),
            grid,
            torch.full((1, 3), float("nan"), device=device),
            torch.full((1,), IMAGE, device=device),
            torch.ones(tokens, dtype=torch.bool, device=device),
            torch.full((1,), tokens, device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
        )

    def _embed(self, input_ids: Tensor, visual_inputs: tuple[Tensor | None, ...]) -> Tensor:
        """Token embeddings (B, L, hidden) with the visual tokens in the place of the placeholders."""
        embeds = self.get_input_embeddings()(input_ids)
        patches, grids = visual_inputs[0], visual_inputs[1]
        if patches is None or grids is None or len(grids) == 0:
            if self.training:
                blank = self.visual_features(*self._dummy_visual(), visual_inputs[-1])  # type: ignore[arg-type, call-arg]
                return embeds + 0.0 * blank.sum().to(embeds.dtype)
            return embeds
        features = self.visual_features(*visual_inputs)  # type: ignore[arg-type]
        return write_features(embeds, input_ids == self.config.visual_token_id, features)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        patches: Tensor | None = None,
        grids: Tensor | None = None,
        spacing: Tensor | None = None,
        axis_kinds: Tensor | None = None,
        kept: Tensor | None = None,
        visual_tokens: Tensor | None = None,
        placements: Tensor | None = None,
        features: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        use_cache: bool | None = None,
        run: Callable[[MedVLMForConditionalGeneration], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Predict the next token.

        Either a padded batch (B, L) with ``attention_mask``, or one pack (1, T) with restarting ``position_ids``,
        ``cu_seqlens`` and no mask: transformers then keeps attention inside each sample.

        Args:
            patches, grids, spacing, axis_kinds, kept, visual_tokens, placements, features: as in PackedBatch.
            run: called with this model instead of all the above; its result is returned. An engine wraps ``forward``
                and no other method: whatever an objective computes with several parts of the model goes through here.
            labels: (B, L) unshifted, IGNORED where there is no loss; the loss is the mean over the others.
            logits_to_keep: as in transformers: the last k positions, or a tensor of positions.
        """
        if run is not None:
            return run(self)
        visual_inputs = (patches, grids, spacing, axis_kinds, kept, visual_tokens, placements, features)
        inputs = self._decoder_inputs(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, visual_inputs, cu_seqlens
        )
        if cu_seqlens is not None:
            use_cache = False
        output = self.text(
            **inputs, past_key_values=past_key_values, use_cache=use_cache, logits_to_keep=logits_to_keep, **kwargs
        )
        loss = None
        if labels is not None:
            shifted = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
            loss = F.cross_entropy(output.logits.float().flatten(0, 1), shifted.flatten(), ignore_index=IGNORED)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=output.logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def last_hidden_state(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        cu_seqlens: Tensor,
        patches: Tensor | None = None,
        grids: Tensor | None = None,
        spacing: Tensor | None = None,
        axis_kinds: Tensor | None = None,
        kept: Tensor | None = None,
        visual_tokens: Tensor | None = None,
        placements: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """(1, T, hidden) of one pack: what ``language_head`` turns into logits."""
        visual_inputs = (patches, grids, spacing, axis_kinds, kept, visual_tokens, placements, features)
        inputs = self._decoder_inputs(input_ids, None, position_ids, None, None, visual_inputs, cu_seqlens)
        decoder = decoder_of(self.text)
        assert decoder is not None, "language_head says so"
        return decoder(**inputs, use_cache=False).last_hidden_state

    def language_head(self) -> LanguageHead | None:
        """How logits are made of ``last_hidden_state``; None: by ``forward`` only."""
        return head_of(self.text)

    def _decoder_inputs(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past_key_values: Any,
        inputs_embeds: Tensor | None,
        visual_inputs: tuple[Tensor | None, ...],
        cu_seqlens: Tensor | None,
    ) -> dict[str, Any]:
        """What the decoder is called with."""
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("pass input_ids or inputs_embeds")
            inputs_embeds = self._embed(input_ids, visual_inputs)
        borders: dict[str, Any] = {}
        if cu_seqlens is not None:
            borders = self._pack_borders(cu_seqlens, position_ids)
        elif attention_mask is None and past_key_values is None and has_gaps(position_ids):
            # Without a mask transformers would take each gap for the start of another sample.
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.int64, device=inputs_embeds.device)
        return {
            "inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "position_ids": position_ids, **borders,
        }  # fmt: skip

    def _pack_borders(self, cu_seqlens: Tensor, position_ids: Tensor | None) -> dict[str, Any]:
        """What tells the decoder's attention where samples end.

        Raises:
            ValueError: the attention learns it from positions that rise by one, and these have gaps.
        """
        attention = str(self.text.config._attn_implementation)
        if attention == PACKED:
            return {"segment_lengths": cu_seqlens.diff().tolist()}
        if "flash" in attention:
            ends, longest = cu_seqlens.to(torch.int32), int(cu_seqlens.diff().max())
            return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
        if has_gaps(position_ids, cu_seqlens):
            raise ValueError(
                f"the decoder's attention {attention!r} tells the samples of a pack apart by positions that rise by "
                "one, but dropped visual tokens left gaps; set model.processor.position_gaps: false, or use the "
                f"attention {PACKED!r} or flash_attention_2"
            )
        return {}

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Visuals are encoded with the prompt only; later steps read the cache."""
        first = kwargs.get("is_first_iteration", False)
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)  # type: ignore[misc, arg-type]
        if not first and kwargs.get("use_cache", True):
            for name in _VISUAL_INPUTS:
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Beams and several answers per prompt share the encoded visual: only its placements are repeated."""
        visual = {name: kwargs.pop(name) for name in _VISUAL_INPUTS if kwargs.get(name) is not None}
        if visual and expand_size > 1 and input_ids is not None:
            visual["placements"] = self._repeat_placements(input_ids, visual, expand_size)
        input_ids, kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,  # type: ignore[arg-type]
            **kwargs,
        )
        return input_ids, {**kwargs, **visual}

    def _repeat_placements(self, input_ids: Tensor, visual: dict[str, Tensor], times: int) -> Tensor:
        counts = (input_ids == self.config.visual_token_id).sum(dim=1).tolist()
        placements = visual["placements"]
        rows = shown_by_row(counts, visual["visual_tokens"], placements)
        return placements.new_tensor([index for row in rows for index in row * times])


def has_gaps(position_ids: Tensor | None, cu_seqlens: Tensor | None = None) -> bool:
    """Whether positions that rise throughout a row (B, L), or a sample of a pack (1, T), rise by more than one."""
    if position_ids is None or position_ids.ndim != 2:
        return False
    rises = position_ids.diff(dim=1)  # (B, L - 1)
    if cu_seqlens is not None:
        rises[:, cu_seqlens[1:-1].long() - 1] = 1
    return bool((rises > 1).any() and (rises > 0).all())
