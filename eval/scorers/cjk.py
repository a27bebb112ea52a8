"""Chinese, Japanese and Korean text has no blanks between words: each of its characters counts as one."""

from __future__ import annotations

import re

_CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_CHARACTER = re.compile(f"[{_CHARACTERS}]")
_PUNCTUATION = re.compile("[\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65·…—“”‘’]")

FLAG = "characters counted as words: Chinese, Japanese or Korean text"


def has_cjk(text: str) -> bool:
    """Whether a Chinese, Japanese or Korean character stands in ``text``."""
    return not text.isascii() and _CHARACTER.search(text) is not None


def spaced(text: str) -> str:
    """``text`` with blanks around each such character; other text is left as it is."""
    return " ".join(_CHARACTER.sub(r" \g<0> ", text).split()) if has_cjk(text) else text


def without_punctuation(text: str) -> str:
    """``text`` without full-width and ideographic punctuation; other text is left as it is."""
    return _PUNCTUATION.sub(" ", text) if has_cjk(text) else text
