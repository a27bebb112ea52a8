"""Who answers: a checkpoint, or stand-ins that check the ruler (oracle, constant) and repeat a run (replay)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from medvlm.data_recipes.sample import Question, Turn, VisualRef, chat
from medvlm.eval.rows import read_rows
from medvlm.eval.run_folder import responses_of
from medvlm.model.visual import Image, Video, Visual, Volume

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question with its pictures.

    Attributes:
        request_id: names prompt, media, arguments and condition; see plan.request_name.
        sample_id: the sample it comes from.
        turns: ends with a user turn.
        question: with its answers: for stand-ins only; a model that reads it does not answer but cheat.
        visuals: in the order in which they stand in ``turns``.
        max_new_tokens: room for the answer.
    """

    request_id: str
    sample_id: str
    turns: tuple[Turn, ...]
    question: Question
    visuals: tuple[Visual, ...]
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Response:
    """What was written.

    Attributes:
        finish_reason: "length" when it was cut off by ``max_new_tokens``.
        confidence: probability from 0 to 1 that the model gave its answer, where it tells; for calibration.
        usage: what it took (seconds, tokens, attempts, cost); kept apart from the answers, which are the same each time.
    """

    text: str
    finish_reason: FinishReason = "stop"
    confidence: float | None = None
    usage: Mapping[str, float] = field(default_factory=dict)


class Answerer(Protocol):
    """Anything that can be evaluated. ``name`` goes into the run folder; a folder belongs to one name."""

    @property
    def name(self) -> str: ...

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """One response per request, in order; a response must not depend on which others it is asked with."""
        ...


@dataclass(frozen=True)
class ConstantModel:
    """Always writes ``text``."""

    text: str

    @property
    def name(self) -> str:
        return f"constant:{self.text}"

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        return [Response(text=self.text) for _ in requests]


@dataclass(frozen=True)
class OracleModel:
    """Writes the reference: every score must then be perfect, or the scorer is wrong."""

    name: str = "oracle"

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        return [Response(text=reference_of(request.question)) for request in requests]


def reference_of(question: Question) -> str:
    """The reference as a model would write it: of labels all of them, else the first accepted answer."""
    return "; ".join(question.answers) if question.kind == "labels" else question.answers[0]


class ReplayModel:
    """Repeats the answers of an earlier run: its folder, or a file of its responses.

    Raises:
        ValueError: on a request that the file does not answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.responses = {row["request_id"]: row for row in (responses_of(path) if path.is_dir() else read_rows(path))}
        if not self.responses:
            raise ValueError(f"{path} holds no responses; give the folder of a finished run")

    @property
    def name(self) -> str:
        return f"replay:{self.path}"

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        unknown = [request.request_id for request in requests if request.request_id not in self.responses]
        if unknown:
            raise ValueError(
                f"{self.path} does not answer {len(unknown)} requests, first {unknown[0]}; "
                "replay with the manifests, conditions and arguments of that run"
            )
        rows = [self.responses[request.request_id] for request in requests]
        return [
            Response(text=row["text"], finish_reason=row["finish_reason"], confidence=row.get("confidence"))
            for row in rows
        ]


def _work(request: Request) -> int:
    """A rough size of the prompt: only the speed of a batch depends on it."""
    values = 0
    for visual in request.visuals:
        match visual:
            case Image():
                values += visual.pixels.size
            case Volume():
                values += visual.voxels.size
            case Video():
                values += visual.frames.size
    return values // 256 + sum(len(turn.text) for turn in request.turns) // 4


class LoadedModel:
    """A model in memory, decoded greedily.

    Rows of a batch are left-padded and masked by the processor, so an answer does not depend on ``batch_size``;
    requests of like size share a batch only because that wastes less padding.

    Args:
        model: in eval mode.
        batch_size: requests per call of ``generate``.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.processor, self.path, self.batch_size = model, processor, name, batch_size
        self.device = str(model.device)

    @property
    def name(self) -> str:
        return self.path

    def read(self, ref: VisualRef, root: Path) -> Visual:
        """A visual as training read it: a large JPEG at the scale that the processor needs."""
        from medvlm.data_recipes.scaled_reading import read_for

        return read_for(ref, root, self.processor)

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        responses: dict[int, Response] = {}
        for batch in self._batches(requests):
            for place, response in zip(batch, self.write([requests[i] for i in batch]), strict=True):
                responses[place] = response
        return [responses[place] for place in range(len(requests))]

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        order = sorted(range(len(requests)), key=lambda i: (requests[i].max_new_tokens, _work(requests[i]), i))
        for _, group in groupby(order, key=lambda i: requests[i].max_new_tokens):
            members = list(group)
            for start in range(0, len(members), self.batch_size):
                yield members[start : start + self.batch_size]

    def write(self, requests: Sequence[Request], **decoding: Any) -> list[Response]:
        """One response per request, of one batch.

        Args:
            decoding: arguments of transformers' ``generate`` (temperature, top_p, ...); greedy unless told otherwise.
        """
        inputs = self.processor(
            messages=[chat(request.turns) for request in requests],
            visuals=[list(request.visuals) for request in requests],
            add_generation_prompt=True,
        ).to(self.device)
        tokenizer, ends = self.processor.tokenizer, sorted(end_ids(self.model, self.processor))
        # Not in inference mode: what a layer keeps of this pass would be of no use to a training that goes on.
        with torch.no_grad():
            ids = self.model.generate(
                **inputs,
                max_new_tokens=requests[0].max_new_tokens,
                **({"do_sample": False} | decoding),
                # Said here, because a checkpoint saved without a generation config would never stop.
                eos_token_id=ends,
                pad_token_id=ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            )
        written = ids[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._decode(row) for row in written]

    def _decode(self, written: list[int]) -> Response:
        ends = end_ids(self.model, self.processor)
        stop = next((place for place, token in enumerate(written) if token in ends), None)
        text = self.processor.tokenizer.decode(written[:stop], skip_special_tokens=True).strip()
        return Response(text=text, finish_reason="length" if stop is None else "stop")


def end_ids(model: Any, processor: Any) -> set[int]:
    """Ids at which an answer ends: what the processor's template writes, and what the checkpoint says besides."""
    stated = model.generation_config.eos_token_id
    listed = stated if isinstance(stated, list | tuple) else [] if stated is None else [stated]
    return {*map(int, listed), *processor.end_ids}


class CheckpointModel(LoadedModel):
    """A medvlm checkpoint.

    Args:
        path: checkpoint folder or hub id, as model.loading.load_checkpoint takes it.
        device: "cuda", "cpu", ...; the GPU when there is one by default.
        batch_size: requests per call of ``generate``.
    """

    def __init__(self, path: str | Path, device: str | None = None, batch_size: int = 8) -> None:
        from medvlm.model.loading import load_checkpoint

        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, processor = load_checkpoint(str(path), device=chosen)
        super().__init__(model.eval(), processor, name=str(path), batch_size=batch_size)
        self.device = chosen
