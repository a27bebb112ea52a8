"""The answers that a closed question names or implies: "left or right?", 左侧还是右侧?, 是的 against 不是.

VQA-RAD and SLAKE mark questions as closed whose answer is neither yes nor no. Where the wording alone names the
alternatives, read without a look at the answer, they are the choices; where it does not, or the key is none of them,
nothing is made up and the question stays an open one.
"""

from __future__ import annotations

import re

from medvlm.data_recipes.asking import YES_NO, yes_no

CHINESE_PAIRS: tuple[tuple[str, str], ...] = (
    ("是的", "不是"), ("是", "否"), ("包含", "不包含"), ("包括", "不包括"), ("有", "没有"), ("可以", "不可以"),
    ("存在", "不存在"), ("正常", "不正常"), ("健康", "不健康"),
)  # fmt: skip
"""What Chinese says for yes and no: the verb of the question and its denial. 正常 (normal) is not yes."""

_MOST_WORDS = 3
_LISTED = re.compile(r"(?:which|what|where)\b[^,:]*[,:](.+)", re.IGNORECASE)
_BARE_PAIR = re.compile(r"[^,:]*\s([\w-]+) or (?:an? |the )?([\w-]+)", re.IGNORECASE)
_WHICH_IN_CHINESE = re.compile("哪|什么|多大|多少")


def choices_of(question: str, answer: str) -> tuple[tuple[str, ...], str] | None:
    """(choices, answer spelt as among them) of a closed question; None when they cannot be told.

    yes and no when the answer is one of them, else what the question names, else a Chinese pair.
    """
    decided = yes_no(answer)
    if decided:
        return YES_NO, decided
    for choices in (named(question), *_chinese_pairs(question)):
        found = [text for text in choices if text.lower() == answer.strip().lower()]
        if len(found) == 1:
            return choices, found[0]
    return None


def named(question: str) -> tuple[str, ...]:
    """The alternatives that a question ends with, in the order named; () when it does not end so plainly.

    "Which is larger, the liver or the right kidney?", "Is it solid or cystic?" and "..., 左侧还是右侧?" do. Where the
    alternatives stand inside of the sentence ("a solid or cystic lesion") their ends would be a guess.
    """
    text = " ".join(question.strip().rstrip("?？. ").split())
    if "还是" in text:
        _, comma, tail = re.sub("[,，]", ",", text).rpartition(",")
        names = re.split("、|还是", tail) if comma else []
    elif listed := _LISTED.fullmatch(text):
        if not re.search(r"\bor\b", listed[1]):
            return ()
        names = re.split(r"\s*,\s*or\s+|\s*,\s*|\s+or\s+", listed[1], flags=re.IGNORECASE)
    elif pair := _BARE_PAIR.fullmatch(text):
        names = [pair[1], pair[2]]
    else:
        return ()
    names = [re.sub(r"^(?:an?|the)\s+", "", name.strip(), flags=re.IGNORECASE) for name in names]
    plain = {name.lower() for name in names}
    if len(names) < 2 or len(plain) != len(names) or plain & {"", "no", "not"}:
        return ()
    return () if any(len(name.split()) > _MOST_WORDS for name in names) else tuple(names)


def _chinese_pairs(question: str) -> tuple[tuple[str, str], ...]:
    return () if _WHICH_IN_CHINESE.search(question) else CHINESE_PAIRS
