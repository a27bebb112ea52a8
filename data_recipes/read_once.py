"""Each visual is read once, also over several runs: what was learnt of it is kept in a small database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

from medvlm.data_recipes.decoding import Facts, decode, key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Preference, Sample, Turn, VisualRef, visuals_of

Outcomes = dict[tuple[str, str], Facts | BadSample]


class ReadOnce:
    """Reads visuals with a fixed number of processes and remembers the outcome in ``path`` (SQLite).

    A file that was refused, or whose size or time of change differs, is read again. What was read before a kill is not
    lost: every call of ``read`` commits.
    """

    def __init__(self, path: Path, *, workers: int = 1) -> None:
        """
        Args:
            path: the database; made when it is not there.
            workers: processes; 1 reads in this one.
        """
        self._path, self._workers = path, workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._data = sqlite3.connect(self._path)
        self._data.execute("CREATE TABLE IF NOT EXISTS visuals (key TEXT PRIMARY KEY, state TEXT, told TEXT)")
        if self._workers > 1:
            # spawn: a forked child of a process that runs threads (torch, FFmpeg) can hang.
            self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.commit()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._data.close()

    def read(self, refs: Iterable[VisualRef]) -> Outcomes:
        """What is known of each distinct absolute ref; those that are not known, or have changed, are read."""
        distinct = {key_of(ref): ref for ref in refs}
        outcomes: Outcomes = {}
        unknown: dict[tuple[str, str], tuple[VisualRef, str]] = {}
        for key, ref in distinct.items():
            state = _state(Path(ref.path))
            found = self._data.execute("SELECT state, told FROM visuals WHERE key = ?", (_name(ref),)).fetchone()
            if found is not None and found[0] == state:
                outcomes[key] = Facts(**json.loads(found[1]))
            else:
                unknown[key] = (ref, state)
        work = [ref for ref, _ in unknown.values()]
        results = map(decode, work) if self._pool is None else self._pool.map(decode, work, chunksize=4)
        for (key, (ref, state)), outcome in zip(unknown.items(), results, strict=True):
            outcomes[key] = outcome
            if isinstance(outcome, BadSample):
                continue  # Read again next time: a newer reader may take it.
            self._data.execute(
                "INSERT OR REPLACE INTO visuals VALUES (?, ?, ?)", (_name(ref), state, json.dumps(asdict(outcome)))
            )
        self._data.commit()
        return outcomes


def _name(ref: VisualRef) -> str:
    return "\n".join((ref.kind, *key_of(ref)))


def _state(path: Path) -> str:
    """Size and time of change of a file; of a folder, of all its files."""
    if not path.exists():
        return "missing"
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return f"{len(files)} {sum(stat.st_size for stat in stats)} {newest}"


def all_visuals(sample: Sample) -> tuple[VisualRef, ...]:
    """The visuals of every side of a sample."""
    return tuple(ref for side in sample.sides() for ref in visuals_of(side))


def map_visuals(sample: Sample, change: Callable[[VisualRef], VisualRef]) -> Sample:
    """The sample with ``change`` applied to each of its visuals."""

    def turns(given: tuple[Turn, ...]) -> tuple[Turn, ...]:
        return tuple(
            replace(turn, content=tuple(change(p) if isinstance(p, VisualRef) else p for p in turn.content))
            for turn in given
        )

    preference = sample.preference
    if preference is not None:
        preference = Preference(
            chosen=turns(preference.chosen), rejected=turns(preference.rejected), made_by=preference.made_by
        )
    return replace(sample, turns=turns(sample.turns), preference=preference)


def with_facts(sample: Sample, outcomes: Outcomes) -> Sample | BadSample:
    """Fill in hashes; a sample with a visual that cannot be read becomes the reader's refusal."""
    found = {key_of(ref): outcomes[key_of(ref)] for ref in all_visuals(sample)}
    bad = next((outcome for outcome in found.values() if isinstance(outcome, BadSample)), None)
    if bad is not None:
        return BadSample(bad.reason, where=bad.where, mend=bad.mend, sample_id=sample.sample_id)
    hashes = {key: outcome.sha256 for key, outcome in found.items() if isinstance(outcome, Facts)}
    return map_visuals(sample, lambda ref: replace(ref, sha256=hashes[key_of(ref)]))
