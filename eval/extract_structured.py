"""Read sets of labels, spans and JSON objects out of what a model wrote: named rules, and None rather than a guess."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from medvlm.data_recipes.asking import ENTITIES, NONE_OF_THEM, SEPARATOR
from medvlm.data_recipes.sample import Question

Read = tuple[str | None, str, int]
"""(value, rule, number of candidates), as in eval.extract.Extraction."""

_NOTHING = frozenset(
    {"none", "none of them", "none of these", "none of the above", "nothing", "no finding", "no findings"}
)
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.)])\s+")
_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{\s*(?=\{)")
_SAID = re.compile(r"[:=]\s*(?P<said>yes|no|present|absent|true|false|1|0)\s*[.,;]?$", re.IGNORECASE)
_HOLDS = frozenset({"yes", "present", "true", "1"})
_DENIAL = re.compile(r"\b(?:no|not|without|absent|absence|negative for|free of|denies|neither|nor|ruled out)\b")
_DENIED_AFTER = re.compile(r"[\s:=(–-]*(?:(?:is|are|was|were)\b\s*)?(?:no|not|absent|negative|excluded|ruled out)\b")
_BETWEEN = re.compile(r"[;,\n]|(?<=\s)and(?=\s)")
_CLAUSE = re.compile(r"[.;\n]|\bbut\b|\bhowever\b|\balthough\b")
_LEAD = re.compile(
    r"^(?:the\s+)?(?:final\s+)?(?:answers?|labels?|findings?|entities|list)\s*(?:are|is|:)\s*:?\s*", re.IGNORECASE
)


def read_structured(question: Question, answer: str) -> Read:
    """Read an answer whose thinking and answer tags are taken off already, and which is not empty.

    Returns:
        value: labels: those that hold in the order of the choices, joined by "; ", or "none"; span: the words, of
        entities one a line, or "none"; json: the object as text with sorted keys.

    Raises:
        ValueError: ``question`` is of another kind.
    """
    match question.kind:
        case "labels":
            return read_labels(question.choices, answer)
        case "span":
            return read_entities(answer) if question.topic == ENTITIES else (unquoted(answer), "text", 1)
        case "json":
            return read_object(answer)
    raise ValueError(f"a {question.kind} question is read by eval.extract")


def unquoted(text: str) -> str:
    """``text`` on one line, without quotation marks around it."""
    plain = " ".join(text.split())
    return plain[1:-1].strip() if len(plain) > 2 and plain[0] + plain[-1] in ('""', "''", "“”", "‘’") else plain


# --- labels --------------------------------------------------------------------------------------------------


def _bare(text: str) -> str:
    return " ".join(re.sub(r"[_*`\"“”]+", " ", text).split()).strip(" .,:!()[]'").lower()


def read_labels(choices: Sequence[str], answer: str) -> Read:
    """The labels that an answer says hold; rules "none", "lines", "list", "mentions".

    A list of which one item is no label is not read as a list. A label that is both named and denied is a conflict. An
    answer that only denies labels says nothing of the others, and stays unparsed.
    """
    names = {_bare(choice): choice for choice in choices}
    answer = _LEAD.sub("", answer.strip())
    if _bare(answer) in _NOTHING or answer.strip() == "[]":
        return NONE_OF_THEM, "none", 1
    said = _said_by_line(names, answer)
    if said is not None:
        doubtful = sum(len(both) > 1 for both in said.values())
        held = {name for name, both in said.items() if True in both}
        return (None, "conflict", 2 * doubtful) if doubtful else (_joined(choices, held), "lines", 1)
    listed = _listed(names, answer)
    if listed is not None:
        return _joined(choices, listed), "list", 1
    held, denied = _mentioned(names, answer)
    if held & denied:
        return None, "conflict", len(held) + len(denied)
    return (_joined(choices, held), "mentions", 1) if held else (None, "unparsed", 0)


def _joined(choices: Sequence[str], held: set[str]) -> str:
    return SEPARATOR.join(choice for choice in choices if choice in held) or NONE_OF_THEM


def _said_by_line(names: dict[str, str], answer: str) -> dict[str, set[bool]] | None:
    """ "Edema: yes" on every line -> label -> what is said of it; None where a line is of another form."""
    said: dict[str, set[bool]] = {}
    for line in answer.splitlines():
        if not line.strip():
            continue
        line = _BULLET.sub("", line).replace("*", "").strip()
        match = _SAID.search(line)
        name = names.get(_bare(line[: match.start()])) if match else None
        if match is None or name is None:
            return None
        said.setdefault(name, set()).add(match["said"].lower() in _HOLDS)
    return said


def _listed(names: dict[str, str], answer: str) -> set[str] | None:
    items = _json_list(answer) or [part for part in _BETWEEN.split(answer) if part.strip()]
    found = [names.get(_bare(_BULLET.sub("", item))) for item in items]
    return {name for name in found if name is not None} if found and None not in found else None


def _mentioned(names: dict[str, str], answer: str) -> tuple[set[str], set[str]]:
    """Labels said and labels denied, as whole words; the longest name first, so that a part of it is not read too."""
    held: set[str] = set()
    denied: set[str] = set()
    for clause in _CLAUSE.split(answer.lower().replace("_", " ")):
        rest = clause
        for name in sorted(names, key=len, reverse=True):
            denial = _DENIAL.search(rest)
            first = len(rest) if denial is None else denial.end()
            for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", rest):
                said_not = first <= match.start() or _DENIED_AFTER.match(rest, match.end())
                (denied if said_not else held).add(names[name])
            rest = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "#" * len(name), rest)
    return held, denied


# --- entities ------------------------------------------------------------------------------------------------


def read_entities(answer: str) -> Read:
    """The entities of a list: a JSON list, one a line, or separated by semicolons or, on a single line, by ", ".

    Rules "none", "json_list", "lines", "semicolons", "commas", "single". A comma without a blank after it is part of a
    name (N,N-dimethyltryptamine).
    """
    answer = _LEAD.sub("", answer.strip())
    if _bare(answer) in _NOTHING or answer.strip() == "[]":
        return NONE_OF_THEM, "none", 1
    listed = _json_list(answer)
    if listed:
        return _one_a_line(listed), "json_list", 1
    lines = [line for line in answer.splitlines() if line.strip()]
    if len(lines) > 1:
        return _one_a_line(lines), "lines", 1
    for rule, separator in (("semicolons", ";"), ("commas", ", ")):
        if separator in answer:
            return _one_a_line(answer.split(separator)), rule, 1
    return _one_a_line([answer]), "single", 1


def _one_a_line(items: Sequence[str]) -> str | None:
    plain = (unquoted(_BULLET.sub("", item)).strip(" ;") for item in items)
    return "\n".join(dict.fromkeys(item for item in plain if item)) or None


def _json_list(answer: str) -> list[str] | None:
    fenced = _FENCE.search(answer)
    text = (fenced[1] if fenced else answer).strip()
    if not text.startswith("["):
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return None  # Not JSON, or a number or nesting without end: the rules for plain text read it.
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


# --- JSON ----------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is beyond every number")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
"""Strict: no NaN, no number that reads as infinity (1e999), no key twice."""


def read_object(answer: str) -> Read:
    """The one JSON object of an answer; rules "json" (nothing else was written), "json_in_text", or why there is none.

    Several different objects are a "conflict"; text without a valid object is "invalid_json".
    """
    fenced = _boxed_objects(answer) or _FENCE.findall(answer)
    found = list(dict.fromkeys(_objects(fenced[-1] if fenced else answer)))
    if not found:
        return None, "invalid_json", 0
    if len(found) > 1:
        return None, "conflict", len(found)
    bare = (fenced[-1] if fenced else answer).strip()
    return found[0], "json" if bare.startswith("{") and bare.endswith("}") else "json_in_text", 1


def _objects(text: str) -> Iterator[str]:
    """Each outermost object of ``text``, with sorted keys."""
    place = text.find("{")
    while place >= 0:
        try:
            value, end = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            # A brace that opens no object, or a broken one: what stands inside it is no answer of its own.
            end = _closing(text, place)
        else:
            yield json.dumps(value, sort_keys=True, ensure_ascii=False)
        place = text.find("{", end)


def _boxed_objects(answer: str) -> list[str]:
    r"""The text of every object that stands alone in \boxed{}."""
    found = []
    for box in _BOXED.finditer(answer):
        try:
            end = DECODER.raw_decode(answer, box.end())[1]
        except (ValueError, RecursionError):
            continue
        if answer[end : end + 80].lstrip().startswith("}"):
            found.append(answer[box.end() : end])
    return found


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)
