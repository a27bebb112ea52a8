"""A rule labeller for report text: which findings are stated, on which side, present, absent or in doubt.

In the manner of NegEx (Chapman et al. 2001) and NegBio (Peng et al. 2018): finding terms, negation and doubt cues
with a reach inside one sentence. It needs no weights and no network. What it does not do: history ("prior fracture"),
references between sentences ("it is on the left"), severity, size and count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medvlm.eval.scorers.lexicon import (
    ABSENT,
    ASSERTS_ANEW,
    DOUBT,
    DOUBTFUL,
    NEGATION,
    NEGATION_AFTER,
    NOT_A_SIDE,
    OTHER,
    PRESENT,
    SCOPE_END,
    SIDES,
    WITHOUT_SIDE,
)


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """One statement about a finding.

    Attributes:
        kind: one of lexicon.KINDS.
        side: left, right, bilateral, or None when not said or not meaningful for the kind.
        present: True, False, or None when left open ("possible", "cannot be excluded").
    """

    kind: str
    side: str | None
    present: bool | None


@dataclass(frozen=True, kw_only=True)
class _Mention:
    kind: str
    start: int
    end: int
    present: bool | None
    """As far as the words of the mention itself decide."""
    decided: bool


def label(report: str) -> frozenset[Finding]:
    """Every finding that ``report`` states; repeats (an impression) are one."""
    return frozenset(finding for sentence in sentences(report) for finding in _label_sentence(sentence))


def sentences(report: str) -> list[str]:
    """Lower-case sentences without section names; "3.5 cm" is not cut."""
    text = re.sub(r"\b(?:findings|impression|conclusion|comparison|technique)\s*:", ". ", report.lower())
    text = re.sub(r"^\s*\d+[.)]\s+", ". ", text, flags=re.MULTILINE)
    parts = re.split(r"(?<!\d)\.|\.(?!\d)|[!?\n]+", text)
    return [plain for part in parts if (plain := " ".join(part.split()))]


def _label_sentence(sentence: str) -> list[Finding]:
    sentence = re.sub(
        r"\b(pleural) (or|and|and/or) (pericardial) effusions?\b", r"\1 effusion \2 \3 effusion", sentence
    )
    sentence = re.sub(
        r"\b(pericardial) (or|and|and/or) (pleural) effusions?\b", r"\1 effusion \2 \3 effusion", sentence
    )
    mentions = _mentions(sentence)
    found: list[Finding] = []
    for place, mention in enumerate(mentions):
        if re.search(rf"\b{OTHER}\b[^,;]*$", sentence[: mention.start]):
            continue
        present = mention.present if mention.decided else _present(sentence, mention)
        sides: list[str | None] = [None]
        if mention.kind not in WITHOUT_SIDE:
            sides = list(_sides_of(sentence, mentions, place)) or [None]
        found += [Finding(kind=mention.kind, side=side, present=present) for side in sides]
    return found


def _mentions(sentence: str) -> list[_Mention]:
    """Finding terms in reading order, without overlaps; earlier pattern lists have the first claim."""
    rest = sentence
    mentions: list[_Mention] = []
    for patterns, present in ((DOUBTFUL, None), (PRESENT, True), (ABSENT, False)):
        for kind, pattern in patterns:
            for match in re.finditer(rf"(?<![\w-])(?:{pattern})(?!\w)", rest):
                inner_not = re.search(r"\b(?:not|no longer)\b", match[0]) is not None
                if inner_not and present is False:
                    continue  # "the heart is not normal" says neither
                decided = present is not True or inner_not
                mentions.append(
                    _Mention(
                        kind=kind,
                        start=match.start(),
                        end=match.end(),
                        present=False if inner_not else present,
                        decided=decided,
                    )
                )
                rest = rest[: match.start()] + "\0" * len(match[0]) + rest[match.end() :]
    return sorted(mentions, key=lambda m: m.start)


def _present(sentence: str, mention: _Mention) -> bool | None:
    before, after = sentence[: mention.start], sentence[mention.end :]
    clause_before = re.split(rf"[;,]|\b(?:{SCOPE_END})\b", before)[-1]
    clause_after = re.split(rf"[;,]|\b(?:{SCOPE_END}|and)\b", after)[0]
    if re.search(rf"\b(?:{DOUBT})\b", clause_before) or re.search(rf"\b(?:{DOUBT})\b", clause_after):
        return None
    return not (_denied_before(before, after) or _denied_after(after))


def _denied_before(before: str, after: str) -> bool:
    cues = list(re.finditer(rf"\b{NEGATION}\b", before))
    if not cues:
        return False
    between = before[cues[-1].end() :]
    if re.search(rf"[;:]|\b(?:{SCOPE_END}|is|are|was|were|has|have)\b", between):
        return False
    # A comma or "and" before the finding counts with the word that follows it, which may start the finding's name.
    anew = list(re.finditer(ASSERTS_ANEW, between))
    return not anew or re.search(r"\b(?:or|nor)\b", between[anew[-1].end() :] + after) is not None


def _denied_after(after: str) -> bool:
    stop = rf"is|are|was|were|has|have|with|without|no|{SCOPE_END}"
    verb = r"(?:(?:is|are|was|were|has|have) )?(?:been )?(?:now )?"
    return re.match(rf"(?:(?!\b(?:{stop})\b)[^;])*?\b{verb}(?:{NEGATION_AFTER})\b", after) is not None


def _side_words(text: str) -> list[tuple[int, str]]:
    """(position, side) of each side named in ``text``."""
    rest = re.sub(NOT_A_SIDE, lambda m: "\0" * len(m[0]), text)
    found: list[tuple[int, str]] = []
    for side, pattern in SIDES:
        for match in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", rest):
            found.append((match.start(), side))
            rest = rest[: match.start()] + "\0" * len(match[0]) + rest[match.end() :]
    return sorted(found)


def _sides_of(sentence: str, mentions: list[_Mention], place: int) -> tuple[str, ...]:
    """The sides of one mention: said right before it, else after it, else the only side of the sentence."""
    mention = mentions[place]
    start = mentions[place - 1].end if place else 0
    stop = mentions[place + 1].start if place + 1 < len(mentions) else len(sentence)
    words = _side_words(sentence)
    joint = r",|;|\b(?:and|or|with|but)\b"
    # "left and right effusions" is one side word, so a joint inside it does not count.
    joints = [m.end() + start for m in re.finditer(joint, sentence[start : mention.start])]
    named_at = [position for position, _ in words if start <= position < mention.start]
    nearest = max((j for j in joints if not any(_inside(sentence, p, j) for p in named_at)), default=start)
    before = [side for position, side in words if nearest <= position < mention.start]
    if before:
        return (before[-1],)
    if stop < len(sentence):
        last = max((m.start() for m in re.finditer(joint, sentence[mention.end : stop])), default=None)
        stop = stop if last is None else mention.end + last
    after = list(dict.fromkeys(side for position, side in words if mention.end <= position < stop))
    if after:
        return tuple(after)
    anywhere = {side for _, side in words}
    return tuple(anywhere) if len(anywhere) == 1 else ()


def _inside(sentence: str, position: int, joint: int) -> bool:
    """Whether the joint at ``joint`` belongs to a two-sided phrase that starts at ``position``."""
    return any(
        match.end() >= joint
        for side, pattern in SIDES[:2]
        for match in [re.compile(pattern).match(sentence, position)]
        if match is not None
    )
