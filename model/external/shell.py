"""ExternalVLM: a vision-language model of transformers that takes packs as MedVLMForConditionalGeneration does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, PretrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from medvlm.model.batch import PackedBatch, write_features
from medvlm.model.external.families import family_of
from medvlm.model.external.family import Encoded, Pack, VisualInputs
from medvlm.model.language_head import LanguageHead

PREFIX = "model."
"""Before the library's own names of parameters."""


class ExternalVLM(nn.Module):
    """The library's model, unchanged, as ``.model``; only the way in differs.

    Args:
        model: of a family that is served.

    Raises:
        ValueError: it is of none.
    """

    base_model_prefix = ""
    """As transformers has it on its own models; PEFT asks for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.family = family_of(model.config)  # type: ignore[arg-type]
        self.family.pack_attention(self.model)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, dtype: torch.dtype | None = None) -> ExternalVLM:
        """Load a checkpoint folder or hub id, in fp32 unless ``dtype`` says otherwise.

        Raises:
            ValueError: weights are missing, left over or of another shape than the config says.
        """
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype or torch.float32, output_loading_info=True
        )
        model, report = loaded
        wrong = {
            key: sorted(str(name) for name in report[key])
            for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if report.get(key)
        }
        if wrong:
            raise ValueError(f"the weights of {source} do not fit its config: {wrong}; the checkpoint is damaged")
        return cls(model)

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> ExternalVLM:
        """With random weights."""
        return cls(AutoModelForImageTextToText.from_config(config, dtype=torch.float32))

    def save_pretrained(self, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """A plain folder of the family.

        Args:
            state_dict: weights by the names of this module, instead of its own.
        """
        plain = None
        if state_dict is not None:
            plain = {name.removeprefix(PREFIX): tensor for name, tensor in state_dict.items()}
        # The way in through packs is ours; a saved config must not name it.
        self.model.save_pretrained(folder, state_dict=plain)

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def generation_config(self) -> Any:
        return self.model.generation_config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    encode_covers = frozenset({"vision", "projector"})
    """The components that ``encode_pack`` runs."""

    def component_of(self, name: str) -> str:
        """vision, projector or text: the part that a parameter or module of this model belongs to."""
        return self.family.component_of(name.removeprefix(PREFIX))

    @property
    def pads_because(self) -> str:
        """Why samples of a pack cannot lie end to end; empty when they can."""
        return "" if self.family.packs else f"{self.family.name}: {self.family.pads_because}"

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Component -> (numbers that one row of patches or token takes in a layer, layers), to estimate memory."""
        return self.family.sizes()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.model.get_output_embeddings()

    def encode_pack(self, batch: PackedBatch) -> Encoded:
        """``features`` of ``batch``, for passes that share them.

        Of a pack of text those of a blank image, so that all ranks run the same parts in the same order.
        """
        visuals = _visual_inputs(
            batch.patches, batch.grids, batch.spacing, batch.axis_kinds, batch.visual_tokens, batch.placements
        )
        return self.family.encode(self.model, self.family.blank(self.model) if visuals is None else visuals)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        patches: Tensor | None = None,
        grids: Tensor | None = None,
        spacing: Tensor | None = None,
        axis_kinds: Tensor | None = None,
        kept: Tensor | None = None,
        visual_tokens: Tensor | None = None,
        placements: Tensor | None = None,
        features: Encoded | None = None,
        cu_seqlens: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        run: Callable[[ExternalVLM], Any] | None = None,
    ) -> Any:
        """Logits of one pack (1, T), or of a padded batch (B, L) with ``attention_mask``.

        Args:
            patches, grids, spacing, axis_kinds, kept, visual_tokens, placements, cu_seqlens: as in PackedBatch.
            features: of ``encode_pack``, when it has run before; only with ``cu_seqlens``.
            logits_to_keep: the last k positions, or a tensor of positions; 0 for all.
            run: called with this model instead of all the above; its result is returned. An engine wraps ``forward``
                and no other method.
        """
        if run is not None:
            return run(self)
        if input_ids is None:
            raise ValueError("pass input_ids")
        visuals = _visual_inputs(patches, grids, spacing, axis_kinds, visual_tokens, placements)
        if cu_seqlens is None:
            inputs = self.family.library_inputs(input_ids, visuals)
            return self.model(**inputs, attention_mask=attention_mask, use_cache=False, logits_to_keep=logits_to_keep)
        hidden = self.family.decode(self.model, self._pack(input_ids, position_ids, visuals, cu_seqlens, features))
        if isinstance(logits_to_keep, Tensor):
            hidden = hidden[:, logits_to_keep]
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        return CausalLMOutputWithPast(logits=self.model.lm_head(hidden))  # type: ignore[arg-type]

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
        features: Encoded | None = None,
    ) -> Tensor:
        """(1, T, hidden) of one pack: what ``language_head`` turns into logits."""
        visuals = _visual_inputs(patches, grids, spacing, axis_kinds, visual_tokens, placements)
        return self.family.decode(self.model, self._pack(input_ids, position_ids, visuals, cu_seqlens, features))

    def language_head(self) -> LanguageHead:
        """How logits are made of ``last_hidden_state``."""
        return LanguageHead(logits=self.model.lm_head, module=self.model.lm_head, linear=True)

    def _pack(
        self,
        ids: Tensor,
        positions: Tensor | None,
        visuals: VisualInputs | None,
        cu_seqlens: Tensor,
        encoded: Encoded | None,
    ) -> Pack:
        placeholder = ids == self.family.placeholder_id
        # A placeholder may lie outside of the embedding (Gemma 3); its row is overwritten in any case.
        embeds = self.get_input_embeddings()(ids.masked_fill(placeholder, 0))
        deep = None
        if visuals is not None:
            encoded = self.family.encode(self.model, visuals) if encoded is None else encoded
            order = visuals.placements.tolist()
            features = torch.cat([encoded.features[index] for index in order])
            embeds = write_features(embeds, placeholder, features)
            if encoded.deep:
                deep = torch.cat([encoded.deep[index] for index in order], dim=1).to(embeds.dtype)
        elif self.training:
            # A rank whose pack holds text only must run every trainable part: see medvlm.py.
            blank = self.family.encode(self.model, self.family.blank(self.model)) if encoded is None else encoded
            embeds = embeds + 0.0 * _total(blank).to(embeds.dtype)
        if positions is None:
            lengths = cu_seqlens.diff().tolist()
            positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])[None]
        return Pack(
            ids=ids,
            embeds=embeds,
            placeholder=placeholder,
            positions=positions,
            cu_seqlens=cu_seqlens,
            visuals=visuals,
            deep=deep,
        )

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        patches: Tensor | None = None,
        grids: Tensor | None = None,
        spacing: Tensor | None = None,
        axis_kinds: Tensor | None = None,
        kept: Tensor | None = None,
        visual_tokens: Tensor | None = None,
        placements: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """The library's ``generate`` on a batch of ExternalProcessor; (B, L + new) ids."""
        visuals = _visual_inputs(patches, grids, spacing, axis_kinds, visual_tokens, placements)
        if visuals is None or self.family.in_one_call(visuals):
            inputs = self.family.library_inputs(input_ids, visuals)
            return self.model.generate(**inputs, attention_mask=attention_mask, **options)
        counts = (input_ids == self.family.placeholder_id).sum(dim=1).tolist()
        written = []
        for row, shown in enumerate(visuals.shown_by_row(counts)):
            chosen = torch.tensor(shown, dtype=visuals.placements.dtype, device=visuals.placements.device)
            own = replace(visuals, placements=chosen) if shown else None
            mask = None if attention_mask is None else attention_mask[row : row + 1]
            inputs = self.family.library_inputs(input_ids[row : row + 1], own)
            written.extend(self.model.generate(**inputs, attention_mask=mask, **options))
        pad = options.get("pad_token_id", self.generation_config.pad_token_id)
        return nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=0 if pad is None else pad)


def _visual_inputs(
    patches: Tensor | None,
    grids: Tensor | None,
    spacing: Tensor | None,
    axis_kinds: Tensor | None,
    visual_tokens: Tensor | None,
    placements: Tensor | None,
) -> VisualInputs | None:
    if patches is None or len(patches if grids is None else grids) == 0:
        return None
    given = {
        "grids": grids, "spacing": spacing, "axis_kinds": axis_kinds, "visual_tokens": visual_tokens,
        "placements": placements,
    }  # fmt: skip
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ValueError(f"patches were given without {', '.join(missing)}; pass what the processor returned")
    return VisualInputs(patches=patches, **given)  # type: ignore[arg-type]


def _total(encoded: Encoded) -> Tensor:
    return torch.stack([part.sum() for part in [*encoded.features, *encoded.deep]]).sum()
