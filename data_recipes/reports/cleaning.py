"""What de-identification left in a text, what to do about it, and the repair of white space and hyphens.

A model that learns "XXXX" writes "XXXX". The marks of public collections: "XXXX" (Open-i), "___" (MIMIC-CXR), and
"[**2151-7-16**]" (MIMIC-III), "<hcw>", "<unk>" and the like, "[REDACTED]" and the like; and sentences that say that
dates were shifted (CheXpert Plus). Nothing here removes identifiers: see docs/reports.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.headers import headers
from medvlm.data_recipes.reports.sentences import sentences, without

Policy = Literal["keep", "drop_sentence", "refuse"]
"""keep: the text as it is; drop_sentence: without the sentences concerned; refuse: BadSample."""

_RULE = re.compile(r"(?:^|\n)[ \t]*_{10,}[ \t]*(?=\n|$)")
_WORDS = (
    "redacted|removed|phi|deid|de-identified|anonymi[sz]ed|name|patient|doctor|physician|hcw|date|time|location|hospital"
    "|vendor|id|unique|phone|age|unk|mask(?:ed)?"
)
_KINDS: dict[str, re.Pattern[str]] = {
    "shifted date": re.compile(
        r"\[\*\*[ \t]*\d{4}-\d{1,2}(?:-\d{1,2})?[ \t]*\*\*\]"
        r"|(?i:\b(?:all )?dates (?:are|were|have been) (?:offset|shifted|jittered)[^.\n]*\.?)"
    ),
    "bracket": re.compile(
        rf"\[\*\*[^\[\]\n]{{0,120}}\*\*\]|(?i:\[(?:{_WORDS})(?:[ _-]?\d+)?\]|<(?:{_WORDS})(?:[ _-]?\d+)?>)"
    ),
    "crosses": re.compile(r"(?<![A-Za-z])X{3,}(?![A-Za-z])|(?<=-)X{3,}"),
    "underscores": re.compile(r"_{2,}"),
    "bar": re.compile("[█■▇]{2,}"),
}


@dataclass(frozen=True, kw_only=True)
class Blank:
    """A place where something was removed or changed for privacy.

    Attributes:
        kind: shifted date, bracket, crosses, underscores, bar.
        text: the mark as it stands at ``start`` to ``end``.
    """

    kind: str
    text: str
    start: int
    end: int


def blanks(text: str) -> tuple[Blank, ...]:
    """The marks of de-identification in ``text``, in order and without overlap; a line of underscores is none."""
    rules = [match.span() for match in _RULE.finditer(text)]
    taken: list[tuple[int, int]] = []
    found = []
    for kind, pattern in _KINDS.items():
        for match in pattern.finditer(text):
            start, end = match.span()
            if any(start < stop and begin < end for begin, stop in (*rules, *taken)):
                continue
            taken.append((start, end))
            found.append(Blank(kind=kind, text=match.group(), start=start, end=end))
    return tuple(sorted(found, key=lambda blank: blank.start))


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """A text after a policy was applied.

    Attributes:
        text: what is left.
        blanks: marks of de-identification in the text that was given.
        dropped: sentences that were left out.
    """

    text: str
    blanks: tuple[Blank, ...] = ()
    dropped: tuple[str, ...] = ()


def apply_policy(text: str, policy: Policy, *, where: str, empty_ok: bool = False) -> Cleaned:
    """``text`` under ``policy``, as to marks of de-identification.

    Args:
        empty_ok: the text is "" when no sentence is left, instead of a BadSample.

    Raises:
        BadSample: the policy is to refuse and there is a mark, or no sentence is left.
        ValueError: an unknown policy.
    """
    found = blanks(text)
    refusal = BadSample(
        f"the text holds {len(found)} marks of de-identification, the first is {found[0].kind if found else 'none'}",
        where=where,
        mend="leave the report out, or choose the policy drop_sentence or keep",
    )
    places = tuple((blank.start, blank.end) for blank in found)
    return replace(drop_places(text, places, policy, refusal, empty_ok=empty_ok), blanks=found)


def drop_places(
    text: str, places: Sequence[tuple[int, int]], policy: Policy, refusal: BadSample, *, empty_ok: bool
) -> Cleaned:
    """``text`` under ``policy``, as to the sentences in which ``places`` (start, end) lie.

    Raises:
        BadSample: ``refusal``, when the policy is to refuse and there is a place; or no sentence is left.
        ValueError: an unknown policy.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"policy is {policy!r}; use one of {', '.join(get_args(Policy))}")
    if not places or policy == "keep":
        return Cleaned(text=text)
    if policy == "refuse":
        raise refusal
    unwanted = tuple(s for s in sentences(text) if any(start < s.end and s.start < end for start, end in places))
    left = without(text, unwanted)
    if not _says_something(left):
        if not empty_ok:
            raise nothing_left(refusal.where)
        left = ""
    return Cleaned(text=left, dropped=tuple(s.text for s in unwanted))


