"""Models behind an OpenAI-compatible endpoint: vLLM, SGLang, `transformers serve`, llama.cpp, or a hosted one.

    medvlm eval run --model endpoint:http://127.0.0.1:8000/v1#MODEL_ID ...

Several requests are asked at a time. What a server may mend by itself (too many requests, an error of its own, no
connection, no answer in time) is asked again, with growing pauses; an outage that lasts ends the run with an error that
loses no answer: the same command goes on where it stopped. What the server refuses for its content (too long, filtered)
is quarantined with the server's reason.
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from PIL import Image as Pil

from medvlm.data_recipes.errors import BadSample
from medvlm.eval.endpoint_client import client_of, refuse_redirect
from medvlm.eval.governance import check_may_leave
from medvlm.eval.models import Interrupted, Request, Response
from medvlm.eval.slice_sets import Part, Picture, SlicePolicy, show, spread, words_in
from medvlm.model.visual import Visual

INSTALL = "pip install 'medvlm[endpoint]'"


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """How an endpoint is asked.

    Attributes:
        concurrency: requests on their way at a time.
        timeout_s: for one answer.
        retries: of a request after its first failure; pauses grow from half a second to ``longest_pause_s``.
        key_variable: environment variable that holds the key; it is never written anywhere.
        input_price, output_price: per million tokens, in any currency; 0: not counted.
        extra: further fields of the request body (such as chat_template_kwargs of vLLM).
        approved: hosts that data which are not open may be sent to, see governance.py.
    """

    concurrency: int = 8
    timeout_s: float = 300.0
    retries: int = 6
    longest_pause_s: float = 30.0
    key_variable: str = "OPENAI_API_KEY"
    input_price: float = 0.0
    output_price: float = 0.0
    extra: Mapping[str, Any] | None = None
    approved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or self.timeout_s <= 0:
            raise ValueError(
                f"concurrency {self.concurrency}, retries {self.retries} and timeout {self.timeout_s} s: use at "
                "least 1, at least 0 and more than 0"
            )


class EndpointModel:
    """Answers from an endpoint, greedily (temperature 0, seed 0), one conversation per request.

    Args:
        url: base URL, which ends in /v1 with most servers.
        model: id that the server knows it by.
        policy: how volumes and clips become pictures.
        confidence: ask for the log-probabilities of the answer's tokens.

    Raises:
        ValueError: the openai package is not installed, or the URL is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        options: EndpointOptions | None = None,
        *,
        policy: SlicePolicy | None = None,
        confidence: bool = False,
    ) -> None:
        self.options, self.policy = options or EndpointOptions(), policy or SlicePolicy()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of an endpoint; write endpoint:http://HOST:PORT/v1#MODEL_ID")
        if parts.username or parts.password:
            raise ValueError("the URL holds a password, which run.json would keep; put it into the key variable")
        if not model:
            raise ValueError(f"which model of {url}? Write endpoint:{url}#MODEL_ID")
        try:
            self._openai = import_module("openai")
        except ImportError as error:
            raise ValueError(
                f"endpoints are asked through the openai package, which is not installed: {INSTALL}"
            ) from error
        self.url, self.model, self.confidence = url, model, confidence
        self._away = threading.Event()
        # Pauses and their number are ours, so that each attempt is counted and an outage is told from a slow answer.
        self._client = client_of(
            self._openai, url, key_variable=self.options.key_variable, timeout_s=self.options.timeout_s
        )

    @property
    def name(self) -> str:
        return f"endpoint:{self.url}#{self.model}"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the answers: the policy of pictures and what else is in the body; not the speed of asking."""
        return {
            "slices": self.policy.to_dict(),
            "confidence": self.confidence,
            "extra": dict(self.options.extra or {}),
            "approved": list(self.options.approved),
        }

    def check_access(self, access: str | None) -> None:
        """Raise ValueError when data of ``access`` may not be sent there."""
        check_may_leave(access, self.url, self.options.approved)

    @property
    def concurrency(self) -> int:
        return self.options.concurrency

    def prepare(self, visual: Visual) -> tuple[Part, ...]:
        """Pictures and words, made while others are asked."""
        return show(visual, self.policy)

    def size(self, request: Request) -> tuple[int, ...]:
        """(visual tokens, tokens of text), both roughly: a picture counts as 256."""
        shown = [part for parts in request.visuals for part in parts]
        pictures = sum(isinstance(part, Picture) for part in shown)
        return 256 * pictures, (sum(len(turn.text) for turn in request.turns) + words_in(shown)) // 4

    def answer(self, requests: Sequence[Request]) -> list[Response | BadSample]:
        """One response per request, in order; a request that the server refuses for its content as BadSample.

        Raises:
            Interrupted: the server stayed away; it holds what was answered before.
        """
        self._away.clear()
        with ThreadPoolExecutor(max_workers=self.options.concurrency) as pool:
            futures = [pool.submit(self._ask, request) for request in requests]
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((future for future in futures if future.done() and future.exception() is not None), None)
            if failed is not None:
                for future in futures:
                    future.cancel()
                wait(futures)
        fault = next((f.exception() for f in futures if not f.cancelled() and f.exception() is not None), None)
        if fault is None:
            return [future.result() for future in futures]
        done = {place: future.result() for place, future in enumerate(futures) if _finished(future)}
        raise Interrupted(str(fault), answered=done) from fault

    def _ask(self, request: Request) -> Response | BadSample:
        body = {
            "model": self.model,
            "messages": messages_of(request),
            "max_completion_tokens" if _is_openai(self.url) else "max_tokens": request.max_new_tokens,
            "temperature": 0,
            "seed": 0,
            **({"logprobs": True} if self.confidence else {}),
        }
        began = time.monotonic()
        attempts = 0
        while True:
            attempts += 1
            try:
                given = self._client.chat.completions.create(**body, extra_body=dict(self.options.extra or {}))
                return self._response(given, time.monotonic() - began, attempts)
            except self._openai.APIStatusError as error:
                if error.status_code not in (408, 409, 425, 429) and error.status_code < 500:
                    return self._refused(request, error)
                self._pause(attempts, f"status {error.status_code}", _asked_to_wait(error), error)
            except self._openai.APITimeoutError as error:
                self._pause(attempts, f"no answer within {self.options.timeout_s:g} s", None, error)
            except self._openai.APIConnectionError as error:
                self._pause(attempts, "no connection", None, error)

    def _pause(self, attempts: int, why: str, asked: float | None, error: Exception) -> None:
        """Wait before the next attempt; ValueError when there were enough of them."""
        if attempts > self.options.retries or self._away.is_set():
            self._away.set()  # the others on their way need not find out for themselves
            raise ValueError(
                f"{self.url} does not answer ({why}, {attempts} times); what was answered is kept: give the same "
                "command again when the server is back"
            ) from error
        pause = min(self.options.longest_pause_s, 0.5 * 2 ** (attempts - 1))
        self._away.wait(pause if asked is None else min(asked, 10 * self.options.longest_pause_s))

    def _refused(self, request: Request, error: Any) -> BadSample:
        """A request that the server will never answer; ValueError where no other one will be answered either."""
        refuse_redirect(error, self.url)
        said = _message(error)
        if error.status_code in (401, 403):
            raise ValueError(
                f"{self.url} refuses the key in {self.options.key_variable} (status {error.status_code}): {said}"
            ) from error
        if error.status_code == 404:
            raise ValueError(f"{self.url} knows no model {self.model!r} or no chat completions: {said}") from error
        return BadSample(
            f"the server refuses it (status {error.status_code}): {said}",
            where=self.url,
            mend="ask with fewer slices (--slices) or a longer context of the server",
            sample_id=request.sample_id,
        )

    def _response(self, given: Any, seconds: float, attempts: int) -> Response:
        if not given.choices:
            raise ValueError(f"{self.url} gave an answer without choices; is it an OpenAI-compatible server?")
        choice = given.choices[0]
        usage = {"seconds": round(seconds, 4), "attempts": float(attempts)}
        if given.usage is not None:
            read, written = given.usage.prompt_tokens, given.usage.completion_tokens
            usage |= {"prompt_tokens": float(read), "new_tokens": float(written)}
            cost = (read * self.options.input_price + written * self.options.output_price) / 1e6
            usage |= {"cost": cost} if cost else {}
        # Servers that keep the thinking apart: it is no part of the answer, and its end need not be searched for.
        return Response(
            text=(choice.message.content or "").strip(),
            finish_reason="length" if choice.finish_reason == "length" else "stop",
            confidence=_confidence(choice) if self.confidence else None,
            usage=usage,
        )


def _finished(future: Future[Response | BadSample]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _is_openai(url: str) -> bool:
    """OpenAI's own server knows the newer name of the limit only; all others know the older one."""
    return urlsplit(url).hostname == "api.openai.com"


