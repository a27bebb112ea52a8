"""How readers say no: decoder errors, NaN and malformed options become a BadSample that names file and mend."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.model.visual import Unit, all_finite

_DECODER_ERRORS: tuple[type[Exception], ...] = (
    OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError,
    SyntaxError, AssertionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow, pydicom, nibabel, NumPy and FFmpeg raise on damaged bytes; their own error classes are added by
each reader. Only calls into these libraries stand under ``decoding``."""


@contextmanager
def decoding(
    path: Path,
    expected: str,
    mend: str,
    *,
    also: tuple[type[Exception], ...] = (),
    quote: bool = True,
) -> Iterator[None]:
    """Turn what a decoding library raises into a BadSample.

    Args:
        path: the file being decoded.
        expected: what the file should have been, for example "a whole JPEG picture".
        mend: what the user can do.
        also: further error classes of the library.
        quote: repeat the library's message; False where that message may quote header values (patient names).

    Raises:
        BadSample: instead of the library's error, which stays chained.
    """
    try:
        yield
    except (*_DECODER_ERRORS, *also) as error:
        raise _refusal(error, path, expected, mend, quote) from error
    except BaseException as error:
        # Decoders written in Rust (pylibjpeg-rle) panic on damaged bytes, which is no Exception in Python.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise _refusal(error, path, expected, mend, quote) from error


def _refusal(error: BaseException, path: Path, expected: str, mend: str, quote: bool) -> BadSample:
    said = " ".join(str(error).split())[:200] if quote else ""
    detail = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return BadSample(f"expected {expected}, but it cannot be decoded ({detail})", where=str(path), mend=mend)


def require_finite(array: np.ndarray, path: Path, what: str) -> None:
    """Raise BadSample, with the count, when ``array`` holds NaN or infinite values."""
    if not all_finite(array):
        count = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise BadSample(
            f"{count} of {array.size} {what} are NaN or infinite; finite numbers are expected",
            where=str(path),
            mend="replace them in the file (for example by the background value) or leave the file out",
        )


def spacing_option(value: Any, length: int, path: Path) -> tuple[float, ...] | None:
    """Check options.spacing_mm: None, or ``length`` positive millimetres in axis order."""
    if value is None:
        return None
    numbers = value if isinstance(value, (list, tuple)) else [value]
    good = len(numbers) == length and all(
        isinstance(n, (int, float)) and not isinstance(n, bool) and isfinite(n) and n > 0 for n in numbers
    )
    if not good:
        raise BadSample(
            f"options.spacing_mm is {value!r}; {length} positive millimetres are expected",
            where=str(path),
            mend="write them in axis order, or leave the option out when the spacing is unknown",
        )
    return tuple(float(n) for n in numbers)


def unit_option(value: Any, path: Path) -> Unit:
    """Check options.unit: one of the units of medvlm.model.visual.Unit."""
    if value not in get_args(Unit):
        raise BadSample(f"options.unit is {value!r}", where=str(path), mend=f"use one of {', '.join(get_args(Unit))}")
    return cast(Unit, value)


def index_option(name: str, value: Any, count: int, path: Path) -> int:
    """Check an option that picks one of ``count`` things, counted from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise BadSample(
            f"options.{name} is {value!r}, but the file holds {count}",
            where=str(path),
            mend=f"use a whole number from 0 to {count - 1}",
        )
    return value
