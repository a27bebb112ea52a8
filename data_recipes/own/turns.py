"""Messages of a row -> Turns: LLaVA's from and value, TRL's and OpenAI's role and content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.placeholders import PLACEHOLDER, Waiting, parts_of
from medvlm.data_recipes.sample import Part, Role, Turn, VisualRef

ROLES: dict[str, Role] = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
}  # fmt: skip
VISUAL_PARTS = ("image", "image_url", "video", "volume")

At = Callable[[Any, str], VisualRef]
"""Finds the visual that a content part names: (what it says, kind as it is called there)."""


def turns_of(messages: Any, waiting: Waiting, *, key: str, where: str, at: At) -> tuple[Turn, ...]:
    """The turns of a list of messages.

    Args:
        waiting: the visuals of the row, taken by placeholders and by parts without a path of their own.
        key: where the messages stand in the row, for complaints.

    Raises:
        BadSample: not a list of messages, an unknown role, an empty text, or a placeholder without a visual.
    """
    if not isinstance(messages, list) or not messages:
        raise BadSample(
            f"{key!r} must be a non-empty list of messages, got {_shape(messages)}", where=where, mend="write the turns"
        )
    return tuple(_turn(message, waiting, f"{key}[{number}]", where, at) for number, message in enumerate(messages))


def _shape(value: Any) -> str:
    return "an empty list" if value == [] else type(value).__name__


def _turn(message: Any, waiting: Waiting, path: str, where: str, at: At) -> Turn:
    if not isinstance(message, dict):
        raise BadSample(f"{path} must be an object, got {type(message).__name__}", where=where, mend="write an object")
    name = message.get("role", message.get("from"))
    if not isinstance(name, str) or name not in ROLES:
        raise BadSample(
            f"{path} has the unknown role {name!r}", where=where, mend=f"use one of {', '.join(ROLES)}, or drop the row"
        )
    content = message.get("content", message.get("value"))
    parts = _parts(content, waiting, path, where, at)
    if not any(isinstance(part, str) for part in parts):
        what = "answer" if ROLES[name] == "assistant" else "text"
        raise BadSample(f"{path}: the {what} is empty", where=where, mend=f"fill in the {what} or drop the row")
    return Turn(role=ROLES[name], content=tuple(parts))


def _parts(content: Any, waiting: Waiting, path: str, where: str, at: At) -> list[Part]:
    if content is None or isinstance(content, str):
        return parts_of(content or "", waiting)
    if not isinstance(content, list):
        raise BadSample(
            f"{path}: the content must be text or a list of parts, got {type(content).__name__}",
            where=where,
            mend="write text",
        )
    parts: list[Part] = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            parts += parts_of(str(part.get("text") or ""), waiting)
        elif kind in VISUAL_PARTS:
            named = next((part[k] for k in (kind, "path", "url") if part.get(k) is not None), None)
            placeholder = "video" if kind == "video" else "image"
            parts.append(waiting.take(placeholder) if named is None else at(named, placeholder))
        else:
            raise BadSample(
                f"{path}.content[{number}] is of type {kind!r}",
                where=where,
                mend=f"use text, {', '.join(VISUAL_PARTS)}",
            )
    return parts


def rest_first(turns: Sequence[Turn], waiting: Waiting) -> tuple[Turn, ...]:
    """The visuals that no placeholder took, before the text of the first user turn.

    This is what TRL does with a row of ``images`` and plain text (trl.data_utils.prepare_multimodal_messages).
    """
    if not len(waiting):
        return tuple(turns)
    first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return tuple(turns)
    shown = Turn(role="user", content=(*waiting.rest(), *turns[first].content))
    return (*turns[:first], shown, *turns[first + 1 :])


def has_placeholder(text: str) -> bool:
    return PLACEHOLDER.search(text) is not None
