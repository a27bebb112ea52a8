"""How likely a model finds each choice of a question: packed forward passes in which every visual is encoded once.

A choice is scored as the answer that it would be, in the model's own chat template: log P(choice | question), summed
over its tokens, without normalising by length. Choices whose tokens begin those of another ("left", "left lower zone")
are scored with the end of the turn, in which "left" is no part of the other any more; all others without, because what
a model writes after its answer says nothing about the answer. The shares are a softmax over the choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.sample import Question
from medvlm.eval.answer_rules import LETTERS
from medvlm.eval.extract import OPTION_LINE, extract, options
from medvlm.model.batch import PackedBatch
from medvlm.model.chunked_loss import log_probabilities, of_logits
from medvlm.model.loading import Model, Processor
from medvlm.model.processing import PatchedVisual, Rendered

PACK_TOKENS, PACK_PATCHES = 8192, 16384
"""Of a pass; a question that is larger alone has one of its own."""


def has_choices(question: Question) -> bool:
    """Whether the answer is one of a listed few."""
    return question.kind in ("closed", "choice")


def choice_texts(question: Question, prompt: str) -> tuple[str, ...]:
    """Each choice as a model is expected to write it: its letter where the prompt has lettered lines, else its text.

    Raises:
        BadSample: extraction reads one of them as something else: the most likely choice would be marked as another.
    """
    letters = tuple(LETTERS[: len(question.choices)])
    lettered = question.kind == "choice" and set(letters) <= {letter for letter, _ in OPTION_LINE.findall(prompt)}
    texts = letters if lettered else tuple(choice.strip() for choice in question.choices)
    values = options(question, prompt)
    for place, text in enumerate(texts):
        read = extract(question, text, prompt).value
        if read != values[place]:
            raise BadSample(
                f"choice {place + 1}, written {text!r}, is read as {read!r}",
                where="question.choices",
                mend="write the choice in other words, or ask for text with --answer-by text",
            )
    return texts


def shares(log_probabilities: Sequence[float]) -> tuple[float, ...]:
    """Softmax: how the choices share what the model gives to all of them together."""
    return tuple(torch.tensor(log_probabilities, dtype=torch.float64).softmax(0).tolist())


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One question as sequences of tokens.

    Attributes:
        sides: conversations that a pass must see; a choice of one token needs no more than the prompt.
        wanted: per choice: (side, place of the token in it that is to be predicted, the token), for each token that
            counts.
    """

    sides: tuple[Rendered, ...]
    wanted: tuple[tuple[tuple[int, int, int], ...], ...]


def choices_of(
    processor: Processor, messages: Sequence[dict[str, Any]], visuals: Sequence[PatchedVisual], texts: Sequence[str]
) -> Choices:
    """The question ``messages`` with each of ``texts`` as its answer."""
    answers = [_answered(processor, messages, visuals, text) for text in texts]
    begins = any(
        _begins(a.tokens[a.first : a.last], b.tokens[b.first : b.last]) for a in answers for b in answers if a is not b
    )
    ends = [answer.end if begins else answer.last for answer in answers]
    # What must be seen: all but the last token that counts. Longest first, so that a beginning of one is found.
    seen = [answer.tokens[: end - 1] for answer, end in zip(answers, ends, strict=True)]
    kept: list[int] = []
    side_of: dict[int, int] = {}
    for place in sorted(range(len(seen)), key=lambda place: -len(seen[place])):
        found = next((side for side, other in enumerate(kept) if _begins(seen[place], seen[other])), None)
        if found is None:
            found = len(kept)
            kept.append(place)
        side_of[place] = found
    return Choices(
        sides=tuple(answers[place].upto(ends[place] - 1) for place in kept),
        wanted=tuple(
            tuple((side_of[place], at, int(answer.tokens[at])) for at in range(answer.first, end))
            for place, (answer, end) in enumerate(zip(answers, ends, strict=True))
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """``tokens[first:last]`` is the answer, ``tokens[last:end]`` the end of its turn."""

    rendered: Rendered
    first: int
    last: int
    end: int

    @property
    def tokens(self) -> np.ndarray:
        return self.rendered.tokens

    def upto(self, place: int) -> Rendered:
        whole = self.rendered
        return Rendered(
            tokens=whole.tokens[:place],
            supervised=np.zeros(place, dtype=bool),
            positions=whole.positions[:place],
            visuals=whole.visuals,
        )


def _answered(
    processor: Processor, messages: Sequence[dict[str, Any]], visuals: Sequence[PatchedVisual], text: str
) -> _Answered:
    turn = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    rendered = processor.render([*messages, turn], visuals)
    marked = np.flatnonzero(rendered.supervised)
    # Earlier turns of the assistant are supervised too: the last run is this answer.
    breaks = [place for place, (a, b) in enumerate(pairwise(marked.tolist()), start=1) if b != a + 1]
    first, end = int(marked[breaks[-1] if breaks else 0]), int(marked[-1]) + 1
    last = end - 1 if int(rendered.tokens[end - 1]) in processor.end_ids else end
    return _Answered(rendered=rendered, first=first, last=last, end=end)


def _begins(short: np.ndarray, long: np.ndarray) -> bool:
    return len(short) <= len(long) and bool((long[: len(short)] == short).all())


def log_probabilities_of(model: Model, questions: Sequence[Choices], device: str) -> list[list[float]]:
    """Per question, the summed log-probability of each choice.

    A visual object that several questions show is encoded once in a pass; give questions about one visual one after the
    other.
    """
    found: list[list[float]] = []
    for held in _packs(questions):
        sides = [side for question in held for side in question.sides]
        batch = collate([(str(number), (side,)) for number, side in enumerate(sides)]).to(device)
        places: list[int] = []
        tokens: list[int] = []
        first = 0  # side of the pack
        starts = batch.cu_seqlens.tolist()
        for question in held:
            for choice in question.wanted:
                # The token at a place is predicted by what stands one place before it.
                places += [starts[first + side] + at - 1 for side, at, _ in choice]
                tokens += [token for _, _, token in choice]
            first += len(question.sides)
        values = iter(_at(model, batch, torch.tensor(places), torch.tensor(tokens)))
        found += [[sum(next(values) for _ in choice) for choice in question.wanted] for question in held]
    return found


def _packs(questions: Iterable[Choices]) -> Iterator[list[Choices]]:
    held: list[Choices] = []
    tokens = 0
    visuals: dict[int, int] = {}
    for question in questions:
        more = sum(len(side.tokens) for side in question.sides)
        shown = {id(visual): len(visual.patches) for side in question.sides for visual in side.visuals}
        if held and (tokens + more > PACK_TOKENS or sum((visuals | shown).values()) > PACK_PATCHES):
            yield held
            held, tokens, visuals = [], 0, {}
        held.append(question)
        tokens += more
        visuals |= shown
    if held:
        yield held


def _at(model: Model, batch: PackedBatch, places: Tensor, tokens: Tensor) -> list[float]:
    """Log-probability of each of ``tokens`` (N,) after ``places`` (N,) of the pack."""
    where, wanted = places.to(batch.tokens.device), tokens.to(batch.tokens.device)

    def run(inner: Any) -> Tensor:
        head = inner.language_head()
        if head is None:
            logits = inner(**batch.model_inputs(), logits_to_keep=where).logits[0]  # (N, vocabulary)
            return of_logits(logits, wanted)[0]
        hidden = inner.last_hidden_state(**batch.model_inputs())[0, where]  # (N, hidden)
        return log_probabilities(head, hidden, wanted)[0]

    with torch.no_grad():
        return model(run=run).double().tolist()
