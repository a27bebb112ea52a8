"""Room for new tokens in a pretrained decoder, without touching the rows that it has."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def grow_vocabulary(decoder: PreTrainedModel, size: int) -> int:
    """Give ``decoder`` at least ``size`` embedding rows; old rows of embedding and output layer stay bit-equal.

    New rows are the mean of the old: among random rows of another scale some would win every softmax (Hewitt 2021,
    "Initializing new word embeddings for pretrained language models"). An embedding that is padded beyond its
    tokenizer, as Qwen's, has unused rows already and is left alone.

    Returns:
        The number of rows that were added.
    """
    old = int(decoder.get_input_embeddings().weight.shape[0])  # type: ignore[arg-type, index]
    if size <= old:
        return 0
    decoder.resize_token_embeddings(size, mean_resizing=False)
    head = decoder.get_output_embeddings()
    grown: dict[int, Tensor] = {}  # tied weights are one tensor
    for module in (decoder.get_input_embeddings(), head):
        if isinstance(module, nn.Module):
            for name in ("weight", "bias"):
                tensor = getattr(module, name, None)
                if isinstance(tensor, Tensor):
                    grown[id(tensor)] = tensor
    with torch.no_grad():
        for tensor in grown.values():
            tensor[old:] = tensor[:old].double().mean(dim=0).to(tensor.dtype)
    return size - old
