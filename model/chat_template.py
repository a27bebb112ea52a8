"""Chat messages -> token ids and loss mask, by the tokenizer's own template, in one pass.

The template is rendered with a marker in the place of each message's content. What stands between the markers is
template text (its special tokens are parsed); what replaces a marker is user text (special tokens in it are plain
characters, so that no report can inject a placeholder or end a turn) or visual placeholders. Ids are concatenated
from these pieces, so that the loss mask is known without searching for separators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

_MARKER = re.compile("\u2042(\\d+)\u2042")


@dataclass(frozen=True, kw_only=True)
class TokenizedChat:
    """Attributes:
    tokens: L ids; a visual is a run of placeholder ids.
    supervised: L flags; True on the assistant's words and the end of its turn.
    """

    tokens: list[int]
    supervised: list[bool]


def tokenize_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, Any]],
    visual_tokens: Sequence[int],
    visual_token_id: int,
    end_ids: frozenset[int],
    add_generation_prompt: bool = False,
) -> TokenizedChat:
    """Tokenize ``messages`` whose content is text and visual parts.

    Args:
        messages: ``{"role", "content": [{"type": "text", "text"} | {"type": "image" | "volume" | "video"}]}``.
        visual_tokens: number of tokens of each visual, in the order of the parts.
        visual_token_id: the placeholder.
        end_ids: tokens that end an assistant turn; the first one after an answer is supervised.
        add_generation_prompt: end with the opening of an assistant turn.

    Raises:
        ValueError: counts differ, the template drops a message, or it never ends an assistant's turn.
    """
    bare = [{"role": m["role"], "content": f"\u2042{n}\u2042"} for n, m in enumerate(messages)]
    rendered = str(tokenizer.apply_chat_template(bare, tokenize=False, add_generation_prompt=add_generation_prompt))
    pieces = _MARKER.split(rendered)
    order = [int(number) for number in pieces[1::2]]
    if order != list(range(len(messages))):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path or type(tokenizer).__name__} rendered messages {order} of "
            f"{len(messages)}; it must show every message once and in order: set another chat_template"
        )
    counts = iter(visual_tokens)
    tokens = _template_ids(tokenizer, pieces[0])
    supervised = [False] * len(tokens)
    for message, after in zip(messages, pieces[2::2], strict=True):
        answer = message["role"] == "assistant"
        for ids in _content_ids(tokenizer, message["content"], counts, visual_token_id):
            tokens += ids
            supervised += [answer] * len(ids)
        following = _template_ids(tokenizer, after)
        tokens += following
        supervised += _end_of_turn_mask(tokenizer, following, after, end_ids) if answer else [False] * len(following)
    if next(counts, None) is not None:
        raise ValueError(f"{len(visual_tokens)} visuals were given, but the messages show fewer")
    return TokenizedChat(tokens=tokens, supervised=supervised)


def _template_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def _content_ids(
    tokenizer: PreTrainedTokenizerBase,
    content: str | list[dict[str, Any]],
    counts: Iterator[int],
    visual_token_id: int,
) -> Iterator[list[int]]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    after_text = False
    for part in parts:
        if part["type"] == "text":
            text = "\n" + part["text"] if after_text else part["text"]
            yield tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        else:
            count = next(counts, None)
            if count is None:
                raise ValueError("the messages show more visuals than were given")
            yield [visual_token_id] * count
        after_text = True


def _end_of_turn_mask(
    tokenizer: PreTrainedTokenizerBase, following: list[int], text: str, end_ids: frozenset[int]
) -> list[bool]:
    for index, token in enumerate(following):
        if token in end_ids:
            return [True] * (index + 1) + [False] * (len(following) - index - 1)
    names = tokenizer.convert_ids_to_tokens(sorted(end_ids))
    raise ValueError(
        f"the chat template follows an assistant turn with {text!r}, which holds no end-of-turn token {names}: the "
        "model would never learn to stop; set the tokenizer's eos_token to the one its template writes"
    )
