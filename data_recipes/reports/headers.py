"""The header words of radiology reports, in five languages, and where they stand in a text.

English headers are those that occur in MIMIC-CXR, Open-i and CheXpert Plus (lists published with the MIT-LCP section
parser of MIMIC-CXR and with the columns of CheXpert Plus were used as a check, not copied). German, Spanish, French and
Portuguese words cover findings, impression, indication, comparison, technique and history only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

NAMES: dict[str, tuple[str, ...]] = {
    "findings": (
        "findings", "finding", "report of findings",
        "befund", "befunde", "hallazgos", "hallazgo", "résultats", "résultat", "achados", "achado", "análise",
    ),
    "impression": (
        "impression", "impressions", "conclusion", "conclusions", "opinion",
        "beurteilung", "impresión", "impresión diagnóstica", "conclusión", "conclusiones", "impressão",
        "impressão diagnóstica", "conclusão", "synthèse",
    ),
    "findings and impression": (
        "findings and impression", "findings/impression", "findings / impression", "findings & impression",
        "impression and findings", "impression/findings", "impression / findings", "findings, impression",
        "befund und beurteilung", "hallazgos e impresión", "résultats et conclusion", "achados e impressão",
    ),
    "indication": (
        "indication", "indications", "clinical indication", "reason for exam", "reason for examination",
        "reason for study", "reason for the exam", "clinical question",
        "indikation", "fragestellung", "klinische fragestellung", "indicación", "motivo de consulta",
        "motivo del estudio", "motif", "renseignements cliniques", "indicação", "indicação clínica",
    ),
    "history": (
        "history", "clinical history", "patient history", "clinical information", "clinical data", "clinical context",
        "anamnese", "anamnèse", "klinische angaben", "antecedentes", "historia clínica", "datos clínicos",
        "antécédents", "histoire clinique", "história clínica", "dados clínicos",
    ),
    "comparison": (
        "comparison", "comparisons", "comparison exam", "comparison study", "comparison studies", "prior studies",
        "vergleich", "voraufnahmen", "voruntersuchung", "voruntersuchungen", "comparación", "estudios previos",
        "comparaison", "comparatif", "comparação", "estudos anteriores",
    ),
    "technique": (
        "technique", "techniques", "imaging technique",
        "technik", "untersuchungstechnik", "technique d'examen", "técnica",
    ),
    "examination": (
        "examination", "exam", "study", "type of examination", "type of exam", "exam type",
        "untersuchung", "examen", "exame", "estudio",
    ),
}  # fmt: skip
"""Canonical name -> header words."""

OTHERS = (
    "final report", "wet read", "preliminary report", "addendum", "narrative", "procedure comments",
    "end of impression", "summary", "accession number", "recommendation", "recommendations", "recommendation(s)",
    "notification",
    "notifications", "dose", "radiation dose", "contrast", "procedure", "procedures", "medications", "attending",
    "views", "view", "critical result", "communication", "electronically signed by", "dictated by", "signed by",
    "reported by", "nota", "empfehlung", "recomendación", "recommandation", "recomendação", "nachtrag", "adenda",
)  # fmt: skip
"""Headers that end the section before them and are kept under their own name."""

BRIEF = ("indication", "history", "comparison", "technique", "examination")
"""Sections that a blank line ends: what follows without a header is no part of them."""


def plain(text: str) -> str:
    """Lower case without accents and stars, one space between words."""
    marked = unicodedata.normalize("NFD", text.lower().replace("*", ""))
    return " ".join("".join(c for c in marked if not unicodedata.combining(c)).split())


_CANONICAL = {plain(word): name for name, words in NAMES.items() for word in words}
_CANONICAL.update({plain(word): word for word in OTHERS})
_CANONICAL.update({"recommendation": "recommendations", "recommendation(s)": "recommendations"})


def canonical(header: str) -> str | None:
    """The name of a known header, None for another; "FINDINGS (continued)" is findings."""
    return _CANONICAL.get(plain(re.sub(r"\s*\((?:cont\w*\.?|forts\w*\.?|suite|continuaci\w+)\)", "", header)))


def _letters(word: str) -> str:
    """A pattern for ``word`` that takes accents composed, decomposed or left out, and any white space."""
    parts = []
    for letter in unicodedata.normalize("NFC", word):
        base, *marks = list(unicodedata.normalize("NFD", letter))
        if letter == " ":
            parts.append(r"[ \t]+")
        elif marks:
            parts.append(f"(?:{re.escape(letter)}|{re.escape(base)}{''.join(marks)}?)")
        else:
            parts.append(re.escape(letter))
    return "".join(parts)


_KNOWN = "|".join(
    _letters(word) for word in sorted({*OTHERS, *(w for words in NAMES.values() for w in words)}, key=len, reverse=True)
)
_CONTINUED = r"(?:[ \t]*\((?:cont\w*\.?|forts\w*\.?|suite|continuaci\w+)\))?"
_KNOWN_HEADER = re.compile(
    rf"(?P<word>(?:{_KNOWN}){_CONTINUED})(?P<after>[ \t]*\**[:：]|[ \t]*(?=\r?\n|$))", re.IGNORECASE
)
_OWN_WORD = re.compile(r"(?P<word>[A-ZÀ-Þ][A-ZÀ-Þ0-9 ,./&()'-]{2,60}?)[ \t]*:(?=\s|$)")
_START = re.compile(r"^[ \t]*(?:[*#]+[ \t]*)?", re.MULTILINE)
_INSIDE = re.compile(r"(?<=[\s.!?;:)\]])(?=[A-ZÀ-Þ])")


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header in a text.

    Attributes:
        name: canonical name; for a header that is not known, its own words in lower case.
        words: as written, without the colon.
        start: of the header; end: behind its colon.
        known: whether it is one of NAMES or OTHERS.
    """

    name: str
    words: str
    start: int
    end: int
    known: bool


