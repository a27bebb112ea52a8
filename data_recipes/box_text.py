"""Boxes as text: one form that is written, and strict reading of it and of two forms of other models.

No text is repaired: what is not exactly one valid box has no box and a reason with a name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from medvlm.data_recipes.grounding import Box, box_of, to_mm

BoxForm = Literal["box", "thousandths", "m3d"]
Reason = Literal[
    "no_box", "malformed_box", "wrong_count", "out_of_range", "reversed_corners", "several_boxes", "millimetres_unknown"
]

DECIMALS, DECIMALS_MM = 3, 1
"""Decimals that are written: a thousandth of the field of view, a tenth of a millimetre."""

REQUESTS: Mapping[int, str] = {
    2: "Answer with <box>(x1, y1, x2, y2)</box>.",
    3: "Answer with <box>(x1, y1, z1, x2, y2, z2)</box>.",
}
"""What a question ends with, by number of axes, so that the form of the answer is stated."""

REQUESTS_MM: Mapping[int, str] = {
    2: "Answer with <box>(x1, y1, x2, y2) mm</box>.",
    3: "Answer with <box>(x1, y1, z1, x2, y2, z2) mm</box>.",
}


def to_text(box: Box, extent: Sequence[float] | None = None, *, decimals: int | None = None) -> str:
    """``<box>(0.120, 0.300, 0.450, 0.610)</box>``, or ``<box>(41.9, 105.0, 157.1, 213.4) mm</box>`` with ``extent``.

    Numbers are rounded outwards, so that what is written still holds all that the box holds.

    Args:
        extent: field of view in millimetres along x, y(, z); None writes fractions of it.
        decimals: DECIMALS or DECIMALS_MM unless told otherwise.
    """
    scale, corners = (DECIMALS, astuple(box)) if extent is None else (DECIMALS_MM, to_mm(box, extent))
    scale = scale if decimals is None else decimals
    half, unit = len(corners) // 2, 10**scale
    # The small constant keeps a number that is already round from moving to its neighbour.
    low = [math.floor(value * unit + 1e-6) / unit for value in corners[:half]]
    high = [math.ceil(value * unit - 1e-6) / unit for value in corners[half:]]
    numbers = ", ".join(f"{value:.{scale}f}" for value in (*low, *high))
    return f"<box>({numbers}){'' if extent is None else ' mm'}</box>"


@dataclass(frozen=True, kw_only=True)
class ReadBox:
    """What was read from a text.

    Attributes:
        box: None when the text does not name exactly one valid box.
        reason: why there is none; None when there is one.
        count: different boxes that the text names.
        text: the box in our own form, with the numbers as they were written; None when there is no box.
    """

    box: Box | None
    reason: Reason | None
    count: int
    text: str | None = None


class _Unreadable(Exception):
    """One box of a text that breaks a rule; never leaves this module."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_OURS = re.compile(r"<box>(.*?)(</box>(?:\s*mm\b)?|(?=<box>)|\Z)", re.DOTALL | re.IGNORECASE)
_OURS_INSIDE = re.compile(r"\s*\(([^()]*)\)\s*(mm)?\s*", re.IGNORECASE)
_MILLIMETRES = re.compile(r"\)\s*mm\s*</box>", re.IGNORECASE)
_QWEN_TAGS = re.compile(r"<\|box_start\|>(.*?)(?:<\|box_end\|>|(?=<\|box_start\|>)|\Z)", re.DOTALL)
_QWEN_PAIR = re.compile(r"\s*\(([^()]*)\)\s*,\s*\(([^()]*)\)\s*")
_QWEN_JSON = re.compile(r"\"bbox_2d\"\s*:\s*(?:\[([^\[\]]*)\]|)")
_LIST = re.compile(r"\[\s*([-+.\d][^\[\]]*)\]")  # of numbers: M3D also writes [SEG]


def read_box(text: str, *, axes: int, extent: Sequence[float] | None = None, form: BoxForm = "box") -> ReadBox:
    """The one box that ``text`` names; anything else is None with a reason, never a guess.

    The same box said twice is one box; two different ones are "several_boxes". A broken box beside a good one makes the
    text unreadable.

    Args:
        axes: 2 or 3, what is asked for.
        extent: field of view in millimetres along x, y(, z); needed to read ``mm``.
        form: "box" is our own (see :func:`to_text`). "thousandths" reads integers 0 to 1000, 2D only, as
            ``<|box_start|>(x1,y1),(x2,y2)<|box_end|>`` (Qwen2-VL) or ``"bbox_2d": [x1, y1, x2, y2]`` (Qwen3-VL; the
            same text of Qwen2.5-VL holds pixels of its resized picture and must not be read by this). "m3d" reads
            ``[z1, y1, x1, z2, y2, x2]``, 3D only, fractions in the order of the array axes (M3D, LaMed utils.mask2box).

    Raises:
        ValueError: ``axes`` is not 2 or 3, or ``form`` has no boxes of that many axes.
    """
    only = {"thousandths": 2, "m3d": 3}.get(form, axes)
    if axes not in (2, 3) or axes != only:
        raise ValueError(f"form {form!r} has no boxes of {axes} axes; use form='box', or ask for {only} axes")
    read, found = _FORMS[form]
    boxes: dict[Box, str] = {}
    try:
        for piece in found(text):
            box = read(piece, axes, extent)
            # Six decimals for a form whose numbers are not ours: far below what any model writes.
            boxes.setdefault(box, f"<box>{piece.strip()}</box>" if form == "box" else to_text(box, decimals=6))
    except _Unreadable as broken:
        return ReadBox(box=None, reason=broken.reason, count=len(boxes))
    if len(boxes) != 1:
        return ReadBox(box=None, reason="several_boxes" if boxes else "no_box", count=len(boxes))
    ((box, said),) = boxes.items()
    return ReadBox(box=box, reason=None, count=1, text=said)


