"""What a case is filtered by: names for what went wrong, and for what the controls say about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from medvlm.eval.controls import BLIND
from medvlm.eval.gallery import verdict
from medvlm.eval.rows import Row

TAGS: Mapping[str, str] = {
    "wrong": "Wrong",
    "partly": "Partly right",
    "right": "Right",
    "unmarked": "Not marked",
    "unparsed": "Unreadable",
    "refused": "Refused",
    "empty": "Empty",
    "truncated": "Cut off",
    "invented": "Invented finding",
    "missed": "Missed finding",
    "wrong_side": "Wrong side",
    "wrong_number": "Wrong measurement",
    "reversed": "Change reversed",
    "blind": "Right without the image",
    "swayed": "Right with another image",
    "seen": "Right only with its image",
    "unstable": "Changes with wording, order or noise",
    "degenerate": "Degenerate case",
    "differ": "Answers differ",
    "a_only": "A right, B wrong",
    "b_only": "B right, A wrong",
    "both": "Both right",
    "neither": "Both wrong",
}
"""Tag -> its name on a button, in the order of the buttons; those that no case has are not shown."""

_SIDES = frozenset({"left", "right", "bilateral", "both", "neither"})


def tags_of(scores: Sequence[Row]) -> list[str]:
    """Tags of one case.

    Args:
        scores: its rows of scores.jsonl, that with its own image first.
    """
    first, *others = scores
    word = verdict(first)
    under: dict[str, set[str]] = defaultdict(set)  # in every order of the choices there is an answer
    for row in others:
        under[row["condition"]].add(verdict(row))
    told = {
        word: True,
        "wrong": word == "unparsed",  # marked wrong as well
        "refused": first["rule"] == "refused",
        "empty": first["empty"],
        "truncated": first["truncated"],
        "invented": bool(_count(first, "findings", "invented")),
        "missed": bool(_count(first, "findings", "missed")),
        "wrong_side": _wrong_side(first),
        "wrong_number": any(_count(first, "numbers", key) for key in ("invented", "missed")),
        "reversed": bool(_count(first, "changes", "reversed")),
        "degenerate": bool(first.get("flags")),
    } | ({"wrong": True} if word == "wrong" else {})
    if first["condition"] == "image":
        told |= {
            "blind": word == "right" and "right" in under["no_image"],
            "swayed": word == "right" and "right" in under["swapped"],
            "seen": word == "right" and bool(under["no_image"]) and "right" not in under["no_image"],
            "unstable": any(
                (other == "right") != (word == "right")
                for condition in under.keys() - set(BLIND)
                for other in under[condition]
            ),
        }
    return [tag for tag in TAGS if told.get(tag)]


def _wrong_side(score: Row) -> bool:
    """A side was asked for and another one given, or a scorer of reports found one on the other side."""
    if score["kind"] == "closed" and set(score.get("choices", ())) <= _SIDES:
        return not score["unparsed"] and not score["correct"]
    return bool(_count(score, "sides", "flipped"))


def _count(score: Row, mark: str, key: str) -> int:
    """A count that a scorer of reports made of one answer; 0 where it did not mark it."""
    return int((score.get(mark) or {}).get(key) or 0)


def comparison_tags(a: Row, b: Row) -> list[str]:
    """Tags of one case in two runs, from the rows with its own image."""
    words = (verdict(a), verdict(b))
    first, second = (word == "right" for word in words)
    told = {
        "differ": a["value"] != b["value"] or words[0] != words[1],
        "a_only": first and not second,
        "b_only": second and not first,
        "both": first and second,
        "neither": not first and not second,
    }
    told |= dict.fromkeys({"unparsed", "refused"} & {*words, a["rule"], b["rule"]}, True)
    told["truncated"] = a["truncated"] or b["truncated"]
    return [tag for tag in TAGS if told.get(tag)]
