"""A model that runs here: prompts in batches, greedy decoding, and how sure the model is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, VisualRef
from medvlm.eval import choice_likelihood as likelihood
from medvlm.eval.batch_decoding import ChosenProbabilities, cut, end_ids, probability
from medvlm.eval.choose_model import DTYPES, AnswerBy
from medvlm.eval.extract import extract, options
from medvlm.eval.models import Request, Response
from medvlm.eval.slice_sets import SlicePolicy, show
from medvlm.model.processing import PatchedVisual, left_padded
from medvlm.model.visual import Image, Visual, kind_of

Shown = tuple[str | tuple[str, PatchedVisual], ...]
"""A visual as a model in memory is shown it: words, and patches with the kind that the chat template calls them."""


class LoadedModel:
    """A model in memory, decoded greedily.

    Rows of a batch are left-padded and masked, so an answer does not depend on ``batch_size``; requests of like size
    share a batch only because that wastes less padding. ``prepare`` does what the processor does of a visual, so that
    it is done ahead, in other threads, while the model writes.

    Args:
        model: in eval mode.
        batch_size: requests per call of ``generate``.
        confidence: tell how sure the model is: of a question with choices, the share of the choice that extraction
            reads from the text; of any other answer, the product of the probabilities of its tokens.
        answer_by: "likelihood" answers a question with choices by the most likely one, see choice_likelihood.py, and
            all other questions by text.
        slices: how volumes and clips are shown, as pictures; None: as the model's own processor shows them.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str,
        batch_size: int = 8,
        confidence: bool = False,
        answer_by: AnswerBy = "text",
        slices: SlicePolicy | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.processor, self.path, self.batch_size = model, processor, name, batch_size
        self.confidence, self.answer_by, self.slices = confidence, answer_by, slices
        self.device = str(model.device)

    @property
    def name(self) -> str:
        return self.path

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "answer_by": self.answer_by,
            "confidence": self.confidence,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "slices": None if self.slices is None else self.slices.to_dict(),
            "weights": weights_name(self.model),
        }

    def read(self, ref: VisualRef, root: Path) -> Visual:
        """A visual as training read it: a large JPEG at the scale that the processor needs."""
        from medvlm.data_recipes.scaled_reading import read_for

        return read_for(ref, root, self.processor)

    def prepare(self, visual: Visual) -> Shown:
        """A visual as the model is shown it: cut into patches; with ``slices`` several pictures and words.

        Raises:
            ValueError: the processor's budget is too small.
        """
        if self.slices is None or isinstance(visual, Image):
            return ((kind_of(visual), self.processor.patch(visual)),)
        parts = show(visual, self.slices)
        return tuple(p if isinstance(p, str) else ("image", self.processor.patch(p.image())) for p in parts)

    def size(self, request: Request) -> tuple[int, ...]:
        """(visual tokens, which visual, tokens of text roughly): only the speed of a batch depends on it.

        Questions about one visual lie together, so that a batch encodes it once.
        """
        written = sum(len(turn.text) for turn in request.turns)
        visual = 0
        for shown in request.visuals:
            for part in shown if isinstance(shown, tuple) else self.prepare(shown):
                if isinstance(part, str):
                    written += len(part)
                else:
                    visual += part[1].tokens
        return visual, min(map(id, request.visuals), default=0), written // 4

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        requests = [self._prepared(request) for request in requests]
        chosen = self._choose(requests) if self.confidence or self.answer_by == "likelihood" else {}
        responses: dict[int, Response] = {}
        if self.answer_by == "likelihood":
            responses = {place: said.response() for place, said in chosen.items()}
        for batch in self._batches(requests, [p for p in range(len(requests)) if p not in responses]):
            for place, response in zip(batch, self.write([requests[i] for i in batch]), strict=True):
                responses[place] = chosen[place].about(response) if place in chosen else response
        return [responses[place] for place in range(len(requests))]

    def _prepared(self, request: Request) -> Request:
        """``request`` with prepared visuals; the same visual object becomes the same patches, encoded once."""
        if all(isinstance(visual, tuple) for visual in request.visuals):
            return request
        made = {id(v): self.prepare(v) for v in request.visuals if not isinstance(v, tuple)}
        return replace(request, visuals=tuple(made.get(id(visual), visual) for visual in request.visuals))

    def _batches(self, requests: Sequence[Request], places: Sequence[int]) -> Iterator[list[int]]:
        """The longest first: what does not fit into memory fails at once."""
        order = sorted(places, key=lambda i: (requests[i].max_new_tokens, self.size(requests[i]), -i), reverse=True)
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _choose(self, requests: Sequence[Request]) -> dict[int, Chosen]:
        """What the model thinks of the choices of every question that has some, by place."""
        started = perf_counter()
        asked: dict[int, tuple[tuple[str, ...], likelihood.Choices]] = {}
        for place, request in enumerate(requests):
            if not likelihood.has_choices(request.question):
                continue
            try:
                texts = likelihood.choice_texts(request.question, request.turns[-1].text)
            except BadSample:
                if self.answer_by == "likelihood":
                    raise
                continue  # the text is the answer, and stays so; how sure the model is cannot be told
            messages, visuals = self._messages(request)
            asked[place] = texts, likelihood.choices_of(self.processor, messages, visuals, texts)
        # Questions about one visual one after the other, so that a pass encodes it once.
        order = sorted(asked, key=lambda place: (min(map(id, requests[place].visuals), default=0), place))
        values = likelihood.log_probabilities_of(self.model, [asked[place][1] for place in order], self.device)
        seconds = (perf_counter() - started) / max(1, len(order))
        return {
            place: Chosen(
                question=requests[place].question,
                prompt=requests[place].turns[-1].text,
                texts=asked[place][0],
                shares=likelihood.shares(of_choices),
                seconds=seconds,
            )
            for place, of_choices in zip(order, values, strict=True)
        }

    def _messages(self, request: Request) -> tuple[list[dict[str, Any]], list[PatchedVisual]]:
        """The conversation as chat messages, and the visuals in the order in which these show them."""
        shown = iter(request.visuals)
        messages: list[dict[str, Any]] = []
        visuals: list[PatchedVisual] = []
        for turn in request.turns:
            content: list[dict[str, Any]] = []
            for part in turn.content:
                for piece in [part] if isinstance(part, str) else next(shown):
                    if isinstance(piece, str):
                        content.append({"type": "text", "text": piece})
                    else:
                        content.append({"type": piece[0]})
                        visuals.append(piece[1])
            messages.append({"role": turn.role, "content": content})
        return messages, visuals

    def _inputs(self, requests: Sequence[Request], pad: int) -> Mapping[str, torch.Tensor]:
        """A left-padded batch for ``generate``."""
        prompts = (self._messages(self._prepared(request)) for request in requests)
        return left_padded([self.processor.render(*prompt, True) for prompt in prompts], pad).to(self.device)

    def write(self, requests: Sequence[Request], **decoding: Any) -> list[Response]:
        """One response per request, of one batch.

        Args:
            decoding: arguments of transformers' ``generate`` (temperature, top_p, ...); greedy unless told otherwise.
        """
        started = perf_counter()
        ends, tokenizer = end_ids(self.model, self.processor), self.processor.tokenizer
        pad = min(ends) if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        inputs = self._inputs(requests, pad)
        notes = ChosenProbabilities() if self.confidence and not decoding else None
        if notes is not None:
            decoding = {"logits_processor": [notes]}
        # Not in inference mode: what a layer keeps of this pass would be of no use to a training that goes on.
        with torch.no_grad():
            ids = self.model.generate(
                **inputs,
                max_new_tokens=max(request.max_new_tokens for request in requests),
                **({"do_sample": False} | decoding),
                # Said here, because a checkpoint saved without a generation config would never stop.
                eos_token_id=sorted(ends),
                pad_token_id=pad,
            )
        length = inputs["input_ids"].shape[1]
        prompts = inputs["attention_mask"].sum(dim=1).tolist()
        seconds = (perf_counter() - started) / len(requests)
        steps = notes.rows() if notes is not None else [None] * len(requests)
        responses = []
        for request, row, prompt, of_row in zip(requests, ids[:, length:].tolist(), prompts, steps, strict=True):
            written, ended = cut(row, ends, request.max_new_tokens)
            responses.append(
                Response(
                    text=tokenizer.decode(written, skip_special_tokens=True).strip(),
                    finish_reason="stop" if ended else "length",
                    confidence=None if of_row is None else probability(of_row, len(written) + ended),
                    usage={"seconds": seconds, "prompt_tokens": prompt, "new_tokens": len(written) + ended},
                )
            )
        return responses