def _asked_to_wait(error: Any) -> float | None:
    """Seconds of the header Retry-After."""
    text = error.response.headers.get("retry-after", "")
    return float(text) if text.replace(".", "", 1).isdigit() else None


def _message(error: Any) -> str:
    """What the server says of a refusal, one line of it."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else body
    return " ".join(str(said or error.message).split())[:300]


def _confidence(choice: Any) -> float | None:
    """Product of the probabilities of the tokens of the answer; None where the server gives none."""
    tokens = None if choice.logprobs is None else choice.logprobs.content
    return math.exp(sum(token.logprob for token in tokens)) if tokens else None


def messages_of(request: Request) -> list[dict[str, Any]]:
    """The conversation as chat messages with pictures as data URLs (PNG), in their places."""
    return [
        {"role": role, "content": [_content(part) for part in parts]}
        for role, parts in spread(request.turns, request.visuals)
    ]


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = BytesIO()
    Pil.fromarray(part.rgb).save(data, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def endpoint_from(text: str) -> tuple[str, str]:
    """(url, model id) of URL#MODEL_ID.

    Raises:
        ValueError: there is no #.
    """
    url, mark, model = text.partition("#")
    if not mark or not model:
        raise ValueError(f"endpoint:{text}: which model? Write endpoint:{url or 'http://HOST:PORT/v1'}#MODEL_ID")
    return url, model
