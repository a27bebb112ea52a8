"""From what a model wrote to the answer it gave: ordered, named rules, and None rather than a guess.

Substring tests ("no" in "normal"), nearest-choice fallbacks and random picks are the best known ways in which
medical VQA scores have been wrong; here an answer that no rule can read, or that names two choices, stays
unparsed, is marked wrong and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.box_text import BoxForm
from medvlm.data_recipes.sample import Question
from medvlm.eval.box_answer import read_answer
from medvlm.eval.rows import Row, write_rows

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DECORATION = re.compile(r"[*_#`\"“”‘’]+")
_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_MARKER = re.compile(r"\b(?:final\s+)?answer\s*(?:is|:)\s*:?\s*([^.\n;]+)", re.IGNORECASE)
_OPTION_LINE = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$", re.MULTILINE)
_ALIASES = {"both": ("bilateral", "bilaterally", "both sides"), "neither": ("neither side",)}


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What was read from one answer.

    Attributes:
        value: closed and choice: the choice, spelt as in ``options``; open and report: the cleaned text; box: the
            box in our own form. None when no rule could read an answer.
        rule: the rule that decided, or why there is no value: "empty", "thinking_cut_off", "conflict", "unparsed",
            for a box a Reason of data_recipes.box_text.
        n_candidates: distinct answers that the deciding rule found; 2 or more is a conflict.
    """

    value: str | None
    rule: str
    n_candidates: int


def options(question: Question, prompt: str = "") -> tuple[str, ...]:
    """The choices of ``question`` as lower-case texts, in the order shown.

    Where the manifest lists bare letters, their texts are looked up in the lettered lines of ``prompt``; without
    such lines the letters themselves are the texts.
    """
    shown = [choice.strip() for choice in question.choices]
    letters = list(_LETTERS[: len(shown)])
    if shown == letters:
        lines = dict(_OPTION_LINE.findall(prompt))
        return tuple(_plain(lines.get(letter, letter)) for letter in letters)
    matched = [_OPTION_LINE.fullmatch(choice) for choice in shown]
    if all(m is not None and m[1] == letter for m, letter in zip(matched, letters, strict=True)):
        return tuple(_plain(m[2]) for m in matched if m is not None)
    return tuple(_plain(choice) for choice in shown)


def choice_index(question: Question, answer: str, prompt: str = "") -> int | None:
    """Which choice a reference answer is: by its text, as listed or without its letter, or by its letter."""
    plain = _plain(answer)
    for texts in (tuple(_plain(c) for c in question.choices), options(question, prompt)):
        if plain in texts:
            return texts.index(plain)
    if question.kind == "choice" and len(plain) == 1 and plain.upper() in _LETTERS[: len(question.choices)]:
        return _LETTERS.index(plain.upper())
    return None


def _plain(text: str) -> str:
    return " ".join(_DECORATION.sub("", text).split()).strip(" .,;:!").lower()