def weights_name(model: torch.nn.Module) -> str:
    """16 hexadecimal digits over the names, shapes and up to 64 values of every tensor of ``model``.

    A checkpoint that was trained further has another name under the same path, so that its answers do not go into the
    run folder of what it was before. Not all values, because training moves nearly all of them and reading them takes
    a while.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        few = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.float64)
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + few.numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a model thinks of the choices of one question.

    Attributes:
        texts: each choice as the model would write it.
        shares: of each, adding up to 1.
    """

    question: Question
    prompt: str
    texts: tuple[str, ...]
    shares: tuple[float, ...]
    seconds: float

    def response(self) -> Response:
        """The most likely choice as the answer."""
        best = max(range(len(self.shares)), key=lambda place: self.shares[place])
        return Response(
            text=self.texts[best],
            confidence=self.shares[best],
            choices=self.shares,
            usage={"seconds": self.seconds},
        )

    def about(self, response: Response) -> Response:
        """``response`` with how sure the model is of the choice that its text names; None where it names none."""
        value = extract(self.question, response.text, self.prompt).value
        named = options(self.question, self.prompt)
        share = min(1.0, sum(share for share, name in zip(self.shares, named, strict=True) if name == value))
        usage = {**response.usage, "seconds": response.usage.get("seconds", 0.0) + self.seconds}
        return replace(response, confidence=None if value is None else share, choices=self.shares, usage=usage)


class CheckpointModel(LoadedModel):
    """A medvlm checkpoint, or an existing vision-language model of a family that model.external serves.

    Args:
        path: checkpoint folder or hub id, as model.loading.load_checkpoint takes it.
        device: "cuda", "cpu", ...; the GPU when there is one by default.
        batch_size: requests per call of ``generate``.
        dtype: of the weights: float32, bfloat16, float16.
        more: arguments of LoadedModel.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | None = None,
        batch_size: int = 8,
        *,
        dtype: str = "float32",
        **more: Any,
    ) -> None:
        from medvlm.model.loading import load_checkpoint

        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, processor = load_checkpoint(str(path), device=chosen, dtype=dtype_named(dtype))
        super().__init__(model.eval(), processor, name=str(path), batch_size=batch_size, **more)
        self.device = chosen

    @property
    def settings(self) -> dict[str, Any]:
        settings = getattr(self.processor, "settings", None)  # of an existing model: how volumes are shown
        return super().settings | ({} if settings is None else {"visuals": asdict(settings)})


def dtype_named(name: str) -> torch.dtype:
    """The dtype called ``name``, one of DTYPES."""
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}; use one of {', '.join(DTYPES)}")
    return getattr(torch, name)
