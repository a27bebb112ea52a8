"""Marks by learned models, each in a process of its own (tier C); ``medvlm eval mark`` runs them.

The process (workers/) loads the model and says what it sees: graphs, labels, a likeness. What is counted of that, and
which cases are degenerate, is decided here. None of these has been run here with its weights; docs/scores.md says what
was tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.eval.intervals import micro_f1
from medvlm.eval.metric import Answered, Better, Counts, Marks, Metric, Scorer, each, mean_of
from medvlm.eval.rows import Row
from medvlm.eval.scorers.nltk_bleu import nltk_bleu
from medvlm.eval.scorers.radcliq import V0, V1
from medvlm.eval.scorers.radgraph_match import LEVELS, degenerate, f1_of
from medvlm.eval.scorers.report_text import without_labels

_WORKERS = Path(__file__).parent / "workers"

Read = Callable[[Mapping[str, Any], str, str], Marks]
"""(what the process said, answer, reference) -> marks."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A scorer that runs in a process of its own.

    Attributes:
        script: that the process runs; see workers/marking_protocol.py for what it speaks.
        read: makes marks of what it says.
        batch_size: pairs that it marks at a time, and at most what a killed run loses.
    """

    name: str
    script: Path
    read: Read
    batch_size: int = 16


def texts_for(one: Answered) -> tuple[str, str]:
    """(answer, reference) as a learned scorer sees them: section labels removed, the first of several references."""
    return without_labels(one.value or ""), without_labels(one.question.answers[0])


def _radgraph(said: Mapping[str, Any], answer: str, reference: str) -> Marks:
    found = f1_of(said["answer"], said["reference"])
    return {f"radgraph_{name}": value for name, value in found.items()} | {
        "flags": degenerate(said["answer"], said["reference"])
    }


def _bertscore(said: Mapping[str, Any], answer: str, reference: str) -> Marks:
    return {"bertscore": said["bertscore"], "flags": _empty(answer, reference)}


def _empty(answer: str, reference: str) -> list[str]:
    return [f"empty {name}" for name, text in (("answer", answer), ("reference", reference)) if not text.strip()]


FINDINGS = 14
FIVE = (1, 4, 5, 7, 9)
"""Cardiomegaly, edema, consolidation, atelectasis, pleural effusion, in CheXbert's order of labels."""


def _chexbert(said: Mapping[str, Any], answer: str, reference: str) -> Marks:
    given, expected = (np.array(said[key], dtype=int) for key in ("answer", "reference"))
    if given.shape != (FINDINGS,) or expected.shape != (FINDINGS,):
        raise ValueError(f"CheXbert gave {given.shape} and {expected.shape} labels, {FINDINGS} were expected")
    return {
        "chexbert": [(given & expected).tolist(), (given & ~expected & 1).tolist(), (~given & 1 & expected).tolist()],
        "chexbert_cosine": said["cosine"],
        "flags": [] if expected[:-1].any() else ["the reference names none of the 13 findings"],
    }


def _counted(places: Sequence[int]) -> Counts:
    def count(row: Row) -> list[float] | None:
        marks = row.get("chexbert")
        return None if marks is None else [float(sum(part[place] for place in places)) for part in marks]

    return each(count)


def _by_class(row: Row) -> list[float] | None:
    marks = row.get("chexbert")
    return None if marks is None else [float(value) for part in marks for value in part]


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """Sums of hits, inventions and misses by class, (B, 3 K) -> the mean F1 over classes that occur in either, (B,)."""
    hits, invented, missed = np.split(np.asarray(sums, dtype=float), 3, axis=1)
    total = 2 * hits + invented + missed
    occurs = (total > 0).sum(axis=1)
    f1 = np.where(total > 0, 2 * hits / np.where(total > 0, total, 1), 0.0).sum(axis=1)
    return np.where(occurs > 0, f1 / np.maximum(occurs, 1), np.nan)


def _ratescore(said: Mapping[str, Any], answer: str, reference: str) -> Marks:
    flags = _empty(answer, reference)
    if said["ratescore"] == 0.5:
        flags.append("exactly 0.5: what RaTEScore says where either text has no entity")
    return {"ratescore": said["ratescore"], "flags": flags}


def _green(said: Mapping[str, Any], answer: str, reference: str) -> Marks:
    if said["green"] is None:
        return {"green": None, "flags": ["unscored: GREEN's own answer could not be read"]}
    return {
        "green": said["green"],
        "flags": [] if said["matched"] else ["no matched finding: GREEN is 0 by convention"],
    }


