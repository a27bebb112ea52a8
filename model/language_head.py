"""The output layer of a language model apart from its decoder: what makes logits of hidden states, found by trying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MoeModelOutputWithPast

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LanguageHead:
    """From hidden states to logits.

    Attributes:
        logits: (N, hidden) -> (N, vocabulary), through modules as they are called in a forward pass, so that adapters
            and ZeRO's hooks take part.
        module: the output layer.
        linear: ``logits`` is the output layer and nothing after it.
    """

    logits: Callable[[Tensor], Tensor]
    module: nn.Module
    linear: bool

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters of the output layer that take a gradient."""
        return [p for p in self.module.parameters() if p.requires_grad]

    @property
    def partitioned(self) -> bool:
        """Whether ZeRO-3 keeps a part of the output layer on each rank: each call is then a collective."""
        return any(hasattr(p, "ds_id") for p in self.module.parameters())

    @property
    def vocabulary(self) -> int:
        """How many logits a row has."""
        return max(getattr(p, "ds_shape", p.shape)[0] for p in self.module.parameters())


_kinds: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""Language model -> how its logits are made: "linear", "tail", or "whole" where its decoder cannot be told apart."""


def decoder_of(text: nn.Module) -> nn.Module | None:
    """The decoder inside a causal language model of transformers; None where it has none of its own."""
    found = text._modules.get(getattr(text, "base_model_prefix", ""))
    return found if found is not None and found is not text else None


def head_of(text: Any) -> LanguageHead | None:
    """How ``text`` makes logits of the last hidden state; None: only by its whole forward pass.

    Many models do more than the output layer: Gemma 2 caps logits, Cohere and Granite scale them. So the model itself
    is run with a decoder that hands given hidden states out, and compared with the output layer alone, once.
    """
    module = text.get_output_embeddings()
    if text not in _kinds:
        _kinds[text] = "whole" if module is None or decoder_of(text) is None else _try(text, module)
    if _kinds[text] == "whole":
        return None
    linear = _kinds[text] == "linear"
    return LanguageHead(logits=module if linear else _Tail(text), module=module, linear=linear)


def _try(text: Any, module: nn.Module) -> str:
    first = next(module.parameters())
    width = text.config.get_text_config().hidden_size
    hidden = torch.linspace(-1, 1, 4 * width, device=first.device, dtype=first.dtype).view(4, width)
    with torch.no_grad(), _without_dropout(module):
        try:
            alone, whole = module(hidden), _Tail(text)(hidden)
        except Exception as error:  # noqa: BLE001 (whatever a library's model asks of its decoder)
            _log.warning(
                "the output layer of %s cannot be told apart from its decoder (%s: %s); the logits of all supervised "
                "tokens are held in memory at once",
                type(text).__name__, type(error).__name__, error,
            )  # fmt: skip
            return "whole"
    return "linear" if alone.shape == whole.shape and torch.equal(alone, whole) else "tail"


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    """Adapters on the output layer may have dropout; two calls of it would differ."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


class _Tail:
    """Whatever the forward pass of ``text`` does after its decoder."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def __call__(self, hidden: Tensor) -> Tensor:
        name = self.text.base_model_prefix
        decoder = self.text._modules[name]
        self.text._modules[name] = _HandsOut(hidden[None])
        try:
            return self.text(inputs_embeds=hidden[None], use_cache=False).logits[0]
        finally:
            self.text._modules[name] = decoder


class _HandsOut(nn.Module):
    """In the place of a decoder: its last hidden state is given."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *args: Any, **kwargs: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=self.hidden)  # type: ignore[arg-type]