def nothing_left(where: str) -> BadSample:
    """The refusal of a text of which a policy dropped every sentence."""
    return BadSample(
        "no sentence of the text is left", where=where, mend="leave the report out, or choose the policy keep"
    )


def _says_something(text: str) -> bool:
    """Whether anything but list numbers and headers is there."""
    for header in reversed(list(headers(text))):
        text = text[: header.start] + text[header.end :]
    return re.search(r"[^\W\d_]", text) is not None


# --- white space and hyphens ---------------------------------------------------------------------------------------

_KEEP_FIRST = {
    "left", "right", "well", "ill", "non", "post", "pre", "mid", "air", "follow", "work", "half", "high", "low", "long",
    "short", "single", "multi", "two", "three", "self", "semi", "cross", "ground", "soft", "end", "deep", "picture",
    "pigtail", "tree", "in", "fat", "bone", "age", "large", "small", "thin", "thick",
}  # fmt: skip
_KEEP_SECOND = {
    "sided", "up", "ray", "like", "related", "shaped", "term", "grade", "level", "to", "in", "of", "and", "bud", "line",
    "defined", "weighted", "enhanced", "dependent", "old", "year", "month", "day", "week", "free", "based",
}  # fmt: skip
_BROKEN = re.compile(r"(?<![^\W_])([^\W_]+)-[ \t]*\r?\n[ \t]*([^\W_]+)")


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """A text with white space and hyphens repaired; ``joined`` lists the words that a line break had divided."""

    text: str
    joined: tuple[str, ...] = ()


def repair(text: str, *, unwrap: bool = True) -> Repaired:
    """One space between words, at most one blank line, divided words joined; letters and digits stay as they are.

    A hyphen at the end of a line stays when either side is short, has a digit or is part of a usual compound
    ("left-sided", "x-ray", "T1-weighted", "L4-L5"), or when the compound stands elsewhere in the text; else it was
    hyphenation and goes.

    Args:
        unwrap: a line that continues a paragraph is joined to it; list items and headers keep their line.
    """
    text = re.sub(r"\r\n?|<br ?/?>", "\n", text, flags=re.IGNORECASE)
    text = re.sub("\u00ad[ \\t]*\\n[ \\t]*|[\u00ad\u200b\u2060\ufeff]", "", text)
    text = re.sub("[\u00a0\u2007\u202f\u2009\t]", " ", text)
    joined: list[str] = []

    def mend(match: re.Match[str]) -> str:
        first, second = match.groups()
        compound = f"{first}-{second}"
        kept = (
            len(first) < 2 or len(second) < 2 or not first.isalpha() or not second.isalpha() or second[0].isupper()
            or first.isupper() or first.lower() in _KEEP_FIRST or second.lower() in _KEEP_SECOND
            or compound.lower() in text.lower()
        )  # fmt: skip
        if not kept:
            joined.append(first + second)
        return compound if kept else first + second

    text = _BROKEN.sub(mend, text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return Repaired(text=_unwrapped(text) if unwrap else text, joined=tuple(joined))


def _unwrapped(text: str) -> str:
    starts = {header.start for header in headers(text)}
    alone = {text.find("\n", header.end) for header in headers(text) if text[header.end :].startswith("\n")}

    def join(match: re.Match[str]) -> str:
        newline = match.start() + match.group().index("\n")
        after = text[match.end() :]
        own = newline + 1 in starts or newline in alone or re.match(r"(?:\d{1,2}[.)]|[-*•])\s", after)
        return "\n" if own else " "

    return re.sub(r"(?<!\n)\n(?!\n)", join, text)
