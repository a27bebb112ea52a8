"""A language model, or any other program, that finds identifiers which rules cannot: its spans are added to theirs."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterable
from typing import Any, get_args

from medvlm.data_recipes.deidentification.masking import Finder
from medvlm.data_recipes.deidentification.text import Identifier, Kind

SECONDS = 300.0


class BadAnswer(ValueError):
    """The program failed or its answer is no list of spans; the message holds nothing of text or answer."""


def finder_of_command(command: str, *, seconds: float = SECONDS) -> Finder:
    """Run ``command`` once per text: the text on standard input, on standard output a JSON list of spans.

    A span is ``{"kind": "name", "start": 0, "end": 4}`` in characters of the text; the kinds are those of
    medvlm.data_recipes.deidentification.text.Kind. What the program says on standard error is thrown away, since it
    may repeat the text.

    Raises:
        BadAnswer: from the finder: exit code other than 0, no answer in ``seconds``, or an answer of another form.
    """
    words = shlex.split(command)

    def find(text: str) -> Iterable[Identifier]:
        try:
            done = subprocess.run(words, input=text.encode(), capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise BadAnswer(f"{words[0]} gave no answer in {seconds:g} s") from None
        except OSError as error:
            raise BadAnswer(f"{words[0]} cannot be run ({error.strerror})") from None
        if done.returncode != 0:
            raise BadAnswer(f"{words[0]} ended with exit code {done.returncode}")
        try:
            spans = json.loads(done.stdout)
        except ValueError:
            raise BadAnswer(f"{words[0]} did not answer in JSON") from None
        return spans_of(spans, len(text))

    return find


def spans_of(spans: Any, length: int) -> tuple[Identifier, ...]:
    """Check a list of spans in a text of ``length`` characters.

    Raises:
        BadAnswer: not a list of objects with kind, start and end in the text.
    """
    if not isinstance(spans, list):
        raise BadAnswer("the answer is no list of spans")
    found = []
    for number, span in enumerate(spans, start=1):
        span = span if isinstance(span, dict) else {}
        kind: Any = span.get("kind")
        start: Any = span.get("start")
        end: Any = span.get("end")
        whole = type(start) is int and type(end) is int
        if kind not in get_args(Kind) or not whole or not 0 <= start < end <= length:
            raise BadAnswer(f"span {number} has no known kind, or no start and end in the text")
        found.append(Identifier(kind=kind, start=start, end=end))
    return tuple(found)
