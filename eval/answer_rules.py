"""The rules that read a closed answer: which choices each finds, in the order of trust."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from medvlm.data_recipes.sample import Question

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DECORATION = re.compile(r"[*_#`\"“”‘’]+")
_MARKER = re.compile(r"\b(?:final\s+)?answer\s*(?:is|:)\s*:?\s*([^.\n;]+)", re.IGNORECASE)
_ALIASES = {
    "both": ("bilateral", "bilaterally", "both sides"),
    "neither": ("neither side",),
    "是": ("是的", "对"),
    "否": ("不是", "不", "否定"),
    "有": ("有的",),
    "没有": ("无", "没"),
    "不是": ("否", "不"),
}


_DENIES = (
    r"(?:not|\w{1,6}n'?t|cannot|never|rather than|instead of|neither|nor|no|without|free of|absence of|negative for|"
    r"rul(?:e|es|ed|ing) out|"
    r"exclud(?:e|es|ed|ing)|den(?:y|ies|ied)|argues? against|unlikely to be)"
)
_BETWEEN = (
    r"(?:(?:on|in|of|for|to|be|a|an|the|any|evidence|signs?|findings?|suggest\w*|option|choice|answer|likely|"
    r"acute|definite|obvious|visible|significant)\s+){0,6}"
)
_DENIED_AFTER = (
    r"\s*(?:(?:is|are|was|were|isn'?t|can be|could be|has been|seems?|appears?)\b\s*)?(?:not\b|incorrect|wrong|false\b|"
    r"unlikely|less likely|absent|excluded|ruled out)"
)


def _without_denied(text: str, name: str) -> str:
    """``text`` without ``name`` (a pattern) where it is denied: "no X", "not the X", "X is unlikely", "X is wrong".

    What is denied is no answer, and what else was meant is not guessed.
    """
    text = re.sub(rf"\b(?<!-){_DENIES}\s+{_BETWEEN}[(\[]?{name}[)\].:]*", " ", text, flags=re.IGNORECASE)
    return re.sub(rf"[(\[]?{name}[)\]]*(?i:{_DENIED_AFTER})", " ", text)


def plain_text(text: str) -> str:
    return " ".join(DECORATION.sub("", text).split()).strip(" .,;:!。，；：！？、").lower()


def closed_rules(question: Question, texts: Sequence[str], answer: str, prompt: str) -> Iterator[tuple[str, set[int]]]:
    """(rule name, places of the choices it found) in the order of trust; the first that finds any decides.

    Each rule runs when it is asked for: most answers are read by the first.
    """
    marked = [m.strip() for m in _MARKER.findall(answer)]
    lettered = question.kind == "choice"
    # "B" is the letter of the second choice, also where another choice reads "B" (names of parts of a figure).
    spelt = ["\0" if lettered and text.upper() in tuple(LETTERS[: len(texts)]) else text for text in texts]
    yield "exact", _exact(spelt, answer)
    # A choice that is a bare letter is read by the letter rules: "a" as a word would be found in any sentence.
    names = ["\0" if lettered and len(text) == 1 else text for text in texts]
    if lettered:
        yield "letter_only", _letter_only(len(texts), answer)
    if marked:
        found: set[int] = set()
        for text in marked:
            found |= _exact(spelt, text) or (_letters(len(texts), text) if lettered else set())
            # "Answer: no effusion" says nothing of a heart: a bare yes or no must stand alone here too.
            read = _yes_no if {"yes", "no"} <= set(texts) else _mentions
            found |= set() if found else read(names, text)
        yield "answer_marker", found
    if lettered:
        yield "leading_letter", _leading_letter(names, answer)
        yield "bracketed_letter", _bracketed(len(texts), answer)
        yield "choice_text", _mentions(names, answer)
        yield "single_letter", _letters(len(texts), answer)
        return
    if {"yes", "no"} <= set(texts):
        yield "yes_no", _yes_no(texts, answer)
        yield "restatement", _restatement(texts, answer, prompt)
    else:
        yield "choice_text", _mentions(texts, answer)


def _exact(texts: Sequence[str], answer: str) -> set[int]:
    plain = plain_text(answer)
    return {place for place, text in enumerate(texts) if plain == text or plain in _ALIASES.get(text, ())}


_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def _as_word(name: str) -> str:
    """A pattern of ``name`` as a whole word. Chinese has no spaces: there a name of two characters or more may stand
    anywhere (the longest is looked for first: "不包含" before "包含"), one of a single character only alone."""
    if len(name) > 1 and _CHINESE.search(name):
        return rf"(?<!不是)(?<!并非)(?<!而非){re.escape(name)}"
    # "non-contrast" is no contrast, "12.5 cm" are not 5 cm, and 2 is not 2.5.
    number_before = r"(?<!\d[.,])" if name[:1].isdigit() else ""
    number_after = r"(?![.,]\d)" if name[-1:].isdigit() else ""
    return rf"(?<!\w)(?<!\bnon-)(?<!\bnon ){number_before}{re.escape(name)}(?!\w){number_after}"


def _mentions(texts: Sequence[str], answer: str) -> set[int]:
    """Choices named as whole words; the longest first, so that "left lung" is not also "lung"; "not X" is no X."""
    rest = plain_text(answer)
    names = sorted(
        ((name, place) for place, text in enumerate(texts) for name in (text, *_ALIASES.get(text, ()))),
        key=lambda pair: -len(pair[0]),
    )
    found: set[int] = set()
    for name, place in names:
        word = _as_word(name)
        if re.search(word, rest) is None:
            continue
        rest = _without_denied(rest, word)
        if re.search(word, rest):
            found.add(place)
            rest = re.sub(word, " ", rest)
    return found


def _letter_only(count: int, answer: str) -> set[int]:
    match = re.fullmatch(r"\s*(?:option\s+|choice\s+)?[(\[]?([A-Za-z])[)\].:,]*\s*", answer)
    return _place(match[1], count) if match else set()


def _leading_letter(texts: Sequence[str], answer: str) -> set[int]:
    """ "B. left lower zone" or "(B) ...": the letter, and in conflict with any other letter or choice named after."""
    match = re.match(r"\s*(?:\(([A-Z])\)|\[([A-Z])\]|([A-Z])[).:,])\s+", answer)
    if not match or re.match(_DENIED_AFTER, answer[match.end() :], re.IGNORECASE):
        return set()
    found = _place(match[1] or match[2] or match[3], len(texts))
    rest = re.sub(r"\bnot\s+\(?[A-Z]\b[).:]*", "not ", answer[match.end() :])
    if match[0].rstrip().endswith(","):  # "B, C" names two, where "B. C-shaped" names one
        found |= _letters(len(texts), rest)
    for letter in re.findall(r"(?:^|[\s(])([A-Z])[).:](?=\s|$)", rest):
        found |= _place(letter, len(texts))
    return found | _mentions(texts, rest) if found else set()


def _bracketed(count: int, answer: str) -> set[int]:
    said = _without_denied(answer, r"[A-Z]\b")
    return {p for letter in re.findall(r"[(\[]([A-Z])[)\]]", said) for p in _place(letter, count)}


def _letters(count: int, answer: str) -> set[int]:
    """Capital letters that stand alone, except the article "A" before a word and the pronoun "I"."""
    found: set[int] = set()
    said = _without_denied(answer, r"(?<![\w'])[A-Z](?![\w'])")
    for match in re.finditer(r"(?<![\w'])([A-Z])(?![\w'])", said):
        article = match[1] in "AI" and re.match(r"\s+(?!(?:or|and)\b)[a-z]", said[match.end() :]) is not None
        if not article:
            found |= _place(match[1], count)
    return found


def _place(letter: str, count: int) -> set[int]:
    place = LETTERS.find(letter.upper())
    return {place} if 0 <= place < count else set()


def _yes_no(texts: Sequence[str], answer: str) -> set[int]:
    """Choices said as an answer: "no" counts only where it stands alone, not as in "no effusion", "normal", "no. 3"."""
    lower = answer.lower()
    found: set[int] = set()
    for place, text in enumerate(texts):
        if text == "no":
            said = re.search(r"(?<!\w)no(?=\s*(?:\.(?!\s*\d)|[,;:!?()<\n]|-\s|–|—|$))", lower)
        elif text == "yes":
            said = re.search(r"(?<!\w)(?<!not )(?<!n't )(?<!nt )yes(?!\w)", lower)
        else:
            said = re.search(rf"(?<!\w){re.escape(text)}(?!\w)", lower)
        if said:
            found.add(place)
    return found


_FILLER = frozenset(
    {
        "is", "are", "there", "a", "an", "any", "the", "this", "that", "of", "in", "on", "at", "to", "and",
        "or", "it", "image", "scan", "study", "picture", "x-ray", "xray", "radiograph", "ct", "volume", "video",
        "visible", "seen", "present", "evidence", "sign", "signs", "show", "shown", "shows", "does", "do",
        "you", "see", "can", "be", "has", "have", "patient", "answer", "yes", "no",
    }
)  # fmt: skip


def _restatement(texts: Sequence[str], answer: str, prompt: str) -> set[int]:
    """ "There is no pneumothorax." to "Is there a pneumothorax?"; only when the answer names nothing else."""
    question = prompt.strip().lower()
    statement = plain_text(answer)
    if not re.match(r"(?:is|are) there\b|do(?:es)? .*\b(?:show|see|have)\b|can you see\b|can .*\bbe seen\b", question):
        return set()
    if re.search(r"[.;\n]", statement):
        return set()
    asked = _content(question)
    denied = re.fullmatch(r"(?:there (?:is|are) )?(?:no|not any)(?: evidence of| signs? of)? (.+)", statement)
    if denied:
        words = _content(denied[1])
        return {texts.index("no")} if words and words <= asked else set()
    stated = re.fullmatch(r"there (?:is|are) (.+)", statement)
    if stated and not re.search(r"\b(?:no|not|without)\b", stated[1]):
        # "There is an effusion" does not answer whether there is a LEFT effusion: all that was asked must be said.
        return {texts.index("yes")} if _content(stated[1]) == asked else set()
    return set()


def _content(text: str) -> set[str]:
    return set(re.findall(r"[a-z][a-z-]*", text)) - _FILLER
