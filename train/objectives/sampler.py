"""Who writes the answers that a stage learns from: the model itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from medvlm.eval.batch_decoding import end_ids
from medvlm.model.loading import Processor
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.model.processing import left_padded
from medvlm.train.engine import Engine
from medvlm.train.objectives.rollouts import Answer, Prompt
from medvlm.train.settings.reinforcement import ReinforcementConfig


class Sampler(Protocol):
    """Writes a group of answers to each prompt."""

    def write(self, engine: Engine, prompts: Sequence[Prompt], step: int) -> list[list[Answer]]:
        """``group_size`` answers to each prompt: a function of weights, prompts, seed and step alone.

        Ranks may have unlike numbers of prompts, or none; all must call it.
        """
        ...


def writable(logits: Tensor, processor: Processor, temperature: float) -> Tensor:
    """(N, vocabulary) logits -> those that are sampled from, float32.

    Never written are the placeholder of visuals, and rows of the output layer that are no token: an answer with them
    could not be read again. A trained model gives them next to no probability, so that the loss leaves them in.
    """
    places = torch.arange(logits.shape[-1], device=logits.device)
    never = (places >= len(processor.tokenizer)) | (places == processor.visual_token_id)
    return (logits.float() / temperature).masked_fill(never, torch.finfo(torch.float32).min)


class InverseTransform(LogitsProcessor):
    """Leaves one token: the first whose cumulative probability passes a number that was drawn before.

    Every row has numbers of its own, so that an answer does not depend on what it is written beside.

    Args:
        uniform: (rows, room) float64 in [0, 1).
        start: length of the prompts.
    """

    def __init__(self, uniform: Tensor, start: int, processor: Processor, temperature: float) -> None:
        self.uniform, self.start, self.processor, self.temperature = uniform, start, processor, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = writable(scores, self.processor, self.temperature)
        cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)  # (rows, vocabulary)
        drawn = self.uniform[:, input_ids.shape[1] - self.start, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, drawn, right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class OwnSampler:
    """The model writes, left-padded as in evaluation; a visual is encoded once for its whole group.

    Args:
        seed: of the stage.
    """

    def __init__(self, config: ReinforcementConfig, processor: Processor, seed: int) -> None:
        self.config, self.processor, self.seed = config, processor, seed

    def write(self, engine: Engine, prompts: Sequence[Prompt], step: int) -> list[list[Answer]]:
        """See ``Sampler``."""
        # Families of transformers may answer the rows of a batch one after the other.
        own = isinstance(engine.module, MedVLMForConditionalGeneration)
        at_once = self.config.prompts_at_once if own else 1
        uniform = [self._uniform(name, step) for name in numbered(prompts)]
        # Prompts of like length waste less padding.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].rendered.tokens))
        answers: dict[int, list[Answer]] = {}
        training = engine.module.training
        with torch.no_grad(), engine.whole_weights():
            engine.module.eval()
            try:
                for first in range(0, len(order), at_once):
                    places = order[first : first + at_once]
                    drawn = torch.from_numpy(np.concatenate([uniform[i] for i in places])).to(engine.device)
                    groups = self._generate(engine, [prompts[i] for i in places], drawn)
                    answers |= dict(zip(places, groups, strict=True))
            finally:
                engine.module.train(training)
        return [answers[place] for place in range(len(prompts))]

    def _uniform(self, name: str, step: int) -> np.ndarray:
        """(group, room) numbers that are a function of seed, step and sample."""
        digest = hashlib.sha256(f"{self.seed}/{step}/{name}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
        return generator.random((self.config.group_size, self.config.max_new_tokens))

    def _generate(self, engine: Engine, prompts: Sequence[Prompt], uniform: Tensor) -> list[list[Answer]]:
        model: Any = engine.module
        ends, pad = sorted(end_ids(model, self.processor)), self.processor.tokenizer.pad_token_id
        pad = ends[0] if pad is None else pad
        inputs = left_padded([prompt.rendered for prompt in prompts], pad).to(engine.device)
        length = inputs["input_ids"].shape[1]
        sampling = InverseTransform(uniform, length, self.processor, self.config.temperature)
        devices = [engine.device] if engine.device.type == "cuda" else []
        # generate() draws from the one token that is left, and must not move the state of the training.
        with torch.random.fork_rng(devices=devices), _plain_decoding(model):
            ids = model.generate(
                **inputs,
                generation_config=GenerationConfig(
                    do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=self.config.max_new_tokens,
                    num_return_sequences=self.config.group_size, eos_token_id=ends, pad_token_id=pad,
                ),
                logits_processor=LogitsProcessorList([sampling]),
            )  # fmt: skip
        rows = [answer_of(row, self.processor, ends) for row in ids[:, length:].cpu().numpy()]
        size = self.config.group_size
        return [rows[first : first + size] for first in range(0, len(rows), size)]


@contextmanager
def _plain_decoding(model: Any) -> Iterator[None]:
    """What a checkpoint says of decoding (a penalty, a cut) would make another policy than the one that learns."""
    holder = model if isinstance(model, MedVLMForConditionalGeneration) else model.model
    kept = holder.generation_config
    holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        holder.generation_config = kept


def answer_of(written: np.ndarray, processor: Processor, ends: Sequence[int]) -> Answer:
    """The ids up to and with the first that ends a turn, and their text."""
    where = np.flatnonzero(np.isin(written, np.asarray(ends)))
    cut_off = not len(where)
    text = written if cut_off else written[: where[0]]
    return Answer(
        tokens=(written if cut_off else written[: where[0] + 1]).astype(np.int64),
        text=str(processor.tokenizer.decode(text.tolist(), skip_special_tokens=True)).strip(),
        cut_off=cut_off,
    )


def numbered(prompts: Sequence[Prompt]) -> list[str]:
    """A name of each prompt; a sample that stands twice in a step gets other numbers the second time."""
    met: Counter[str] = Counter()
    names = []
    for prompt in prompts:
        sample = prompt.sample.sample_id
        names.append(f"{sample}/{met[sample]}")
        met[sample] += 1
    return names