def _radcliq(said: Mapping[str, Any], answer: str, reference: str) -> Marks:
    graphs = said["graphs"]
    rexrank = f1_of(graphs["answer"], graphs["reference"])["rexrank"]
    inputs = (rexrank, said["bertscore"], said["semb"], nltk_bleu(answer, [reference], (2,))[0])
    flags = degenerate(graphs["answer"], graphs["reference"]) + _empty(answer, reference)
    return {"radcliq_v0": V0(inputs), "radcliq_v1": V1(inputs), "flags": flags}


def _learned(name: str, read: Read, batch_size: int = 16) -> Learned:
    return Learned(name=name, script=_WORKERS / f"{name}_worker.py", read=read, batch_size=batch_size)


LEARNED: Mapping[str, Learned] = {
    one.name: one
    for one in (
        _learned("radgraph", _radgraph),
        _learned("bertscore", _bertscore, 64),
        _learned("chexbert", _chexbert),
        _learned("ratescore", _ratescore),
        _learned("green", _green, 32),
        _learned("radcliq", _radcliq),
    )
}


def _not_here(answers: Sequence[Answered]) -> list[Marks | None]:
    raise ValueError("learned scorers run in a process of their own: medvlm eval mark RUN --with NAME")


_SHARED = "Section labels removed; of several references the first counts; package, version and model stand in run.json"


def _scorer(name: str, implementation: str, metrics: tuple[Metric, ...], cases: str) -> Scorer:
    return Scorer(
        name=name, tier="C", kinds=("report",), implementation=f"{implementation}. {_SHARED}", score=_not_here,
        metrics=metrics, degenerate=cases, added=True,
    )  # fmt: skip


def _metric(name: str, title: str, *, unit: str = "share", better: Better = "higher") -> Metric:
    return Metric(
        name=name, title=f"Reports: {title}", kinds=("report",), counts=mean_of(name), unit=unit, better=better
    )


def _f1(name: str, title: str, counts: Counts, *, macro: bool = False) -> Metric:
    return Metric(
        name=name, title=f"Reports: {title}", kinds=("report",), counts=counts, value=macro_f1 if macro else micro_f1
    )


SCORERS: tuple[Scorer, ...] = (
    _scorer(
        "radgraph",
        "RadGraph graphs by the package, compared by medvlm (Delbrouck et al. 2022), mean over reports; RadGraph F1 in "
        "papers is the partial one, in ReXrank the mean of entity and relation F1",
        (
            *(_metric(f"radgraph_{level}", f"RadGraph F1, {level}") for level in LEVELS),
            _metric("radgraph_rexrank", "RadGraph as ReXrank: (entity F1 + relation F1) / 2"),
        ),
        "two reports without entities score 0",
    ),
    _scorer(
        "bertscore",
        "BERTScore F1: distilroberta-base, layer 5, rescaled, without idf, as CXR-Report-Metric has it, unless "
        "run.json says otherwise",
        (_metric("bertscore", "BERTScore F1 (blind to negation)", unit="points"),),
        "0.89 on a negation flip (RadEval); can be negative; never a headline",
    ),
    _scorer(
        "chexbert",
        "CheXbert labels by RadEval, uncertain counts as present; F1 over reports, macro over the classes that occur",
        (
            _f1("chexbert_micro_f1_14", "CheXbert micro F1, 14 labels", _counted(range(FINDINGS))),
            _f1("chexbert_micro_f1_5", "CheXbert micro F1, 5 labels", _counted(FIVE)),
            _f1("chexbert_macro_f1_14", "CheXbert macro F1, 14 labels", each(_by_class), macro=True),
            _metric("chexbert_cosine", "cosine of CheXbert embeddings"),
        ),
        "'No Finding' is one of the 14; reports are cut at 512 tokens",
    ),
    _scorer(
        "ratescore", "RaTEScore by its package, weights for long reports", (_metric("ratescore", "RaTEScore"),),
        "0.5 where either text has no entity, so that silence scores half",
    ),
    _scorer(
        "green", "GREEN by green-score, mean over reports whose analysis could be read", (_metric("green", "GREEN"),),
        "0 where no finding matches, even of two normal reports; prompts longer than 2,048 tokens are cut",
    ),
    _scorer(
        "radcliq",
        "RadCliQ-v0 and -v1 with the authors' coefficients, lower is better, mean over reports (never 1 / mean); "
        "BERTScore without idf, BLEU-2 by nltk where the authors use fast_bleu",
        tuple(
            _metric(f"radcliq_{version}", f"RadCliQ-{version} (lower is better)", unit="points", better="lower")
            for version in ("v0", "v1")
        ),
        "of texts without entities RadGraph's part is 0",
    ),
)  # fmt: skip
