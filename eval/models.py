"""Who answers: what every answerer is, and stand-ins that check the ruler (oracle, constant) or repeat a run."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, Turn, VisualRef
from medvlm.eval.rows import read_rows
from medvlm.eval.run_folder import responses_of
from medvlm.model.visual import Visual

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question with its pictures.

    Attributes:
        request_id: names prompt, media, arguments and condition; see plan.request_name.
        sample_id: the sample it comes from.
        turns: ends with a user turn.
        question: with its answers: for stand-ins only; a model that reads it does not answer but cheat.
        visuals: in the order in which they stand in ``turns``; each as it was read, or as the answerer prepared it.
        max_new_tokens: room for the answer.
    """

    request_id: str
    sample_id: str
    turns: tuple[Turn, ...]
    question: Question
    visuals: tuple[Any, ...]
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Response:
    """What was written.

    Attributes:
        finish_reason: "length" when it was cut off by ``max_new_tokens``.
        confidence: probability from 0 to 1 that the model gave its answer, where it tells; for calibration.
        choices: of a question with choices, how they share what the model gives to all of them together, where it
            tells; in the order of ``question.choices``.
        usage: what it took (seconds, tokens, attempts, cost); kept apart from the answers, which are the same each
            time, and no part of what makes two responses equal.
    """

    text: str
    finish_reason: FinishReason = "stop"
    confidence: float | None = None
    choices: tuple[float, ...] | None = None
    usage: Mapping[str, float] = field(default_factory=dict, compare=False)


Answers = Sequence[Response | BadSample]
"""In the order of the requests; a BadSample says why a request cannot be answered, ever."""


class Interrupted(ValueError):
    """Who answers has gone away in the middle.

    Attributes:
        answered: place of a request -> its answer, of those that came before.
    """

    def __init__(self, reason: str, *, answered: Mapping[int, Response | BadSample]) -> None:
        super().__init__(reason)
        self.answered = dict(answered)


class Answerer(Protocol):
    """Anything that can be evaluated. ``name`` goes into the run folder; a folder belongs to one name."""

    @property
    def name(self) -> str: ...

    def answer(self, requests: Sequence[Request]) -> Answers:
        """One answer per request, in order; it must not depend on which others it is asked with.

        Raises:
            BadSample: one of the requests cannot be answered; they are then asked one by one.
            Interrupted: no more answers will come now.
        """
        ...


@runtime_checkable
class Reads(Protocol):
    """An answerer that reads visuals in its own way, or only what it needs of them."""

    def read(self, ref: VisualRef, root: Path) -> Visual: ...


@runtime_checkable
class Prepares(Protocol):
    """An answerer whose visuals are made ready ahead, in other threads, and whose requests are asked by size."""

    def prepare(self, visual: Visual) -> Any:
        """What stands in ``Request.visuals``. ValueError: the visual cannot be shown."""
        ...

    def size(self, request: Request) -> tuple[int, ...]:
        """Requests whose sizes are neighbours are asked together; begins with the visual tokens of the prompt."""
        ...


@runtime_checkable
class Remote(Protocol):
    """An answerer to which the questions are sent over a network."""

    def check_access(self, access: str | None) -> None:
        """Raise ValueError when data of this access (see task.Access; None: own data) may not be sent there."""
        ...


def settings_of(answerer: Answerer) -> dict[str, Any]:
    """What decides an answerer's answers besides its name: goes into run.json, and a folder belongs to it alone."""
    return dict(getattr(answerer, "settings", {}))


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


@dataclass(frozen=True)
class RandomModel:
    """Draws a choice, each as likely, from a seed and the name of the request; says nothing where there are none."""

    seed: int = 0

    @property
    def name(self) -> str:
        return f"random:{self.seed}"

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        return [Response(text=self._drawn(request)) for request in requests]

    def _drawn(self, request: Request) -> str:
        choices = request.question.choices
        if not choices:
            return ""
        place = random.Random(f"{self.seed}/{request.request_id}").randrange(len(choices))
        return chr(ord("A") + place) if request.question.kind == "choice" else choices[place]


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

    @property
    def settings(self) -> dict[str, str]:
        """A run that went on since holds other answers: their repetition belongs into another folder."""
        rows = [self.responses[name] for name in sorted(self.responses)]
        return {"sha256": hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()}

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        unknown = [request.request_id for request in requests if request.request_id not in self.responses]
        if unknown:
            raise ValueError(
                f"{self.path} does not answer {len(unknown)} requests, first {unknown[0]}; "
                "replay with the manifests, conditions and arguments of that run"
            )
        rows = [self.responses[request.request_id] for request in requests]
        return [
            Response(
                text=row["text"],
                finish_reason=row["finish_reason"],
                confidence=row.get("confidence"),
                choices=tuple(row["choices"]) if "choices" in row else None,
            )
            for row in rows
        ]
