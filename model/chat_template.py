"""Chat messages -> token ids and loss mask, by the tokenizer's own template, in one pass.

The template is rendered with a marker in the place of each message's content; then the contents are put in, each
visual as ONE placeholder token, and the whole string is tokenized at once. The ids are therefore those of the library's
own ``apply_chat_template(tokenize=True)`` (no break between "[INST] " and the first word, no second beginning-of-text
token), and the loss mask follows from character offsets, without searching for separators. Special tokens inside user
text are plain characters, so that no report can inject a placeholder or end a turn.

What templates of the families were seen to do, and what is done about it: they trim contents (Llama 3, Gemma: so do
we), refuse a system message or move it (Gemma 1 and 2, Mistral: its text goes before the first user turn), and open
the training answer otherwise than the prompt (Qwen3 writes an empty thought: the prompt is then opened as in training).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

_EDGE = "\u2003"
"""White space that no template writes itself: where it is gone after rendering, the template trims contents."""
_MARKER = re.compile(f"({_EDGE}?)\u2042(\\d+)\u2042({_EDGE}?)")


@dataclass(frozen=True, kw_only=True)
class TokenizedChat:
    """Attributes:
    tokens: L ids; a visual is a run of placeholder ids.
    supervised: L flags; True on the assistant's words and the end of its turn.
    """

    tokens: list[int]
    supervised: list[bool]


def require_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError with the mend when ``tokenizer`` has no chat template, or is not a fast one."""
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer {name} has no chat template (base models often have none); name one in the training "
            "config: model.tokenizer.chat_template: chatml, or the path of a .jinja file"
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer {name} is a slow one, which cannot tell which characters a token covers; convert it to "
            "a tokenizer.json (AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(...))"
        )


@lru_cache(maxsize=8)
def _end_of_turn_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> frozenset[int]:
    del template  # only so that another template asks anew
    turns = [{"role": "user", "content": "\u20420\u2042"}, {"role": "assistant", "content": "\u20421\u2042"}]
    after = _MARKER.split(_apply(tokenizer, turns))[-1]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    first = next((token for token in ids if token in special), None)
    return frozenset(int(token) for token in (first, tokenizer.eos_token_id) if token is not None)


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids at which generation must stop: what the template writes after an assistant's turn, and the tokenizer's eos.

    The two differ in several families: Gemma ends a turn by <end_of_turn> and Phi-3 by <|end|>, while their eos
    ends a document.

    Raises:
        ValueError: no chat template.
    """
    require_chat_template(tokenizer)
    return _end_of_turn_ids(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=8)
def _blanks_of_answer(tokenizer: PreTrainedTokenizerBase, template: str) -> int:
    """White space that the template writes before an answer but not at the end of a prompt: the answer's to write.

    Mistral trains on "[/INST] yes" and asks by "[/INST]".
    """
    del template
    trained = _pieces(tokenizer, ["user", "assistant"])[-5]
    prompt = _pieces(tokenizer, ["user"], True)[-1]
    return max(0, len(trained) - len(prompt)) if trained.rstrip() == prompt.rstrip() else 0


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
        ValueError: counts differ, no template, the template drops a message, or it never ends an assistant's turn.
    """
    require_chat_template(tokenizer)
    messages, pieces = _render(tokenizer, list(messages), add_generation_prompt)
    contents = [
        _content(message["content"], trims_left=not left, trims_right=not right)
        for message, left, right in zip(messages, pieces[1::4], pieces[3::4], strict=True)
    ]
    shown = sum(part is None for content in contents for part in content)
    if shown > len(visual_tokens):
        raise ValueError(f"the messages show more visuals than were given: {shown}, not {len(visual_tokens)}")
    if shown < len(visual_tokens):
        raise ValueError(f"{len(visual_tokens)} visuals were given, but the messages show fewer: {shown}")
    text = _Text(tokenizer, visual_token_id)
    spans = []
    text.template(pieces[0])
    for content, after in zip(contents, pieces[4::4], strict=True):
        start = text.length
        for part in content:
            text.visual() if part is None else text.content(part)
        spans.append((start, text.length))
        text.template(after)
    ids, offsets = text.tokenize()
    blanks = _blanks_of_answer(tokenizer, str(tokenizer.chat_template))
    supervised = [False] * len(ids)
    for number, (message, (start, stop)) in enumerate(zip(messages, spans, strict=True)):
        if message["role"] == "assistant":
            limit = spans[number + 1][0] if number + 1 < len(spans) else text.length
            first, last = _answer_tokens(
                tokenizer, ids, offsets, (start - blanks, stop, limit), pieces[4::4][number], end_ids
            )
            supervised[first:last] = [True] * (last - first)
    return _expand(ids, supervised, iter(visual_tokens), visual_token_id)


