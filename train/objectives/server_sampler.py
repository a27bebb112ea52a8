"""Who writes the answers that a stage learns from: an OpenAI-compatible server, such as vLLM's."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image as Pil

from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Turn, VisualRef
from medvlm.model.intensity import IntensityRule, picture_channels
from medvlm.model.loading import Processor
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.visual import Image
from medvlm.train.engine import Engine
from medvlm.train.objectives.rollouts import Answer, Prompt
from medvlm.train.objectives.sampler import answer_of, numbered
from medvlm.train.settings.reinforcement import ReinforcementConfig

KEY = "MEDVLM_SERVER_KEY"
"""Environment variable with the key of the server, if it asks for one; never in a configuration or a log."""

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_REQUESTS_AT_ONCE = 16


class ServerSampler:
    """Asks ``/chat/completions`` with each image as base64 PNG and takes the token ids that were sampled.

    Whose weights write: those that the server holds. It does not follow the training; load a newer checkpoint into it
    to keep it near (docs/reinforcement.md). Old log-probabilities are our own model's, computed anew.

    Args:
        seed: of the stage.
        root: that relative paths of visuals start from.
    """

    def __init__(self, config: ReinforcementConfig, processor: Processor, seed: int, root: Path) -> None:
        assert config.server is not None
        self.config, self.processor, self.seed, self.root = config, processor, seed, root
        self.url = config.server.rstrip("/") + "/chat/completions"

    def write(self, engine: Engine, prompts: Sequence[Prompt], step: int) -> list[list[Answer]]:
        """See ``Sampler``.

        Raises:
            ConnectionError: no answer after all retries.
            ValueError: the server refuses a request, or answers without token ids or with those of another tokenizer.
        """
        del engine
        names = [f"{self.seed}/{step}/{name}" for name in numbered(prompts)]
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            return list(pool.map(self._group, prompts, names))

    def _group(self, prompt: Prompt, name: str) -> list[Answer]:
        digest = hashlib.sha256(name.encode()).digest()
        reply = self._post(
            {
                "model": self.config.server_model,
                "messages": [self._message(turn) for turn in prompt.asked.turns],
                "n": self.config.group_size,
                "max_tokens": self.config.max_new_tokens,
                "temperature": self.config.temperature,
                "top_p": 1.0,
                "seed": int.from_bytes(digest[:4], "big") >> 1,
                "return_token_ids": True,
            }
        )
        choices = reply.get("choices")
        if not isinstance(choices, list) or len(choices) != self.config.group_size:
            found = len(choices) if isinstance(choices, list) else "no"
            self._refuse(f"{found} answers instead of {self.config.group_size}", "use a server that knows 'n'")
        return [self._answer(choice) for choice in choices]

    def _answer(self, choice: Any) -> Answer:
        ids = choice.get("token_ids") if isinstance(choice, dict) else None
        if not isinstance(ids, list) or not ids or not all(isinstance(one, int) for one in ids):
            self._refuse(
                "an answer without token_ids: text that is tokenized anew is not what was sampled",
                "use vLLM 0.10.2 or later, which knows return_token_ids",
            )
        message = choice.get("message")
        told = message.get("content") if isinstance(message, dict) else None
        ends = sorted(self.processor.end_ids)
        answer = answer_of(np.asarray(ids, np.int64), self.processor, ends)
        if isinstance(told, str) and told.strip() != answer.text and choice.get("finish_reason") == "stop":
            self._refuse(
                f"token_ids that our tokenizer reads as {answer.text!r:.60}, and the text {told.strip()!r:.60}",
                "serve the checkpoint that this stage starts from: its tokenizer is another",
            )
        if answer.cut_off and choice.get("finish_reason") == "stop":
            # The server took the end of the turn off: which one it was, nobody can tell.
            return Answer(tokens=answer.tokens, text=answer.text, cut_off=False)
        return answer

    def _message(self, turn: Turn) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        for part in turn.content:
            if isinstance(part, str):
                parts.append({"type": "text", "text": part})
            else:
                url = "data:image/png;base64," + base64.b64encode(self._png(part)).decode("ascii")
                parts.append({"type": "image_url", "image_url": {"url": url}})
        return {"role": turn.role, "content": parts}

    def _png(self, ref: VisualRef) -> bytes:
        visual = read(ref, self.root)
        if not isinstance(visual, Image):
            self._refuse(f"no {ref.kind}s: {ref.path}", "remove reinforcement.server, or leave the sample out")
        rule = IntensityRule.from_dict({})
        if isinstance(self.processor, MedVLMProcessor):
            rule = IntensityRule.from_dict(self.processor.intensity)
        channels = picture_channels(visual, rule)  # (C, H, W)
        pixels = (channels.clip(0, 1) * 255).round().astype(np.uint8)
        picture = Pil.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        return buffer.getvalue()

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        problem = ""
        for attempt in range(self.config.server_retries + 1):
            if attempt:
                time.sleep(min(_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S))
            request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=self.config.server_timeout_s) as response:
                    reply = json.loads(response.read())
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}: {error.read(400).decode(errors='replace')}"
                if error.code not in _AGAIN:
                    self._refuse(problem, "see the server's log; its context must hold prompt and answer")
                continue
            except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
                problem = str(error) or type(error).__name__
                continue
            except ValueError:
                self._refuse("a reply that is not JSON", "check the URL of reinforcement.server: it ends in /v1")
            if not isinstance(reply, dict):
                self._refuse("a reply that is no object", "check the URL of reinforcement.server: it ends in /v1")
            return reply
        raise ConnectionError(
            f"{self.url} gave no answer in {self.config.server_retries + 1} tries ({problem}); start the server, or "
            "raise reinforcement.server_timeout_s or server_retries: the training goes on from its last saved state"
        )

    def _refuse(self, what: str, mend: str) -> NoReturn:
        raise ValueError(f"the server {self.url} gave {what}; {mend}")