def request_for(answer: str, axes: int) -> str:
    """What a question whose answer is ``answer`` ends with: in millimetres when the answer is."""
    return (REQUESTS_MM if _MILLIMETRES.search(answer) else REQUESTS)[axes]


def _numbers(text: str, count: int) -> list[float]:
    parts = [part.strip() for part in text.split(",")]
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise _Unreadable("malformed_box")
    if len(parts) != count:
        raise _Unreadable("wrong_count")
    return [float(part) for part in parts]


def _corners(values: Sequence[float], extent: Sequence[float], slack: float) -> Box:
    """Numbers in units of ``extent`` -> box; what leaves it by no more than ``slack`` (rounding) is moved in."""
    half = len(values) // 2
    fractions = []
    for value, whole in zip(values, (*extent, *extent), strict=True):
        if not -slack <= value <= whole + slack:
            raise _Unreadable("out_of_range")
        fractions.append(min(max(value / whole, 0.0), 1.0))
    low, high = fractions[:half], fractions[half:]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        raise _Unreadable("reversed_corners")
    return box_of(low, high)


def _read_ours(inside: str, axes: int, extent: Sequence[float] | None) -> Box:
    match = _OURS_INSIDE.fullmatch(inside)
    if match is None:
        raise _Unreadable("malformed_box")
    values = _numbers(match[1], 2 * axes)
    if match[2] is None:
        return _corners(values, (1.0,) * axes, slack=10**-DECIMALS)
    if extent is None:
        raise _Unreadable("millimetres_unknown")
    if len(extent) != axes:
        raise ValueError(f"a field of view of {len(extent)} axes for boxes of {axes}; give one millimetre per axis")
    return _corners(values, extent, slack=10**-DECIMALS_MM + 1e-9)


def _read_thousandths(inside: str, axes: int, extent: Sequence[float] | None) -> Box:
    values = _numbers(inside, 2 * axes)
    if any(value != int(value) for value in values):
        raise _Unreadable("malformed_box")
    return _corners(values, (1000.0,) * axes, slack=0.0)


def _read_m3d(inside: str, axes: int, extent: Sequence[float] | None) -> Box:
    values = _numbers(inside, 2 * axes)
    return _corners([*values[2::-1], *values[:2:-1]], (1.0,) * axes, slack=10**-DECIMALS)


def _qwen_pieces(text: str) -> list[str]:
    pieces = [match[1] or "" for match in _QWEN_JSON.finditer(text)]
    for match in _QWEN_TAGS.finditer(text):
        pair = _QWEN_PAIR.fullmatch(match[1])
        pieces.append(f"{pair[1]},{pair[2]}" if pair else "")
    return pieces


def _our_pieces(text: str) -> list[str]:
    """What stands inside of each box; a box that is not closed, or followed by its unit, is none that can be read."""
    return [match[1] if match[2].lower() == "</box>" else "" for match in _OURS.finditer(text)]


_Read = Callable[[str, int, "Sequence[float] | None"], Box]
_Found = Callable[[str], list[str]]
_FORMS: Mapping[BoxForm, tuple[_Read, _Found]] = {
    "box": (_read_ours, _our_pieces),
    "thousandths": (_read_thousandths, _qwen_pieces),
    "m3d": (_read_m3d, _LIST.findall),
}


def reference_boxes(answers: Sequence[str], extent: Sequence[float] | None = None) -> tuple[Box, ...]:
    """The boxes of reference answers in our own form, all of the same number of axes.

    Raises:
        ValueError: no answer, one that is not exactly one box, or flat boxes beside others.
    """
    boxes: list[Box] = []
    for answer in answers:
        tried = [read_box(answer, axes=n, extent=extent if extent and len(extent) == n else None) for n in (2, 3)]
        found = next((one.box for one in tried if one.box is not None), None)
        if found is None:
            reasons = sorted({str(one.reason) for one in tried})
            raise ValueError(
                f"reference {answer!r} is no box ({' or '.join(reasons)}); write it as box_text.to_text does"
            )
        boxes.append(found)
    axes = {len(box.low) for box in boxes}
    if len(axes) != 1 or (extent and {len(extent)} != axes):
        raise ValueError("references and extent_mm must all have two axes or all have three; correct the row")
    return tuple(boxes)