class _Text:
    """The conversation as one string. User text that spells a special token is kept apart, to be tokenized as text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, visual_token_id: int) -> None:
        self.tokenizer = tokenizer
        self.placeholder = str(tokenizer.convert_ids_to_tokens(visual_token_id))
        self.special = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]
        self.runs: list[tuple[bool, str]] = [(True, "")]
        self.length = 0

    def _add(self, parse: bool, text: str) -> None:
        if parse == self.runs[-1][0]:
            self.runs[-1] = (parse, self.runs[-1][1] + text)
        else:
            self.runs.append((parse, text))
        self.length += len(text)

    def template(self, text: str) -> None:
        """Text in which special tokens are what they look like."""
        self._add(True, text)

    def visual(self) -> None:
        """One placeholder."""
        self._add(True, self.placeholder)

    def content(self, text: str) -> None:
        """Text of a user or an assistant."""
        self._add(not any(token in text for token in self.special), text)

    def tokenize(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and the characters that each covers."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        base = 0
        for parse, text in self.runs:
            if text:
                made = self.tokenizer(
                    text, add_special_tokens=False, split_special_tokens=not parse, return_offsets_mapping=True
                )
                ids += made["input_ids"]
                offsets += [(base + start, base + stop) for start, stop in made["offset_mapping"]]
            base += len(text)
        return ids, offsets


def _apply(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], prompt: bool = False) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))


def _pieces(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], prompt: bool = False) -> list[str]:
    """Template text and markers: [text, edge, number, edge, text, edge, ...]; contents are single edged markers."""
    return list(_pieces_of(tokenizer, str(tokenizer.chat_template), tuple(roles), prompt))


@lru_cache(maxsize=256)
def _pieces_of(
    tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[str, ...], prompt: bool
) -> tuple[str, ...]:
    # Most samples of a set have the same few roles, and rendering a template costs as much as tokenizing a question.
    del template  # only so that another template asks anew
    turns = [{"role": role, "content": f"{_EDGE}\u2042{n}\u2042{_EDGE}"} for n, role in enumerate(roles)]
    return tuple(_MARKER.split(_apply(tokenizer, turns, prompt)))


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], add_generation_prompt: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """The messages (a system message folded in where the template has no place for it) and the template's pieces."""
    problem: TemplateError | None = None
    pieces: list[str] = []
    for tried in [messages, *([_without_system(messages)] if messages and messages[0]["role"] == "system" else [])]:
        roles = [message["role"] for message in tried]
        try:
            pieces = _pieces(tokenizer, roles, add_generation_prompt)
        except TemplateError as error:
            problem = error
            continue
        if [int(number) for number in pieces[2::4]] == list(range(len(tried))):
            if add_generation_prompt and roles and roles[-1] == "user":
                pieces[-1] = _opening(tokenizer, roles, pieces[-1])
            return tried, pieces
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if problem is not None:
        raise ValueError(
            f"the chat template of {name} refuses messages of roles {[m['role'] for m in messages]}: {problem}; mend "
            "the order of turns, or set another chat_template"
        ) from problem
    raise ValueError(
        f"the chat template of {name} rendered messages {[int(number) for number in pieces[2::4]]} of {len(messages)}; "
        "it must show every message once and in order: set another chat_template"
    )


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The system text as the beginning of the first user turn: what Mistral and Gemma do themselves."""
    system, *rest = messages
    if not rest or rest[0]["role"] != "user":
        return messages
    parts = [{"type": "text", "text": f"{part}\n"} for part in _content(system["content"]) if part is not None]
    return [{**rest[0], "content": [*parts, *_parts(rest[0]["content"])]}, *rest[1:]]


def _opening(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], prompt: str) -> str:
    """What stands before an answer in training; ``prompt`` when they differ in white space at their end only."""
    trained = _pieces(tokenizer, [*roles, "assistant"])[-5]
    return prompt if trained.rstrip() == prompt.rstrip() else trained


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(
    content: str | list[dict[str, Any]], *, trims_left: bool = False, trims_right: bool = False
) -> list[str | None]:
    """Text of each part, None for a visual; a text after another part begins on a new line."""
    texts: list[str | None] = []
    for part in _parts(content):
        if part["type"] == "text":
            texts.append("\n" + part["text"] if texts else part["text"])
        else:
            texts.append(None)
    if trims_left and texts and texts[0] is not None:
        texts[0] = texts[0].lstrip()
    if trims_right and texts and texts[-1] is not None:
        texts[-1] = texts[-1].rstrip()
    return texts


def _answer_tokens(
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    offsets: list[tuple[int, int]],
    place: tuple[int, int, int],
    after: str,
    end_ids: frozenset[int],
) -> tuple[int, int]:
    """First and one past the last token of an answer with its end of turn.

    Args:
        place: characters where the answer starts and stops, and where the next message starts.
        after: the template's text behind it, for the message.
    """
    start, stop, limit = place
    # Phi-3's turn tokens swallow the white space behind them, also that of an answer.
    inside = [n for n, (left, right) in enumerate(offsets) if left < stop and (left >= start or left < start < right)]
    if inside and offsets[inside[0]][0] < start and ids[inside[0]] in tokenizer.added_tokens_decoder:
        inside = inside[1:]
    for n, (left, _) in enumerate(offsets):
        if stop <= left < limit and ids[n] in end_ids:
            if inside:
                return inside[0], n + 1
            return next(m for m, (left, _) in enumerate(offsets) if left >= start), n + 1
    names = tokenizer.convert_ids_to_tokens(sorted(end_ids))
    raise ValueError(
        f"the chat template follows an assistant turn with {after!r}, which holds no end-of-turn token {names}: the "
        "model would never learn to stop; set the tokenizer's eos_token to the one its template writes"
    )


def _expand(ids: list[int], supervised: list[bool], counts: Iterator[int], visual_token_id: int) -> TokenizedChat:
    """Each placeholder repeated as often as its visual has tokens."""
    tokens: list[int] = []
    flags: list[bool] = []
    for token, flag in zip(ids, supervised, strict=True):
        times = next(counts) if token == visual_token_id else 1
        tokens += [token] * times
        flags += [flag] * times
    return TokenizedChat(tokens=tokens, supervised=flags)
