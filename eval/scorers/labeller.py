"""A rule labeller for report text: which findings are stated, on which side, present, absent or in doubt.

In the manner of NegEx (Chapman et al. 2001) and NegBio (Peng et al. 2018): finding terms, negation and doubt cues
with a reach inside one sentence. It needs no weights and no network. What it does not do: references between sentences
("it is on the left"), and findings that no term of lexicon.py names. How good it is: docs/labeller.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from medvlm.eval.scorers.cues import (
    ALTERNATIVE,
    ASSERTS_ANEW,
    CLAUSE_AFTER,
    CLAUSE_BEFORE,
    DENIED_AFTER,
    DOUBT,
    HISTORY,
    NEGATION,
    NOT_EXCLUDED,
    OR,
    OTHER,
    SAYS_ANEW,
    STILL_THERE,
)
from medvlm.eval.scorers.finding_terms import BESIDE, Term
from medvlm.eval.scorers.lexicon import NOT_A_SIDE, SIDES, TERMS, WITHOUT_SIDE
from medvlm.eval.scorers.report_sentences import sentences

__all__ = ["Finding", "Statement", "label", "label_sentence", "sentences", "statements"]


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """What a report says about a finding, wherever it says it.

    Attributes:
        kind: one of lexicon.KINDS.
        side: left, right, bilateral, or None when not said or not meaningful for the kind.
        present: True, False, or None when left open ("possible", "cannot be excluded").
    """

    kind: str
    side: str | None
    present: bool | None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One place that names a finding.

    Attributes:
        finding: of CheXpert, or None where it has none.
        sides: named for it; empty when none is.
        sentence: in lower case, the name standing at ``start`` to ``end``.
        first, last: of the part of the sentence that is about it: up to the findings before and after it.
    """

    kind: str
    finding: str | None
    sides: tuple[str, ...]
    present: bool | None
    sentence: str
    start: int
    end: int
    first: int
    last: int

    @property
    def about(self) -> str:
        """The part of the sentence that is about this finding."""
        return self.sentence[self.first : self.last]


@dataclass(frozen=True, kw_only=True)
class _Mention:
    term: Term
    start: int
    end: int
    present: bool | None
    """As far as the words of the mention itself decide."""
    decided: bool


def label(report: str) -> frozenset[Finding]:
    """Every finding that ``report`` states; repeats (an impression) are one."""
    return frozenset(
        Finding(kind=one.kind, side=side, present=one.present)
        for one in statements(report)
        for side in (one.sides or (None,))
    )


@lru_cache(maxsize=8192)
def statements(report: str) -> tuple[Statement, ...]:
    """Every statement of ``report`` in reading order."""
    return tuple(one for sentence in sentences(report) for one in label_sentence(sentence))


_JOINT_EFFUSIONS = re.compile(r"\b(pleural|pericardial) (or|and|and/or) (pericardial|pleural) effusions?\b")


@lru_cache(maxsize=65536)
def label_sentence(sentence: str) -> tuple[Statement, ...]:
    """The statements of one lower-case sentence. Reports repeat their sentences, so that most are looked up."""
    sentence = _JOINT_EFFUSIONS.sub(r"\1 effusion \2 \3 effusion", sentence)
    mentions = _mentions(sentence)
    if not mentions:
        return ()
    states = [_state(sentence, mention) for mention in mentions]
    _alternatives(sentence, mentions, states)
    words = _side_words(sentence)
    found: list[Statement] = []
    for place, (mention, present) in enumerate(zip(mentions, states, strict=True)):
        kind = mention.term.kind
        before = sentence[: mention.start]
        if kind is None or OTHER.search(before) or _of_the_past(sentence, mention, present):
            continue
        found.append(
            Statement(
                kind=kind,
                finding=mention.term.finding,
                sides=() if kind in WITHOUT_SIDE else _sides_of(sentence, mentions, place, words),
                present=present,
                sentence=sentence,
                start=mention.start,
                end=mention.end,
                first=max((one.end for one in mentions if one.end <= mention.start), default=0),
                last=min((one.start for one in mentions if one.start >= mention.end), default=len(sentence)),
            )
        )
    return tuple(found)


_INNER_NOT = re.compile(r"\b(?:not|no longer)\b")


def _mentions(sentence: str) -> list[_Mention]:
    """Names of findings in reading order; earlier terms have the first claim on words."""
    rest = sentence
    found: list[_Mention] = []
    for term in TERMS:
        if not any(need in rest for need in term.needs):
            continue
        for match in term.pattern.finditer(rest):
            mention = _mention(term, match)
            if mention is None:
                continue
            found.append(mention)
            rest = rest[: match.start()] + "\0" * len(match[0]) + rest[match.end() :]
    named = [one for one in found if one.term.kind is not None]
    for term in BESIDE:
        if any(need in sentence for need in term.needs):
            beside = [_mention(term, match) for match in term.pattern.finditer(sentence)]
            named += [one for one in beside if one is not None]
    return sorted(named, key=lambda one: (one.start, one.end))


