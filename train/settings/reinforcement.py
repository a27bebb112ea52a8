"""ReinforcementConfig: how a stage learns from answers that it writes itself and a rule that marks them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from medvlm.data_recipes.typed_yaml import nearest
from medvlm.train.settings.checks import aside, check_range, later, refuse

RewardName = Literal["answer", "choice", "exact", "short_answer", "findings", "box", "format", "brevity"]


@dataclass(frozen=True, kw_only=True)
class ReinforcementConfig:
    """Reinforcement learning with verifiable rewards.

    Attributes:
        group_size: answers written for each prompt; their rewards are compared with one another.
        max_new_tokens: longest answer.
        temperature: of the sampling; the probabilities of the loss are those of the same temperature.
        beta: weight of the divergence from the reference, which is the model with its adapters off; 0: none.
        algorithm: "grpo" (Shao et al. 2024, arXiv:2402.03300: a mean over answers of means over their tokens), "dapo"
            (Yu et al. 2025, arXiv:2503.14476: a mean over tokens; a wider clip upwards; groups whose answers are all
            worth the same are left out), "dr_grpo" (Liu et al. 2025, arXiv:2503.20783: rewards are not divided by their
            deviation, and answers are divided by ``max_new_tokens`` instead of their length).
        rewards: name of a reward -> its weight.
        clip_low, clip_high: how far the ratio of new to old probability counts below and above 1. ``clip_high`` None:
            0.28 for dapo, as in its paper, and ``clip_low`` for the others.
        updates: optimizer steps on the answers of one step (mu in the paper); with 1 nothing is ever clipped.
        overlong_buffer: of ``max_new_tokens``, the last so many cost: the reward falls linearly by up to 1 over them
            (DAPO's soft punishment); 0: none.
        thinking: what the reward "format" asks for: "<think>...</think><answer>...</answer>", or the answer tag alone.
        prompts_at_once: prompts whose groups are written as one batch.
        server: URL of an OpenAI-compatible server of the same model, such as vLLM's, that writes the answers; None: the
            model itself does.
        server_model: its name there.
        server_timeout_s, server_retries: seconds until a request is given up, and how often it is sent again.
        rollouts_kept: prompts of each step whose answers are written to rollouts.jsonl.
    """

    group_size: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    beta: float = 0.0
    algorithm: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    rewards: dict[str, float] = field(default_factory=lambda: {"answer": 1.0})
    clip_low: float = later(0.2)
    clip_high: float | None = later(None)
    updates: int = later(1)
    overlong_buffer: int = later(0)
    thinking: bool = later(True)
    prompts_at_once: int = later(8)
    server: str | None = later(None)
    server_model: str | None = later(None)
    server_timeout_s: float = aside(300.0)
    server_retries: int = aside(4)
    rollouts_kept: int = aside(2)

    def __post_init__(self) -> None:
        check_range("group_size", self.group_size, 2)
        check_range("max_new_tokens", self.max_new_tokens, 1)
        check_range("beta", self.beta, 0)
        check_range("clip_low", self.clip_low, 0, 1)
        check_range("clip_high", self.highest_gain, 0)
        check_range("updates", self.updates, 1)
        check_range("overlong_buffer", self.overlong_buffer, 0, self.max_new_tokens)
        check_range("prompts_at_once", self.prompts_at_once, 1)
        check_range("server_retries", self.server_retries, 0)
        check_range("rollouts_kept", self.rollouts_kept, 0)
        if not 0 < self.temperature < math.inf:
            refuse(f"temperature is {self.temperature:g}", "use a number above 0, such as 1")
        if not 0 < self.server_timeout_s < math.inf:
            refuse(f"server_timeout_s is {self.server_timeout_s:g}", "use a number of seconds above 0")
        self._check_rewards()
        self._check_server()

    @property
    def highest_gain(self) -> float:
        """``clip_high``, or what stands for it."""
        if self.clip_high is not None:
            return self.clip_high
        return 0.28 if self.algorithm == "dapo" else self.clip_low

    def _check_rewards(self) -> None:
        known = get_args(RewardName)
        for name, weight in self.rewards.items():
            if name not in known:
                refuse(f"unknown reward {name!r}{nearest(name, known)}", f"use {', '.join(known)}")
            if not 0 < weight < math.inf:
                refuse(f"the weight of reward {name!r} is {weight:g}", "use a number above 0, or remove the reward")
        if not self.rewards:
            refuse("there are no rewards", "name some, such as `rewards: {answer: 1.0}`")

    def _check_server(self) -> None:
        if self.server is None:
            if self.server_model is not None:
                refuse("server_model is set, but there is no server", "set server, or remove server_model")
            return
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            refuse(f"server is {self.server!r}", "write a URL such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            refuse("the URL of the server holds credentials or a query", "set the variable MEDVLM_SERVER_KEY instead")
        if self.server_model is None:
            refuse("server is set without server_model", "name the model as the server does (GET /v1/models lists it)")
