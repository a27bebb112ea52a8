"""Where a model's thinking ends and its answer begins: the marks of the families that write both into one text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TAGS = "think|thinking|thought|reasoning|seed:think"
_OPENS = (
    rf"<(?:{_TAGS})>",  # DeepSeek-R1, Qwen3, GLM; Seed-OSS
    r"◁think▷",  # Kimi-VL
    r"\[THINK\]",  # Magistral
    r"<unused94>(?:thought\b)?",  # MedGemma
    r"<\|begin_of_thought\|>",
    r"<\|channel\|>\s*(?:analysis|commentary)\b[^<]{0,80}<\|message\|>",  # gpt-oss
)
_CLOSES = (
    rf"</(?:{_TAGS})>",
    r"◁/think▷",
    r"\[/THINK\]",
    r"<unused95>",
    r"<\|end_of_thought\|>",
    r"<\|channel\|>\s*final\b[^<]{0,80}<\|message\|>",
)
_MARK = re.compile(rf"(?P<opens>{'|'.join(_OPENS)})|(?P<closes>{'|'.join(_CLOSES)})", re.IGNORECASE)
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z])")
_BARE_FINAL = "assistantfinal"
"""What is left of the channels of gpt-oss where special tokens are left out of the text."""


def visible_answer(text: str) -> str | None:
    """``text`` without its thinking; None when the answer was cut off while still thinking.

    The end of thinking that was never begun ends thinking that the prompt has opened: all before it is thinking.
    Linear in the length of the text.
    """
    if _BARE_ANALYSIS.match(text):
        _, found, text = text.rpartition(_BARE_FINAL)
        return text.strip() if found else None
    kept: list[str] = []
    place, thinking = 0, False
    for mark in _MARK.finditer(text):
        if mark["opens"] is not None:
            if not thinking:
                kept.append(text[place : mark.start()])
            thinking = True
            continue
        if not thinking:
            kept.clear()
        place, thinking = mark.end(), False
    return None if thinking else " ".join([*kept, text[place:]]).strip()


_ANSWER = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{(?:\s*\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}|([^{}]*))")


def marked_answer(answer: str) -> str | None:
    r"""What stands last in an <answer> tag, or else in \boxed{}; None where there is none.

    A tag that is never closed holds all that follows: its end is often what a server stops at.
    """
    tagged = list(_in_tags(answer))
    if tagged:
        return tagged[-1].strip()
    boxed = [one[1] or one[2] or "" for one in _BOXED.finditer(answer) if answer[one.end() : one.end() + 1] == "}"]
    return boxed[-1].strip() if boxed else None


def _in_tags(answer: str) -> Iterator[str]:
    start: int | None = None
    closed = False
    for tag in _ANSWER.finditer(answer):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            yield answer[start : tag.start()]
            start, closed = None, True
    if start is not None and not closed:
        yield answer[start:]
