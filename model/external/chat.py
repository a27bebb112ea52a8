"""Chat messages -> token ids and loss mask by a family's own template, with the family's text around each picture.

As in ``chat_template``: the template is rendered once, with a marker in the place of each text. Between the markers
stands template text, whose special tokens are parsed and whose picture marks are replaced by what the family writes;
what replaces a marker is user text, in which special tokens are plain characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

_MARKER = re.compile("\u2042(\\d+)\u2042")


@dataclass(frozen=True, kw_only=True)
class ShownVisual:
    """One visual as parts of a message.

    Attributes:
        clip: it is one clip; else as many images as ``written`` has.
        written: the text of each picture, with placeholders and special tokens.
        captions: text before each picture; empty for none.
    """

    clip: bool
    written: list[str]
    captions: list[str]


@dataclass(frozen=True, kw_only=True)
class FamilyChat:
    """Attributes:
    tokens: L ids.
    supervised: L flags; True on the assistant's words and the end of its turn.
    order: visuals in the order of their placeholders: a template may put images before clips.
    """

    tokens: list[int]
    supervised: list[bool]
    order: list[int]


def tokenize_family_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, Any]],
    visuals: Sequence[ShownVisual],
    marks: tuple[str, str | None],
    add_generation_prompt: bool = False,
) -> FamilyChat:
    """Tokenize ``messages`` whose visual parts are ``visuals``, in their order.

    White space around a text is dropped (some templates do it, none needs it); successive texts are joined by a line
    break.

    Args:
        marks: what the template writes for an image and for a clip.

    Raises:
        ValueError: no chat template, counts differ, the template drops or moves a text, or it never ends an
            assistant's turn.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path or 'this checkpoint'} has no chat template; put the family's "
            "chat_template.jinja into the folder (its instruct checkpoints have one)"
        )
    structured, texts, owners, parts = _structured(messages, visuals)
    rendered = str(
        tokenizer.apply_chat_template(structured, tokenize=False, add_generation_prompt=add_generation_prompt)
    )
    pieces = _MARKER.split(rendered)
    found = [int(number) for number in pieces[1::2]]
    if found != list(range(len(texts))):
        raise ValueError(
            f"the chat template rendered texts {found} of {len(texts)}; it must show every text once and in order: set "
            "another chat_template"
        )
    filler = _Filler(visuals, parts, marks)
    last_of = {owner: number for number, owner in enumerate(owners)}
    tokens = _ids(tokenizer, filler(pieces[0]))
    supervised = [False] * len(tokens)
    for number, (text, after) in enumerate(zip(texts, pieces[2::2], strict=True)):
        owner = owners[number]
        answer = messages[owner]["role"] == "assistant"
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        following = _ids(tokenizer, filler(after))
        tokens += [*ids, *following]
        supervised += [answer] * len(ids)
        ends = _through_end_of_turn(tokenizer, following, after) if answer and last_of[owner] == number else 0
        supervised += [True] * ends + [False] * (len(following) - ends)
    filler.check_done()
    return FamilyChat(tokens=tokens, supervised=supervised, order=filler.order)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the template writes after an assistant's words.

    Raises:
        ValueError: no chat template, or it writes none.
    """
    question = {"role": "user", "content": [{"type": "text", "text": "-"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "-"}]}
    chat = tokenize_family_chat(tokenizer, [question, answer], [], ("\0", None))
    return chat.tokens[max(index for index, flag in enumerate(chat.supervised) if flag)]


def _structured(
    messages: Sequence[dict[str, Any]], visuals: Sequence[ShownVisual]
) -> tuple[list[dict[str, Any]], list[str], list[int], list[tuple[int, int]]]:
    """Messages with markers for texts; the texts; the message of each; and (visual, picture) of each visual part."""
    left = iter(range(len(visuals)))
    texts: list[str] = []
    owners: list[int] = []
    parts: list[tuple[int, int]] = []
    structured: list[dict[str, Any]] = []
    for owner, message in enumerate(messages):
        content: list[dict[str, Any]] = []

        def say(text: str, owner: int = owner, content: list[dict[str, Any]] = content) -> None:
            if content and content[-1]["type"] == "text":
                texts[-1] += "\n" + text.strip()
                return
            content.append({"type": "text", "text": f"\u2042{len(texts)}\u2042"})
            texts.append(text.strip())
            owners.append(owner)

        given = message["content"]
        for part in [{"type": "text", "text": given}] if isinstance(given, str) else given:
            if part["type"] == "text":
                say(part["text"])
                continue
            index = next(left, None)
            if index is None:
                raise ValueError("the messages show more visuals than were given")
            shown = visuals[index]
            for picture in range(len(shown.written)):
                if shown.captions:
                    say(shown.captions[picture])
                content.append({"type": "video" if shown.clip else "image"})
                parts.append((index, picture))
        structured.append({"role": message["role"], "content": content})
    if next(left, None) is not None:
        raise ValueError(f"{len(visuals)} visuals were given, but the messages show fewer")
    return structured, texts, owners, parts


class _Filler:
    """Replaces the picture marks of template text, in turn, and notes the order of the visuals."""

    def __init__(
        self, visuals: Sequence[ShownVisual], parts: Sequence[tuple[int, int]], marks: tuple[str, str | None]
    ) -> None:
        self.visuals, (self.image, self.clip) = visuals, marks
        self.left = {clip: [p for p in parts if visuals[p[0]].clip == clip] for clip in (False, True)}
        self.order: list[int] = []
        names = [re.escape(mark) for mark in (self.clip, self.image) if mark]
        self.pattern = re.compile("|".join(names))

    def __call__(self, text: str) -> str:
        return self.pattern.sub(self._next, text)

    def _next(self, match: re.Match[str]) -> str:
        waiting = self.left[match.group() == self.clip]
        if not waiting:
            raise ValueError(f"the chat template writes {match.group()!r} more often than there are visuals")
        index, picture = waiting.pop(0)
        if index not in self.order:
            self.order.append(index)
        return self.visuals[index].written[picture]

    def check_done(self) -> None:
        missing = sum(len(waiting) for waiting in self.left.values())
        if missing:
            raise ValueError(
                f"the chat template does not show {missing} pictures: it must write {self.image!r}"
                f"{f' and {self.clip!r}' if self.clip else ''} for visual parts; use the family's own template"
            )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def _through_end_of_turn(tokenizer: PreTrainedTokenizerBase, following: list[int], text: str) -> int:
    """How many tokens of ``following`` belong to the turn: up to its first special token, inclusive."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    for count, token in enumerate(following, 1):
        if token in special:
            return count
    raise ValueError(
        f"the chat template follows an assistant turn with {text!r}, which holds no special token: the model would "
        "never learn to stop; use the family's own template"
    )