def _mention(term: Term, match: re.Match[str]) -> _Mention | None:
    inner_not = _INNER_NOT.search(match[0]) is not None
    if inner_not and term.present is False:
        return None  # "the heart is not normal" says neither
    return _Mention(
        term=term,
        start=match.start(),
        end=match.end(),
        present=False if inner_not else term.present,
        decided=term.present is not True or inner_not,
    )


def _state(sentence: str, mention: _Mention) -> bool | None:
    """Present, absent or in doubt."""
    if mention.decided:
        return mention.present
    before, after = sentence[: mention.start], sentence[mention.end :]
    if DOUBT.search(CLAUSE_BEFORE.split(before)[-1]) or DOUBT.search(CLAUSE_AFTER.split(after)[0]):
        return None
    if NOT_EXCLUDED.search(after) or _in_a_doubtful_list(before):
        return None
    return not (_denied_before(before, after) or DENIED_AFTER.match(after) is not None)


def _in_a_doubtful_list(before: str) -> bool:
    """Whether a doubt reaches over commas: "possibly scarring, atelectasis, or pneumonia"."""
    cue = None
    for cue in DOUBT.finditer(before):  # noqa: B007 the last one counts
        pass
    if cue is None:
        return False
    between = before[cue.end() :]
    return not any(pattern.search(between) for pattern in (SAYS_ANEW, ASSERTS_ANEW, NEGATION))


def _denied_before(before: str, after: str) -> bool:
    cue = None
    for cue in NEGATION.finditer(before):  # noqa: B007 the last one counts
        pass
    if cue is None:
        return False
    between = before[cue.end() :]
    if SAYS_ANEW.search(between):
        return False
    # A comma or "and" before the finding counts with the word that follows it, which may start the finding's name.
    anew = list(ASSERTS_ANEW.finditer(between))
    return not anew or OR.search(between[anew[-1].end() :] + after) is not None


def _alternatives(sentence: str, mentions: list[_Mention], states: list[bool | None]) -> None:
    """Of "atelectasis or scarring" neither is certain."""
    for place in range(len(mentions) - 1):
        between = sentence[mentions[place].end : mentions[place + 1].start]
        if states[place] is not False and states[place + 1] is not False and ALTERNATIVE.fullmatch(between):
            states[place] = states[place + 1] = None


_STAYS = frozenset({"support device", "fracture", "scar", "pleural thickening"})
"""What was once there is there still: an old fracture, a pacemaker after its placement."""


def _of_the_past(sentence: str, mention: _Mention, present: bool | None) -> bool:
    if present is False or mention.term.kind in _STAYS or HISTORY.search(sentence[: mention.start]) is None:
        return False
    return STILL_THERE.search(CLAUSE_BEFORE.split(sentence[mention.end :])[0]) is None


def _side_words(text: str) -> list[tuple[int, int, str]]:
    """(start, end, side) of each side named in ``text``."""
    if not any(word in text for word in ("left", "right", "bi", "both", "l", "r")):
        return []
    rest = NOT_A_SIDE.sub(lambda m: "\0" * len(m[0]), text)
    found: list[tuple[int, int, str]] = []
    for side, pattern in SIDES:
        for match in pattern.finditer(rest):
            found.append((match.start(), match.end(), side))
            rest = rest[: match.start()] + "\0" * len(match[0]) + rest[match.end() :]
    return sorted(found)


_JOINT = re.compile(r",|;|\b(?:and|or|with|but)\b")


def _sides_of(
    sentence: str, mentions: list[_Mention], place: int, words: list[tuple[int, int, str]]
) -> tuple[str, ...]:
    """The sides of one mention: said right before it or in it, else after it, else the only side of the sentence."""
    if not words:
        return ()
    mention = mentions[place]
    start = max((one.end for one in mentions[:place] if one.end <= mention.start), default=0)
    stop = min((one.start for one in mentions[place + 1 :] if one.start >= mention.end), default=len(sentence))
    # "left and right effusions" is one side word, so a joint inside it does not count.
    joints = [match.end() + start for match in _JOINT.finditer(sentence[start : mention.start])]
    nearest = max((j for j in joints if not any(first < j <= last for first, last, _ in words)), default=start)
    before = [side for position, _, side in words if nearest <= position < mention.end]
    if before:
        return (before[-1],)
    if stop < len(sentence):
        last = max((match.start() for match in _JOINT.finditer(sentence[mention.end : stop])), default=None)
        stop = stop if last is None else mention.end + last
    after = list(dict.fromkeys(side for position, _, side in words if mention.end <= position < stop))
    if after:
        return tuple(after)
    anywhere = {side for _, _, side in words}
    return tuple(anywhere) if len(anywhere) == 1 else ()
