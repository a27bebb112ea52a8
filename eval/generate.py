"""The generate stage: read the visuals, ask, and append each answer to disk before asking further."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import VisualRef, visuals_of
from medvlm.eval.counting_bar import counting_bar
from medvlm.eval.models import Answerer, Interrupted, Prepares, Reads, Request, Response
from medvlm.eval.noise import noisy
from medvlm.eval.plan import Ask
from medvlm.eval.quarantine import OF_RANK, of_request
from medvlm.eval.ranks import ALONE, Ranks
from medvlm.eval.rows import Row, append_rows, drop_torn_line
from medvlm.eval.run_folder import RESPONSES, responses_of
from medvlm.model.visual import Visual

Reader = Callable[[VisualRef, Path], Visual]

WINDOW = 8
"""Chunks that are read ahead and sorted by size; of an answerer that does not prepare its visuals one, because these
may be whole scans."""
WINDOW_TOKENS = 65536
"""Most visual tokens of a window: their patches take about 24 KiB each."""
READERS = 4
DIGITS = 4
"""Of probabilities: sums over batches of other shapes differ in the seventh."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What the stage did.

    Attributes:
        answered: new rows of the responses file of this rank.
        skipped: requests of this rank that were answered already.
        quarantined: rows of the quarantine file of this rank: requests that could not be asked, and why.
    """

    answered: int
    skipped: int
    quarantined: tuple[Row, ...]


def generate(
    answerer: Answerer,
    asks: Sequence[Ask],
    out: Path,
    *,
    chunk_size: int = 16,
    read: Reader | None = None,
    ranks: Ranks = ALONE,
    show_progress: bool | None = None,
) -> Generated:
    """Answer every request of this rank that no responses file of ``out`` answers yet, and wait for the other ranks.

    Which rank asks what follows from the name of the request, so that the answers do not depend on the number of ranks,
    which may differ from one start to the next. Visuals are read, and prepared, while the model writes: some chunks
    ahead, sorted by size, so that a batch holds requests of like length. A visual that several of them show is read
    once. A killed run loses at most one chunk.

    Args:
        chunk_size: requests answered between two writes to disk.
        read: of visuals; by default the answerer's own, or data_recipes.readers.read.
        ranks: this process among those that share the asking.
        show_progress: None: only on a terminal.
    """
    path, timings = out / RESPONSES.format(rank=ranks.rank), out / f"timings.rank{ranks.rank}.jsonl"
    faults = out / OF_RANK.format(rank=ranks.rank)
    for file in (path, timings, faults):
        drop_torn_line(file)
    known = {row["request_id"] for row in responses_of(out)}
    mine = [ask for ask in asks if ranks.asks(ask.request_id)]
    todo = [ask for ask in mine if ask.request_id not in known]
    quarantined: list[Row] = []
    answered = 0
    others = _Others(out, ranks.rank)
    with (
        counting_bar("quarantined", show_progress if ranks.first else False) as bar,
        ThreadPoolExecutor(max_workers=READERS) as pool,
    ):
        before = sum(ask.request_id in known for ask in asks)
        task = bar.add_task("asking", total=len(asks), completed=before, bad=0)

        def tell() -> None:
            done, bad = others.rows()
            bad += len(quarantined)
            bar.update(task, completed=before + answered + done + bad, bad=bad)

        def ask_all() -> None:
            nonlocal answered
            for ready, refused in _ready(pool, todo, chunk_size, answerer, read):
                try:
                    given, gone = _answers(answerer, ready, refused), None
                except Interrupted as stop:
                    given, gone = _sorted_out(ready, stop.answered, refused), stop
                append_rows(path, [_response_row(ask, response) for ask, response in given])
                used = [{"request_id": ask.request_id, **response.usage} for ask, response in given if response.usage]
                if used:
                    append_rows(timings, used)
                if refused:
                    append_rows(faults, refused)
                quarantined.extend(refused)
                answered += len(given)
                tell()
                if gone is not None:
                    raise gone

        ranks.together(ask_all, waiting=tell)
        tell()
    return Generated(answered=answered, skipped=len(mine) - len(todo), quarantined=tuple(quarantined))


class _Others:
    """Rows that other ranks have written since this one started, counted without reading them again."""

    def __init__(self, out: Path, rank: int) -> None:
        self.out, self.own = out, {RESPONSES.format(rank=rank), OF_RANK.format(rank=rank)}
        self.at: dict[Path, int] = {}
        self.counts = [0, 0]
        self.rows()
        self.counts = [0, 0]

    def rows(self) -> tuple[int, int]:
        """(answers, faults)."""
        for place, pattern in enumerate((RESPONSES, OF_RANK)):
            for path in self.out.glob(pattern.format(rank="*")):
                if path.name in self.own:
                    continue
                with path.open("rb") as file:
                    file.seek(self.at.get(path, 0))
                    added = file.read()
                self.at[path] = self.at.get(path, 0) + len(added)
                self.counts[place] += added.count(b"\n")
        return self.counts[0], self.counts[1]


_Ready = list[tuple[Ask, Request]]


def _ready(
    pool: ThreadPoolExecutor, todo: Sequence[Ask], chunk_size: int, answerer: Answerer, read: Reader | None
) -> Iterator[tuple[_Ready, list[Row]]]:
    """Chunks of requests with their visuals, and the rows of those that could not be made ready.

    One window of them is read while another is asked; the first is small, so that the model need not wait.
    """
    prepares = answerer if isinstance(answerer, Prepares) else None
    load = _loading(answerer, prepares, read)
    most = chunk_size * (1 if prepares is None else WINDOW)
    count, first = chunk_size, 0

    def start() -> list[tuple[Ask, list[Future[Any]]]]:
        nonlocal first
        window = todo[first : first + count]
        first += len(window)
        begun: dict[str, Future[Any]] = {}
        asked = []
        for ask in window:
            refs = visuals_of(ask.turns)
            names = [_name(ref, ask) for ref in refs]
            for name, ref in zip(names, refs, strict=True):
                if name not in begun:
                    begun[name] = pool.submit(load, ref, ask)
            asked.append((ask, [begun[name] for name in names]))
        return asked

    window = start()
    while window:
        ready: _Ready = []
        refused: list[Row] = []
        for ask, futures in window:
            try:
                ready.append((ask, _request(ask, [future.result() for future in futures])))
            except BadSample as bad:
                refused.append(of_request(ask, bad))
        if prepares is not None:
            sizes = {request.request_id: prepares.size(request) for _, request in ready}
            # The longest first: what does not fit into memory fails at once.
            ready.sort(key=lambda pair: (pair[1].max_new_tokens, sizes[pair[1].request_id]), reverse=True)
            fit = WINDOW_TOKENS * max(1, len(ready)) // max(1, sum(size[0] for size in sizes.values()))
            count = max(chunk_size, min(most, 2 * count, fit))
        window = start()
        for at in range(0, max(1, len(ready)), chunk_size):
            yield ready[at : at + chunk_size], refused
            refused = []


def _loading(answerer: Answerer, prepares: Prepares | None, read: Reader | None) -> Callable[[VisualRef, Ask], Any]:
    """What reads a visual, and prepares it where the answerer can."""
    from medvlm.data_recipes import readers

    reader = read or (answerer.read if isinstance(answerer, Reads) else readers.read)

    def load(ref: VisualRef, ask: Ask) -> Any:
        visual = reader(ref, ask.item.root)
        if ask.condition == "noise":
            visual = noisy(visual, ask.request_id)
        if prepares is None:
            return visual
        try:
            return prepares.prepare(visual)
        except ValueError as error:
            raise BadSample(str(error), where=ref.path, mend="change the processor's budget") from error

    return load


def _name(ref: VisualRef, ask: Ask) -> str:
    """Which visuals are the same one; noise is drawn for each request."""
    own = ask.request_id if ask.condition == "noise" else ""
    return json.dumps([str(ask.item.root), ref.path, ref.kind, ref.options, own], sort_keys=True)


def _request(ask: Ask, visuals: Sequence[Any]) -> Request:
    return Request(
        request_id=ask.request_id,
        sample_id=ask.item.sample.sample_id,
        turns=ask.turns,
        question=ask.question,
        visuals=tuple(visuals),
        max_new_tokens=ask.max_new_tokens,
    )


def _answers(
    answerer: Answerer, ready: Sequence[tuple[Ask, Request]], quarantined: list[Row]
) -> list[tuple[Ask, Response]]:
    """Ask a chunk; when the model refuses a sample in it, ask one by one to learn which."""
    if not ready:
        return []
    try:
        answers = answerer.answer([request for _, request in ready])
    except BadSample as bad:
        if len(ready) == 1:
            quarantined.append(of_request(ready[0][0], bad))
            return []
        return [answer for pair in ready for answer in _answers(answerer, [pair], quarantined)]
    if len(answers) != len(ready):
        raise ValueError(f"{answerer.name} gave {len(answers)} responses to {len(ready)} requests")
    return _sorted_out(ready, dict(enumerate(answers)), quarantined)


def _sorted_out(
    ready: Sequence[tuple[Ask, Request]], answers: Mapping[int, Response | BadSample], quarantined: list[Row]
) -> list[tuple[Ask, Response]]:
    """The responses among ``answers`` (place -> answer); what cannot be answered goes to ``quarantined``."""
    given: list[tuple[Ask, Response]] = []
    for place, answer in answers.items():
        if isinstance(answer, BadSample):
            quarantined.append(of_request(ready[place][0], answer))
        else:
            given.append((ready[place][0], answer))
    return given


def _response_row(ask: Ask, response: Response) -> Row:
    return {
        "request_id": ask.request_id,
        "sample_id": ask.item.sample.sample_id,
        "patient_id": ask.item.sample.patient_id,
        "condition": ask.condition,
        "text": response.text,
        "finish_reason": response.finish_reason,
        **({} if response.confidence is None else {"confidence": round(response.confidence, DIGITS)}),
        **({} if response.choices is None else {"choices": [round(share, DIGITS) for share in response.choices]}),
    }
