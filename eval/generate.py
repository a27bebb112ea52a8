"""The generate stage: read the visuals, ask, and append each answer to disk before asking further."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import VisualRef, visuals_of
from medvlm.eval.models import Answerer, LoadedModel, Request, Response
from medvlm.eval.noise import noisy
from medvlm.eval.plan import Ask
from medvlm.eval.rows import Row, append_rows, drop_torn_line
from medvlm.eval.run_folder import RESPONSES, responses_of
from medvlm.model.visual import Visual

Reader = Callable[[VisualRef, Path], Visual]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What the stage did.

    Attributes:
        answered: new rows of the responses file of this rank.
        skipped: requests of this rank that were answered already.
        quarantined: rows for quarantine.jsonl: requests whose visuals could not be used, and why.
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
    rank: int = 0,
    world_size: int = 1,
    show_progress: bool | None = None,
) -> Generated:
    """Answer every request of this rank that no responses file of ``out`` answers yet.

    Which rank asks what follows from the name of the request, so that the answers do not depend on the number of ranks,
    which may differ from one start to the next. The visuals of the next chunk are read while the model writes; a visual that several questions of a chunk show is
    read once. A killed run loses at most one chunk.

    Args:
        chunk_size: requests answered between two writes to disk.
        rank, world_size: this process, and how many share the asking.
        read: of visuals; by default as the answerer's processor needs them, or data_recipes.readers.read.
        show_progress: None: only on a terminal.
    """
    if read is None and isinstance(answerer, LoadedModel):
        read = answerer.read
    if read is None:
        from medvlm.data_recipes.readers import read
    assert read is not None
    path, timings = out / RESPONSES.format(rank=rank), out / f"timings.rank{rank}.jsonl"
    drop_torn_line(path)
    drop_torn_line(timings)
    known = {row["request_id"] for row in responses_of(out)}
    asks = [ask for ask in asks if int(ask.request_id, 16) % world_size == rank]
    todo = [ask for ask in asks if ask.request_id not in known]
    quarantined: list[Row] = []
    answered = 0
    with _bar(show_progress) as bar, ThreadPoolExecutor(max_workers=2) as pool:
        task = bar.add_task("asking", total=len(asks), completed=len(asks) - len(todo), bad=0)
        for chunk, visuals in _read_ahead(pool, todo, chunk_size, read):
            ready: list[tuple[Ask, Request]] = []
            for ask in chunk:
                try:
                    ready.append((ask, _request(ask, visuals)))
                except BadSample as bad:
                    quarantined.append(_quarantine_row(ask, bad))
            given = _answers(answerer, ready, quarantined)
            append_rows(path, [_response_row(ask, response) for ask, response in given])
            used = [{"request_id": ask.request_id, **response.usage} for ask, response in given if response.usage]
            if used:
                append_rows(timings, used)
            answered += len(given)
            bar.update(task, advance=len(chunk), bad=len(quarantined))
    return Generated(answered=answered, skipped=len(asks) - len(todo), quarantined=tuple(quarantined))


def _bar(show: bool | None) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bad]} quarantined"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal if show is None else show),
    )


def _name(ref: VisualRef, root: Path) -> str:
    return json.dumps([str(root), ref.path, ref.kind, ref.options], sort_keys=True)


_Chunk = tuple[list[Ask], dict[str, "Future[Visual]"]]


def _read_ahead(pool: ThreadPoolExecutor, asks: Sequence[Ask], size: int, read: Reader) -> Iterator[_Chunk]:
    """Chunks of ``asks`` with their visuals, one chunk ahead of what is being answered."""

    def start(first: int) -> _Chunk:
        chunk = list(asks[first : first + size])
        refs = {_name(ref, ask.item.root): (ref, ask.item.root) for ask in chunk for ref in visuals_of(ask.turns)}
        return chunk, {name: pool.submit(read, ref, root) for name, (ref, root) in refs.items()}

    ahead = start(0) if asks else None
    for first in range(size, len(asks) + size, size):
        assert ahead is not None
        now, ahead = ahead, (start(first) if first < len(asks) else None)
        yield now


def _request(ask: Ask, visuals: dict[str, Future[Visual]]) -> Request:
    shown = tuple(visuals[_name(ref, ask.item.root)].result() for ref in visuals_of(ask.turns))
    return Request(
        request_id=ask.request_id,
        sample_id=ask.item.sample.sample_id,
        turns=ask.turns,
        question=ask.question,
        visuals=tuple(noisy(visual, ask.request_id) for visual in shown) if ask.condition == "noise" else shown,
        max_new_tokens=ask.max_new_tokens,
    )


def _answers(
    answerer: Answerer, ready: Sequence[tuple[Ask, Request]], quarantined: list[Row]
) -> list[tuple[Ask, Response]]:
    """Ask a chunk; when the model refuses a sample in it, ask one by one to learn which."""
    if not ready:
        return []
    try:
        responses = answerer.answer([request for _, request in ready])
    except BadSample as bad:
        if len(ready) == 1:
            quarantined.append(_quarantine_row(ready[0][0], bad))
            return []
        return [answer for pair in ready for answer in _answers(answerer, [pair], quarantined)]
    if len(responses) != len(ready):
        raise ValueError(f"{answerer.name} gave {len(responses)} responses to {len(ready)} requests")
    return [(ask, response) for (ask, _), response in zip(ready, responses, strict=True)]


def _quarantine_row(ask: Ask, bad: BadSample) -> Row:
    return {**bad.to_dict(), "sample_id": ask.item.sample.sample_id, "condition": ask.condition, "stage": "generate"}


def _response_row(ask: Ask, response: Response) -> Row:
    return {
        "request_id": ask.request_id,
        "sample_id": ask.item.sample.sample_id,
        "patient_id": ask.item.sample.patient_id,
        "condition": ask.condition,
        "text": response.text,
        "finish_reason": response.finish_reason,
        **({} if response.confidence is None else {"confidence": round(response.confidence, 6)}),
    }
