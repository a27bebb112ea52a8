"""Marking a finished run by a scorer that needs more than the run folder: a process, a program, an endpoint.

What is marked already is not marked again; what could not be marked is kept as unscored, with the reason, and tried
again the next time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlm.eval.counting_bar import counting_bar
from medvlm.eval.judging import judgements
from medvlm.eval.marks import is_of, made, mark_row, marks_path
from medvlm.eval.metric import Answered, Marks, Scorer
from medvlm.eval.rows import Row, append_rows, read_rows, write_json
from medvlm.eval.run_folder import asked_in, read_plan, read_run, responses_of
from medvlm.eval.score import answered
from medvlm.eval.scorers.catalogue import SCORERS
from medvlm.eval.scorers.judge import Judge
from medvlm.eval.scorers.learned import LEARNED, Learned, texts_for
from medvlm.eval.scorers.process import ScorerProcess

ADDED: Mapping[str, Scorer] = {one.name: one for one in SCORERS if one.added}

Batches = Iterator[list[tuple[int, Marks]]]
"""Lists of (place of the answer, its marks), as they come."""


@dataclass(frozen=True, kw_only=True)
class Marking:
    """How a run is marked.

    Attributes:
        conditions: whose answers; marks cost time, and controls rarely need them.
        python: name of a learned scorer -> interpreter of the environment that has it; "" for all others.
        settings: name -> its settings, such as {"model": ...}.
        silence_s: after which a scorer counts as hung.
        judge: who judges, and ``endpoint`` who asks it.
        endpoint: an Answerer of the judge.
        cache: file of judgements, which several runs may share; None: in the run folder.
        approved: hosts that data which are not open may be sent to; kept in run.json.
        again: replace marks that were made with other settings.
    """

    conditions: tuple[str, ...] = ("image",)
    python: Mapping[str, Path] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    silence_s: float = 1800.0
    judge: Judge | None = None
    endpoint: Any = None
    cache: Path | None = None
    approved: tuple[str, ...] = ()
    again: bool = False


def mark(out: Path, name: str, how: Marking, *, learned: Learned | None = None, show: bool | None = None) -> Row:
    """Add the marks of the scorer ``name`` to the run ``out``; metrics.json is not written.

    Args:
        learned: a scorer that is not in the catalogue.
        show: a bar of progress; None: only on a terminal.

    Returns:
        {"scored", "unscored", "new", "about"}: of all answers that it marks, and how many were marked now.

    Raises:
        ValueError: there is no such scorer or nothing for it to mark, it cannot run here, it ended in the middle (what
            it had marked is kept), or the folder holds marks of it with other settings.
    """
    learned = learned or LEARNED.get(name)
    scorer = ADDED.get(name)
    if learned is None and scorer is None:
        raise ValueError(f"no scorer {name!r} can be added; there are {', '.join(sorted(ADDED))}")
    kinds = ("report",) if scorer is None else scorer.kinds
    scores, answers = _answers(out, how.conditions, kinds)
    if not scores:
        raise ValueError(f"{out} has no {' or '.join(kinds)} answer under {', '.join(how.conditions)} to be marked")
    known = {} if how.again else made(out, name)
    todo = [place for place, score in enumerate(scores) if not _is_marked(known.get(score["request_id"]), score)]
    with counting_bar("unscored", show) as bar:
        task = bar.add_task(name, total=len(scores), completed=len(scores) - len(todo), bad=0)
        unscored = 0

        def keep(batches: Batches) -> None:
            nonlocal unscored
            for batch in batches:
                append_rows(marks_path(out, name), [mark_row(scores[place], marks) for place, marks in batch])
                unscored += sum(_reason(marks) is not None for _, marks in batch)
                bar.update(task, advance=len(batch), bad=unscored)

        def begin(about: Mapping[str, Any]) -> None:
            _claim(out, name, about, again=how.again)

        if learned is not None:
            _by_process(learned, out, how, answers, todo, begin, keep)
        elif name == "judge":
            _by_judge(out, how, answers, todo, begin, keep)
        else:
            assert scorer is not None
            begin({"implementation": scorer.implementation})
            keep(_in_process(scorer, answers, todo))
    marks = made(out, name)
    reasons = [_reason(marks[score["request_id"]]) for score in scores if is_of(marks.get(score["request_id"]), score)]
    missing = sum(reason is not None for reason in reasons)
    about = read_run(out)["marked"][name]
    return {"scored": len(reasons) - missing, "unscored": missing, "new": len(todo), "about": about}


def _answers(out: Path, conditions: Sequence[str], kinds: Sequence[str]) -> tuple[list[Row], list[Answered]]:
    """The rows of scores.jsonl that are to be marked, and their answers."""
    scores = read_rows(out / "scores.jsonl")
    if not scores:
        raise ValueError(f"{out} has no scores.jsonl; run medvlm eval score {out}")
    wanted = {row["request_id"]: row for row in scores if row["condition"] in conditions and row["kind"] in kinds}
    asks = read_plan(out)
    responses = [row for row in responses_of(out) if row["request_id"] in wanted]
    items = {ask.item.sample.sample_id: ask.item for ask in asks}
    answers = answered(responses, read_rows(out / "extractions.jsonl"), items, asked=asked_in(asks))
    of = {response["request_id"]: one for response, one in zip(responses, answers, strict=True)}
    return list(wanted.values()), [of[name] for name in wanted]


def _is_marked(mark: Row | None, score: Row) -> bool:
    return mark is not None and is_of(mark, score) and _reason(mark) is None


def _reason(mark: Mapping[str, Any]) -> str | None:
    """Why a mark says nothing; None when it does."""
    return next((flag for flag in mark.get("flags", ()) if flag.startswith("unscored")), None)


def _claim(out: Path, name: str, about: Mapping[str, Any], *, again: bool) -> None:
    """Write down in run.json who marks, or refuse to mix two."""
    run = read_run(out)
    marked = run.get("marked", {})
    if again:
        marks_path(out, name).unlink(missing_ok=True)
    elif name in marked and marked[name] != dict(about) and marks_path(out, name).exists():
        raise ValueError(
            f"{out} holds marks of {name} by {marked[name]}, not by {dict(about)}; --again marks everything anew"
        )
    write_json(out / "run.json", run | {"marked": {**marked, name: dict(about)}})


def _in_process(scorer: Scorer, answers: Sequence[Answered], todo: Sequence[int], size: int = 2000) -> Batches:
    for start in range(0, len(todo), size):
        places = todo[start : start + size]
        marks = scorer.score([answers[place] for place in places])
        yield [(place, mark or {}) for place, mark in zip(places, marks, strict=True)]


def _by_process(
    learned: Learned,
    out: Path,
    how: Marking,
    answers: Sequence[Answered],
    todo: Sequence[int],
    begin: Callable[[Mapping[str, Any]], None],
    keep: Callable[[Batches], None],
) -> None:
    python = how.python.get(learned.name) or how.python.get("") or Path(sys.executable)
    settings = how.settings.get(learned.name, {})
    log = out / f"marks.{learned.name}.log"
    with ScorerProcess(
        python, learned.script, log, settings=settings, batch_size=learned.batch_size, silence_s=how.silence_s
    ) as process:
        begin({**process.about, "settings": dict(settings)})
        keep(_said(process, learned, answers, todo))


def _said(process: ScorerProcess, learned: Learned, answers: Sequence[Answered], todo: Sequence[int]) -> Batches:
    texts = {str(place): texts_for(answers[place]) for place in todo}
    pairs = [{"id": place, "answer": answer, "reference": reference} for place, (answer, reference) in texts.items()]
    batch: list[tuple[int, Marks]] = []
    try:
        for row in process.marks(pairs):
            place = int(row["id"])
            if "unscored" in row:
                marks: Marks = {"flags": [f"unscored: {row['unscored']}"]}
            else:
                marks = learned.read(row["marks"], *texts[row["id"]])
                if len(answers[place].question.answers) > 1:
                    marks["flags"] = [*marks.get("flags", ()), "of several references the first counts"]
            batch.append((place, marks))
            if len(batch) >= learned.batch_size:
                yield batch
                batch = []
    except ValueError:
        yield batch  # what it marked before it ended is kept
        raise
    yield batch


def _by_judge(
    out: Path,
    how: Marking,
    answers: Sequence[Answered],
    todo: Sequence[int],
    begin: Callable[[Mapping[str, Any]], None],
    keep: Callable[[Batches], None],
) -> None:
    if how.judge is None or how.endpoint is None:
        raise ValueError("who is to judge? Say --judge http://HOST:PORT/v1#MODEL_ID")
    how.endpoint.check_access(read_run(out).get("access"))
    begin({**how.judge.identity, "url": how.judge.url, "approved": list(how.approved)})
    cache = how.cache or out / "judge.cache.jsonl"
    keep(judgements(how.judge, how.endpoint, [(place, answers[place]) for place in todo], cache))