def headers(text: str) -> Iterator[Header]:
    """Headers of ``text`` in order.

    A known header counts at the start of a line, before a colon or alone on the line, in any case; and inside a line
    in upper case, or capitalised behind the end of a sentence, before a colon. A header that is not known counts only
    at the start of a line, in upper case, before a colon.
    """
    reached = 0
    places = sorted(
        {(match.end(), True) for match in _START.finditer(text)}
        | {(match.start(), False) for match in _INSIDE.finditer(text)},
        key=lambda place: (place[0], not place[1]),
    )
    for place, at_line in places:
        if place < reached:
            continue
        match = _KNOWN_HEADER.match(text, place)
        if match and (at_line or _stands_out(text, place, match)) and _alone(text, match):
            end = _behind_markup(text, match.end())
            start = text.rfind("\n", 0, place) + 1 if at_line else place
            yield Header(name=str(canonical(match["word"])), words=match["word"], start=start, end=end, known=True)
            reached = end
            continue
        own = _OWN_WORD.match(text, place) if at_line else None
        if own and len(re.findall(r"[A-ZÀ-Þ]", own["word"])) > 2:
            yield Header(name=plain(own["word"]), words=own["word"], start=place, end=own.end(), known=False)
            reached = own.end()


def _alone(text: str, match: re.Match[str]) -> bool:
    """With a colon, or nothing else on its line and so capitalised as headers are."""
    return bool(match["after"].strip()) or (match["word"][:1].isupper() and _line_start(text, match.start()))


def _line_start(text: str, place: int) -> bool:
    return not text[text.rfind("\n", 0, place) + 1 : place].strip(" \t*#")


def _stands_out(text: str, place: int, match: re.Match[str]) -> bool:
    word = match["word"]
    if not match["after"].strip():
        return False
    return word.isupper() or text[:place].rstrip()[-1:] in ".!?:;)]"


def _behind_markup(text: str, end: int) -> int:
    """Behind the stars of ``**Findings:**``."""
    stars = re.compile(r"\*+").match(text, end)
    return stars.end() if stars else end
