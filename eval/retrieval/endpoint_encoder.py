"""Embeddings from an OpenAI-compatible server: POST /v1/embeddings, in batches, asked again after an outage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from urllib.parse import urlsplit

import numpy as np

from medvlm.eval.endpoint import INSTALL, EndpointOptions
from medvlm.eval.endpoint_client import client_of, refuse_redirect
from medvlm.eval.governance import check_may_leave
from medvlm.eval.retrieval.corpus import Passage
from medvlm.eval.retrieval.encoders import Role

_PASSING = (408, 409, 425, 429)


class EndpointEncoder:
    """A text encoder behind ``url``.

    Args:
        access: of the data, see task.Access; None: own data. What is not open goes to approved hosts only.
        max_characters: of a text, the rest is cut off and counted; None: the server refuses what is too long.

    Raises:
        ValueError: the openai package is missing, the URL is none or holds a password, the data may not be sent there.
    """

    reads_images = False

    def __init__(
        self,
        url: str,
        model: str,
        options: EndpointOptions,
        *,
        access: str | None,
        query_prefix: str = "",
        document_prefix: str = "",
        max_characters: int | None = None,
        batch: int = 32,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError(
                f"write endpoint:http://HOST:PORT/v1#MODEL_ID, without a password; got host {parts.hostname}"
            )
        check_may_leave(access, url, options.approved)
        try:
            self._openai = import_module("openai")
        except ImportError as error:
            raise ValueError(f"endpoints are asked through the openai package, not installed: {INSTALL}") from error
        self._client = client_of(self._openai, url, key_variable=options.key_variable, timeout_s=options.timeout_s)
        self._url, self._model, self._options = url, model, options
        self._prefix = {"queries": query_prefix, "corpus": document_prefix}
        self._longest, self.batch = max_characters, batch
        self.name = f"endpoint:{url}#{model}"
        self.settings = {
            "query_prefix": query_prefix, "document_prefix": document_prefix, "max_characters": max_characters,
            "approved": list(options.approved),
        }  # fmt: skip

    def embed(self, passages: Sequence[Passage], role: Role) -> np.ndarray:
        texts = [self._prefix[role] + passage.text for passage in passages]
        texts = [text[: self._longest] for text in texts]
        attempts = 0
        while True:
            attempts += 1
            try:
                given = self._client.embeddings.create(model=self._model, input=texts, encoding_format="float")
                break
            except self._openai.APIStatusError as error:
                refuse_redirect(error, self._url)
                if error.status_code not in _PASSING and error.status_code < 500:
                    raise ValueError(
                        f"{self._url} refuses a batch of {len(texts)} texts from {passages[0].name!r} on (status "
                        f"{error.status_code}): {_said(error)}; if they are too long, give --max-characters"
                    ) from error
                self._pause(attempts, f"status {error.status_code}", error)
            except self._openai.APIConnectionError as error:
                self._pause(attempts, "no connection or no answer in time", error)
        rows = sorted(given.data, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise ValueError(f"{self._url} gave {len(rows)} vectors for {len(texts)} texts")
        return np.asarray([row.embedding for row in rows], dtype=np.float32)

    def cut(self, passages: Sequence[Passage], role: Role) -> int:
        longest = float("inf") if self._longest is None else self._longest
        return sum(len(self._prefix[role] + passage.text) > longest for passage in passages)

    def _pause(self, attempts: int, why: str, error: Exception) -> None:
        if attempts > self._options.retries:
            raise ValueError(
                f"{self._url} does not answer ({why}, {attempts} times); what was embedded is kept: give the same "
                "command again when the server is back"
            ) from error
        time.sleep(min(self._options.longest_pause_s, 0.5 * 2 ** (attempts - 1)))


def _said(error: object) -> str:
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else body
    return " ".join(str(said or error).split())[:300]
