"""What a report says has changed since an earlier study: better, worse, the same, new or gone, and of which finding."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from medvlm.eval.scorers.labeller import Statement, label_sentence
from medvlm.eval.scorers.report_sentences import sentences

Change = Literal["improved", "worse", "stable", "new", "resolved"]
STUDY = "study"
"""In place of a finding: the whole study ("No interval change.")."""

_ADVERB = r"(?:\w+ly |somewhat |now |again |since )*"
_WORSE_NOUN = r"(?:worsening|increase|progression|enlargement)"
_BETTER_NOUN = r"(?:improvement|decrease|regression)"
_WORDS: tuple[tuple[Change, str], ...] = (
    (
        "stable",
        rf"\bunchanged\b|(?<!clinically )(?<!hemodynamically )\bstable\b|\b(?:no|without|not) (?:[\w-]+ ){{0,3}}"
        rf"(?:changed?|changes|{_WORSE_NOUN}|{_BETTER_NOUN})\b|\bnot {_ADVERB}(?:worsened|improved|increased|"
        r"decreased|progressed)\b|\bpersist(?:s|ent|ently|ing)\b|\bagain (?:seen|noted|demonstrated|identified|"
        r"visuali[sz]ed)\b|\bredemonstrat\w+|\bsimilar (?:to|in|appear\w+)\b",
    ),
    (
        "resolved",
        r"(?<!partially )(?<!incompletely )(?<!not )(?<!nearly )\bresolved\b|(?<!partial )(?<!near )"
        r"(?<!incomplete )\bresolution of\b|(?<!partially )\bcleared\b|\bno longer\b|\bdisappear(?:ed|ance)\b",
    ),
    (
        "improved",
        rf"\bimprov(?:ed|ing|ement)\b|\bdecreas(?:ing|es)\b|\b(?:has|have|is|are|was) {_ADVERB}decreased\b|"
        r"\b(?:interval|slightly|mildly|significantly) decreased?\b|\bdecreased? (?:in|from|since|compared)\b|"
        r"\bdecrease of\b|\bsmaller\b|\bresolving\b|\bclearing\b|\bregress\w+|\b(?:partial(?:ly)?|"
        r"incomplete(?:ly)?|near(?:ly)?) (?:resol\w+|cleared)\b|"
        r"\bless (?:prominent|conspicuous|extensive|dense|severe)\b",
    ),
    (
        "worse",
        rf"\bworsen(?:ed|ing)\b|\bworse\b|\bincreas(?:ing|es)\b|\b(?:has|have|is|are|was) {_ADVERB}increased\b|"
        r"\b(?:interval|slightly|mildly|significantly) increased?\b|\bincreased? (?:in|from|since|compared)\b|"
        r"\bincrease of\b|(?<!right )(?<!left )\blarger\b(?! (?:on|than (?:left|right|the (?:left|right))))|"
        r"\bprogress(?:ed|ion|ing|ive)\b|\benlarging\b|\bmore (?:prominent|conspicuous|extensive|dense|severe)\b",
    ),
    ("new", r"(?<!no )\bnew(?:ly)?\b|\binterval (?:development|appearance)\b|\b(?:has|have) developed\b"),
)
WORDS = tuple((change, re.compile(pattern)) for change, pattern in _WORDS)
"""In the order in which they claim words: "no improvement" is stable."""

_OF_THE_STUDY = re.compile(r"\b(?:chest|exam\w*|study|appearance|interval|change|radiograph|film|findings)\b")
_BREAK = re.compile(r"[,;]|\b(?:and|with|but|while|or)\b")
_JOINED = re.compile(
    r"(?:,| and| or|, and|, or)(?: (?!new|stable|unchanged|worse|impro|increas|decreas|resol)[a-z-]+){0,2} "
)


_STEMS = (
    "stable", "chang", "improv", "wors", "increas", "decreas", "new", "resol", "persist", "again", "similar", "larger",
    "smaller", "clear", "progress", "enlarg", "regress", "longer", "disappear", "appear", "develop", "demonstrat",
    "more", "less",
)  # fmt: skip
"""One of them stands in every match of WORDS: a quick way to leave a sentence out."""


def changes(report: str) -> frozenset[tuple[str, Change]]:
    """(finding of CheXpert, else its kind, or STUDY; change) of all that the report says has or has not changed."""
    return frozenset(pair for sentence in sentences(report) for pair in _changes_of(sentence))


@lru_cache(maxsize=65536)
def _changes_of(sentence: str) -> frozenset[tuple[str, Change]]:
    if not any(stem in sentence for stem in _STEMS):
        return frozenset()
    stated = label_sentence(sentence)
    if not stated:
        return frozenset((STUDY, change) for change in _changes_in(sentence) if _OF_THE_STUDY.search(sentence))
    found: set[tuple[str, Change]] = set()
    for group in _groups(stated):
        words = _changes_in(_around(group))
        for one in group:
            # Of what is not there only "resolved" is said: "no new effusion" tells of no change.
            kept: set[Change] = {change for change in words if one.present is not False or change == "resolved"}
            found |= {(one.finding or one.kind, change) for change in kept}
    return frozenset(found)


def _groups(stated: tuple[Statement, ...]) -> list[list[Statement]]:
    """Findings named in one breath: "effusion and consolidation have increased"."""
    groups: list[list[Statement]] = []
    for one in stated:
        last = groups[-1][-1] if groups else None
        if last is not None and (one.start < last.end or _JOINED.fullmatch(one.sentence[last.end : one.start])):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _around(group: list[Statement]) -> str:
    """The words right before the first of a group and right after the last."""
    first, last = group[0], group[-1]
    before = _BREAK.split(first.sentence[first.first : first.start])[-1]
    pieces = _BREAK.split(last.sentence[last.end : last.last])
    # "Left effusion, unchanged": the next piece is about it too, unless it names the next finding.
    after = pieces[0]
    if not after.strip() and len(pieces) > 1 and (len(pieces) > 2 or last.last == len(last.sentence)):
        after = pieces[1]
    return f"{before} {last.sentence[first.start : last.end]} {after}"


def _changes_in(text: str) -> set[Change]:
    found: set[Change] = set()
    for change, pattern in WORDS:
        text, times = pattern.subn(" ~ ", text)
        if times:
            found.add(change)
    return found
