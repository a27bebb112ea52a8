"""METEOR 1.5 (Denkowski and Lavie 2014) by its own Java program, as pycocoevalcap brings it; no other METEOR is one.

nltk's is the METEOR of 2005 with other weights and no paraphrases, and gives other numbers. Where Java or the package
is missing, a report is not scored, and the reason is said. The program writes its counts for each report, so that the
corpus value (which is not the mean of the reports' values) can be had for every resample of a bootstrap.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medvlm.eval.metric import Marks
from medvlm.eval.scorers.cjk import has_cjk
from medvlm.eval.scorers.ptb_tokens import JOINT, ptb_tokens

COUNTS = 23
"""Words, reference words, function words of both; for each of exact, stem, synonym and paraphrase the matched content
and function words of both; chunks; matched words of both."""

START_S, REPORT_S = 120.0, 2.0
"""Room in seconds for loading the paraphrases (some 10 s on two cores), and for each report."""

_STAGES = np.array([1.0, 0.6, 0.8, 0.6])
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75

INSTALL = "METEOR 1.5 is a Java program: apt-get install default-jre-headless, and pip install 'medvlm[coco]'"


def why_missing() -> str:
    """Why METEOR cannot run here; "" when it can."""
    if shutil.which("java") is None:
        return f"no java was found. {INSTALL}"
    if _jar() is None:
        return f"pycocoevalcap is not installed. {INSTALL}"
    return ""


def _jar() -> Path | None:
    spec = importlib.util.find_spec("pycocoevalcap")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    jars = [Path(place) / "meteor" / "meteor-1.5.jar" for place in places]
    return next((jar for jar in jars if jar.is_file()), None)


def marks(texts: Sequence[tuple[str, Sequence[str]]]) -> list[Marks | None]:
    """The counts of each (answer, references), or None with the reason in "flags" where there is no METEOR of it."""
    missing = why_missing()
    if missing:
        return [{"coco_meteor": None, "flags": [f"unscored: {missing}"]} for _ in texts]
    english = [not any(has_cjk(text) for text in (answer, *references)) for answer, references in texts]
    lines = [_line(*pair) for pair, usable in zip(texts, english, strict=True) if usable]
    try:
        counted = iter(_run(lines) if lines else [])
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        reason = f"unscored: METEOR failed ({type(error).__name__}: {str(error)[:200]})"
        return [{"coco_meteor": None, "flags": [reason]} for _ in texts]
    not_english = {"coco_meteor": None, "flags": ["unscored: METEOR's tables are English"]}
    return [{"coco_meteor": next(counted)} if usable else dict(not_english) for usable in english]


def _line(answer: str, references: Sequence[str]) -> str:
    def words(text: str) -> str:
        # Its fields are set apart by three bars, so a text may not hold them.
        return " ".join(ptb_tokens(text)).replace(JOINT, " ").replace("|", " ").strip()

    return " ||| ".join(["SCORE", *(words(reference) for reference in references), words(answer)])


def _run(lines: Sequence[str]) -> list[list[float]]:
    """What the program counts of each line.

    Raises:
        ValueError: it gave something else than a row of numbers per line.
        subprocess.TimeoutExpired: it hangs.
    """
    jar = _jar()
    assert jar is not None, "why_missing says so before"
    done = subprocess.run(
        ["java", "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"],
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        encoding="utf-8",
        cwd=jar.parent,
        timeout=START_S + REPORT_S * len(lines),
    )
    rows = [[float(value) for value in line.split()] for line in done.stdout.splitlines()]
    if done.returncode or len(rows) != len(lines) or any(len(row) != COUNTS for row in rows):
        raise ValueError(
            f"{len(rows)} rows for {len(lines)} reports, exit code {done.returncode}: {done.stderr[-300:]}"
        )
    for row in rows:
        # A report in one piece has no break; the program says 1 chunk and leaves it out of its own sums.
        if row[20] == 1 and row[21] == row[0] and row[22] == row[1]:
            row[20] = 0.0
    return rows


def meteor_of_counts(counts: np.ndarray) -> np.ndarray:
    """METEOR of sums of counts, with the weights for English: (B, 23) -> (B,), 0 to 1."""
    counts = np.asarray(counts, dtype=float)
    words, reference, function, reference_function = counts[:, :4].T
    matched = counts[:, 4:20].reshape(-1, 4, 4)  # stage, (content of both, function of both)
    chunks, hits, reference_hits = counts[:, 20:].T

    def share(content: np.ndarray, little: np.ndarray, length: np.ndarray, little_length: np.ndarray) -> np.ndarray:
        below = _DELTA * (length - little_length) + (1 - _DELTA) * little_length
        above = ((_DELTA * content + (1 - _DELTA) * little) * _STAGES).sum(axis=1)
        return np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)

    precision = share(matched[:, :, 0], matched[:, :, 2], words, function)
    recall = share(matched[:, :, 1], matched[:, :, 3], reference, reference_function)
    below = _ALPHA * precision + (1 - _ALPHA) * recall
    mean = np.where(below > 0, precision * recall / np.where(below > 0, below, 1), 0.0)
    average = (hits + reference_hits) / 2
    fragments = np.where(average > 0, chunks / np.where(average > 0, average, 1), 0.0)
    return mean * (1 - _GAMMA * fragments**_BETA)
