"""The words around a finding that deny it, doubt it, or place it in the past: data of the rule labeller."""

from __future__ import annotations

import re

_CHANGE = r"(?:changes?|increases?|decreases?|progression|improvements?|worsening|enlargement|difference)"

NEGATION = re.compile(
    r"\b(?:no(?! longer)(?! (?:other|additional|further))|(?<!not )without|(?<!no )absence of|negative for|free of|"
    r"clear of|not(?! only)(?! without)|cannot see|nor|neither|lack of|lacks|resolution of|clearing of|removal of|"
    r"(?<!partially )(?<!incompletely )(?<!not )resolved|(?<!partially )cleared|never|denies|rather than)\b"
    rf"(?!(?: \w+){{0,3}} {_CHANGE})"
)
"""Before a finding: denies it, unless what is denied is a change of it."""

OTHER = re.compile(r"\bno (?:other|additional|further)\b[^,;]*$")
"""Before a finding: says nothing about the one already named."""

_SEEN = (
    r"(?:seen|identified|present|visuali[sz]ed|evident|demonstrated|detected|appreciated|visible|observed|found|noted|"
    r"apparent|suspected)"
)
_DENIED_AFTER = (
    rf"(?:not|no longer) (?:\w+ly )?{_SEEN}|absent|(?<!not )(?<!partially )(?:completely |entirely |now )?resolved|"
    r"ruled out|excluded|(?<!partially )cleared|removed|(?:within )?(?:the )?(?:normal limits|limits of normal)"
)
SCOPE_END = r"but|however|although|though|except|apart from|aside from|other than|there (?:is|are)|yet|while|whereas"
"""Words that end the reach of a negation."""

_STOP = rf"is|are|was|were|has|have|with|without|no|{SCOPE_END}"
_VERB = r"(?:(?:is|are|was|were|has|have|appears?) )?(?:been )?(?:now )?"
_NORMAL = r"(?:is|are|was|were|appears?|remains?) (?:[a-z]+ly )?(?:within )?(?:normal|unremarkable)"
DENIED_AFTER = re.compile(rf"(?:(?!\b(?:{_STOP})\b|, (?:the|an?)\b)[^;])*?\b(?:{_VERB}(?:{_DENIED_AFTER})|{_NORMAL})\b")
"""After a finding: "... is not seen", "... has resolved"; matched from its end on."""

NOT_EXCLUDED = re.compile(r"\bnot (?:\w+ )?excluded|cannot (?:be )?(?:\w+ )?excluded?")

DOUBT = re.compile(
    r"\b(?:possibl[ey]|possibility of|probabl[ey]|may|might|could|suspicious for|suspected|suspicion (?:of|for)|"
    r"questionable|question of|questioned|equivocal|indeterminate|likely|concerning for|concern for|worrisome for|"
    r"borderline|versus|vs|rule out|evaluate for|evaluation for|assess for|to exclude|exclude an?|"
    r"difficult to (?:\w+ )?exclude|differential(?: diagnosis)?|"
    r"cannot (?:be )?(?:\w+ )?excluded?|cannot rule out|not (?:\w+ )?excluded|"
    r"appearance of possible|perhaps|presumed|presumably|potentially)\b"
)

CLAUSE_BEFORE = re.compile(rf"[;,]|\b(?:{SCOPE_END})\b")
CLAUSE_AFTER = re.compile(rf"[;,]|\b(?:{SCOPE_END}|and)\b")
SAYS_ANEW = re.compile(rf"[;:]|\b(?:{SCOPE_END}|is|are|was|were|has|have)\b")
"""Between a negation and a finding: the negation does not reach it."""

ASSERTS_ANEW = re.compile(
    r"(?:,|\band\b) (?:an?|the|there|small|moderate|large|mild|severe|trace|tiny|minimal|stable|persistent|new|"
    r"unchanged|increased|left|right|bilateral|\d+)\b"
)
"""After a negated finding: "No pneumothorax, small left effusion" asserts again, unless an "or" still follows."""

OR = re.compile(r"\b(?:or|nor)\b")

HISTORY = re.compile(
    r"\b(?:(?:history|hx) of|h/o|status post|s/p|(?:prior|previous|remote|past)(?! (?:exam|stud|film|radiograph|ct|"
    r"chest|x|imag|comparison|report|scan)\w*))(?: (?!and\b|with\b|is\b|are\b)[\w-]+){0,2} $"
)
"""Right before a finding: it is of the past, so that the report does not say that it is there today."""

STILL_THERE = re.compile(
    r"\b(?:unchanged|stable|persist\w*|remains?|again|increas\w+|decreas\w+|improv\w+|worse\w*|enlarg\w+|larger|smaller|"
    r"similar|noted|seen|present|evident)\b"
)
"""After a finding "of the past": it is still there."""

ALTERNATIVE = re.compile(r" ?(?:/| or | vs\.? | versus )(?:[a-z-]+ ){0,2}")
"""All that stands between two findings of which one holds: "atelectasis or scarring"."""