def visible_answer(text: str) -> str | None:
    """``text`` without its thinking; None when the answer was cut off while still thinking."""
    text = re.sub(r"<think>.*?</think>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    # Some chat templates open the thinking in the prompt, so that only its end is in the answer.
    text = re.split(r"</think>", text, flags=re.IGNORECASE)[-1]
    if re.search(r"<think>", text, flags=re.IGNORECASE):
        return None
    return text.strip()


def extract(question: Question, text: str, prompt: str = "", box_form: BoxForm = "box") -> Extraction:
    """Read the answer to ``question`` out of ``text``.

    Args:
        text: as the model wrote it.
        prompt: the text of the question as asked; gives lettered options their texts and lets "There is no
            pneumothorax." answer "Is there a pneumothorax?".
        box_form: how the model writes boxes.
    """
    answer = visible_answer(text)
    if answer is None:
        return Extraction(value=None, rule="thinking_cut_off", n_candidates=0)
    tagged = _ANSWER_TAG.findall(answer) or _BOXED.findall(answer)
    if tagged:
        answer = tagged[-1].strip()
    if not _plain(answer):
        return Extraction(value=None, rule="empty", n_candidates=0)
    if question.kind in ("open", "report"):
        return Extraction(value=answer, rule="tag" if tagged else "text", n_candidates=1)
    if question.kind == "box":
        read = read_answer(question, answer, box_form)
        return Extraction(value=read.text, rule=read.reason or "box", n_candidates=read.count)
    texts = options(question, prompt)
    answer = " ".join(_DECORATION.sub("", answer).split(" ")).strip()
    for rule, found in _closed_rules(question, texts, answer, prompt):
        if len(found) == 1:
            return Extraction(value=texts[found.pop()], rule=rule, n_candidates=1)
        if found:
            return Extraction(value=None, rule="conflict", n_candidates=len(found))
    return Extraction(value=None, rule="unparsed", n_candidates=0)


def _closed_rules(question: Question, texts: Sequence[str], answer: str, prompt: str) -> list[tuple[str, set[int]]]:
    """(rule name, places of the choices it found) in the order of trust; the first that finds any decides."""
    marked = [m.strip() for m in _MARKER.findall(answer)]
    rules: list[tuple[str, set[int]]] = [("exact", _exact(texts, answer))]
    lettered = question.kind == "choice"
    # A choice that is a bare letter is read by the letter rules: "a" as a word would be found in any sentence.
    names = ["\0" if lettered and len(text) == 1 else text for text in texts]
    if lettered:
        rules.append(("letter_only", _letter_only(len(texts), answer)))
    if marked:
        found: set[int] = set()
        for text in marked:
            found |= _exact(texts, text) or (_letters(len(texts), text) if lettered else set())
            found |= set() if found else _mentions(names, text)
        rules.append(("answer_marker", found))
    if lettered:
        rules.append(("leading_letter", _leading_letter(names, answer)))
        rules.append(("bracketed_letter", _bracketed(len(texts), answer)))
        rules.append(("choice_text", _mentions(names, answer)))
        rules.append(("single_letter", _letters(len(texts), answer)))
        return rules
    if {"yes", "no"} <= set(texts):
        rules.append(("yes_no", _yes_no(texts, answer)))
        rules.append(("restatement", _restatement(texts, answer, prompt)))
    else:
        rules.append(("choice_text", _mentions(texts, answer)))
    return rules


def _exact(texts: Sequence[str], answer: str) -> set[int]:
    plain = _plain(answer)
    return {place for place, text in enumerate(texts) if plain == text or plain in _ALIASES.get(text, ())}


def _mentions(texts: Sequence[str], answer: str) -> set[int]:
    """Choices named as whole words; the longest first, so that "left lung" is not also "lung"; "not X" is no X."""
    rest = _plain(answer)
    names = sorted(
        ((name, place) for place, text in enumerate(texts) for name in (text, *_ALIASES.get(text, ()))),
        key=lambda pair: -len(pair[0]),
    )
    found: set[int] = set()
    for name, place in names:
        word = rf"(?<!\w){re.escape(name)}(?!\w)"
        rest = re.sub(rf"\b(?:not|rather than|instead of)\s+(?:(?:on|in|the)\s+)*{word}", " ", rest)
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
    if not match:
        return set()
    found = _place(match[1] or match[2] or match[3], len(texts))
    rest = re.sub(r"\bnot\s+\(?[A-Z]\b\)?", " ", answer[match.end() :])
    for letter in re.findall(r"(?:^|[\s(])([A-Z])[).:](?=\s|$)", rest):
        found |= _place(letter, len(texts))
    return found | _mentions(texts, rest) if found else set()


def _bracketed(count: int, answer: str) -> set[int]:
    return {p for letter in re.findall(r"[(\[]([A-Z])[)\]]", answer) for p in _place(letter, count)}


def _letters(count: int, answer: str) -> set[int]:
    """Capital letters that stand alone, except the article "A" before a word and the pronoun "I"."""
    found: set[int] = set()
    said = re.sub(r"\bnot\s+\(?[A-Z]\b\)?", " ", answer)
    for match in re.finditer(r"(?<![\w'])([A-Z])(?![\w'])", said):
        article = match[1] in "AI" and re.match(r"\s+(?!(?:or|and)\b)[a-z]", said[match.end() :]) is not None
        if not article:
            found |= _place(match[1], count)
    return found


def _place(letter: str, count: int) -> set[int]:
    place = _LETTERS.find(letter.upper())
    return {place} if 0 <= place < count else set()


def _yes_no(texts: Sequence[str], answer: str) -> set[int]:
    """Choices said as an answer: "no" counts only where it stands alone, never as in "no effusion" or "normal"."""
    lower = answer.lower()
    found: set[int] = set()
    for place, text in enumerate(texts):
        if text == "no":
            said = re.search(r"(?<!\w)no(?=\s*(?:[.,;:!?)\n]|-\s|–|—|$))", lower)
        elif text == "yes":
            said = re.search(r"(?<!\w)(?<!not )yes(?!\w)", lower)
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
        "you", "see", "can", "has", "have", "patient", "answer", "yes", "no",
    }
)  # fmt: skip


def _restatement(texts: Sequence[str], answer: str, prompt: str) -> set[int]:
    """ "There is no pneumothorax." to "Is there a pneumothorax?"; only when the answer names nothing else."""
    question = prompt.strip().lower()
    statement = _plain(answer)
    if not re.match(r"(?:is|are) there\b|do(?:es)? .*\b(?:show|see|have)\b|can you see\b", question):
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


def extract_rows(
    responses: Sequence[Row], asked: Mapping[str, tuple[Question, str]], out: Path, box_form: BoxForm = "box"
) -> list[Row]:
    """The extract stage: one row per response into ``out``/extractions.jsonl, replaced whole.

    Args:
        responses: rows of responses.*.jsonl.
        asked: request_id -> (question, its text as asked).
        box_form: how the model writes boxes.
    """
    rows: list[Row] = []
    for response in responses:
        question, prompt = asked[response["request_id"]]
        result = extract(question, response["text"], prompt, box_form)
        rows.append(
            {
                "request_id": response["request_id"],
                "value": result.value,
                "rule": result.rule,
                "n_candidates": result.n_candidates,
            }
        )
    write_rows(out / "extractions.jsonl", rows)
    return rows
