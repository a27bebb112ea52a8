"""English text as the rules read it: is it English, its sentences, and what each of them asserts.

The rules make a statement false, so they must know that it was made: what is denied, normal, in doubt or a plan is
left alone. A sentence that is misread as denied costs one pair; one that is misread as asserted makes a wrong pair.
Where the two are in question a sentence counts as not asserted (after NegEx, Chapman et al. 2001, with a reach to the
end of the sentence).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_WORD = re.compile(r"[^\W\d_]+")
_ENGLISH = frozenset(
    _WORD.findall(
        """the of is are was were with without there not and or in on at which what where how does do has have this that
        left right both lung lungs heart chest bone spine size mild small large clear within limits seen upper lower
        side yes image picture patient shown show write report findings than view"""
    )
)
_OTHERS = frozenset(
    _WORD.findall(
        """de la el los las del y una un que con sin por para se der die das und ist ein eine mit ohne kein keine nicht
        des le les et est une dans avec sans pas du au il di che non nella sono da do dos na em com sem e o os w i z nie
        jest bez op het een van geen met links rechts derecha izquierda derecho izquierdo gauche droite droit sinistra
        destra direita esquerda si oui ja nein hay es"""
    )
)
_LETTER = re.compile(r"[^\W\d_]")

ENGLISH_LETTERS = 0.97
"""Least share of letters that are unaccented Latin; English text with a name in it has more."""

HEADING = re.compile(
    r"\b(?:findings|impressions?|conclusions?|comparison|technique|indication|history|examination)\s*:", re.I
)
_ENUMERATOR = re.compile(r"(?:^|(?<=\s))\d{1,2}[.)](?=\s)")
_END = re.compile(r"[.!?]+(?=\s|$)|\n+")

_DENIES = re.compile(
    r"\b(?:no|without|negative|neither|nor|denies|lacks?|lack of|absence of|absent|"
    r"free of|clear of|rather than|never|"
    r"rules? out|ruled out|exclude[sd]?|fails? to)\b",
    re.I,
)
_NOT = re.compile(r"\b(?:not|cannot|can't|isn't|aren't|wasn't|weren't)\b|n't\b", re.I)
_NORMAL = re.compile(
    r"\b(?:normal(?:ly)?|clear|unremarkable|intact|within (?:\w+ )?limits|limits of normal|"
    r"midline|patent|preserved|"
    r"resol(?:ved|ution|ving)|cleared|removed|removal|free|appropriate|satisfactory|"
    r"well[- ](?:aerated|expanded))\b",
    re.I,
)
_DOUBT = re.compile(
    r"\b(?:may|might|could|possibl[ey]|possibility|probabl[ey]|likely|suspected|"
    r"suspicious|suspicion|questionable|question|"
    r"versus|vs|suggest\w*|equivocal|borderline|concern\w*|differential|if|recommend\w*|"
    r"consider\w*|evaluat\w+|assess\w*|"
    r"follow[- ]?up|correlat\w+|would|should|potential(?:ly)?|perhaps|appears? to|apparent|thought to|presumed|"
    r"represent\w*|favou?r\w*|either)\b",
    re.I,
)


def is_english(text: str, language: object = None) -> bool:
    """Whether the rules may read ``text``.

    What metadata says (``language``: "en", "English") decides. Else nearly all letters must be unaccented Latin, and
    common English words must be there and outnumber those of other languages. Text of none of them is not English.
    """
    if isinstance(language, str) and language.strip():
        return language.strip().lower().startswith("en")
    letters = _LETTER.findall(text)
    if not letters or sum(letter.isascii() for letter in letters) < ENGLISH_LETTERS * len(letters):
        return False
    words = _WORD.findall(text.lower())
    ours, others = sum(word in _ENGLISH for word in words), sum(word in _OTHERS for word in words)
    return ours > others


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence of a text.

    Attributes:
        start, end: its place, closing punctuation included; ``text`` is what stands there.
        asserted: how many characters from its start are asserted: all, those before the first denial, or none.
        doubtful: whether it hedges or plans.
    """

    start: int
    end: int
    text: str
    asserted: int
    doubtful: bool

    @property
    def said(self) -> str:
        """The asserted beginning."""
        return self.text[: self.asserted]


@lru_cache(maxsize=1 << 12)
def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of ``text`` in order; headings ("Findings:") and enumerators ("1.") belong to none."""
    marks = {match.start(): match.end() for match in (*HEADING.finditer(text), *_ENUMERATOR.finditer(text))}
    inside = [range(start, end) for start, end in marks.items()]
    stops = [match.end() for match in _END.finditer(text) if not any(match.start() in span for span in inside)]
    cuts = sorted({0, len(text), *stops, *marks, *marks.values()})
    found = []
    for start, end in pairwise(cuts):
        piece = text[start:end]
        if start in marks or not _LETTER.search(piece):
            continue
        lead = len(piece) - len(piece.lstrip())
        stripped = piece.strip()
        found.append(
            Sentence(
                start=start + lead, end=start + lead + len(stripped), text=stripped,
                asserted=_asserted(stripped), doubtful=_DOUBT.search(stripped) is not None,
            )
        )  # fmt: skip
    return tuple(found)


def _asserted(sentence: str) -> int:
    if _NOT.search(sentence):
        return 0
    denial = _DENIES.search(sentence)
    end = denial.start() if denial else len(sentence)
    return 0 if _NORMAL.search(sentence[:end]) or not sentence[:end].strip() else end


def same_text(one: str, other: str) -> bool:
    """Equal after case, spaces and closing punctuation are set aside."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w<>%/.-]+", " ", text.lower()).split()).strip(" .-")


def like(word: str, model: str) -> str:
    """``word`` in the case of ``model``."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


_VOWEL = re.compile(r"[aeio]|u(?!ni|s)|8|1[18](?!\d)", re.I)


def put(text: str, start: int, end: int, new: str) -> str:
    """``text`` with ``new`` in place of start..end; an article before it becomes "a" or "an" as ``new`` needs."""
    before = text[:start]
    article = re.search(r"\b(an?)(\s+)$", before, re.I)
    if article:
        before = before[: article.start()] + like("an" if _VOWEL.match(new) else "a", article[1][0]) + article[2]
    return before + new + text[end:]
