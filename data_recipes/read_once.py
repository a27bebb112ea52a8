"""Each visual is read once, also over several runs: what was learnt of it is kept in a small database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from medvlm.data_recipes.decoding import Facts, decode, key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.sample import Preference, Sample, Turn, VisualRef, visuals_of
from medvlm.data_recipes.worker_processes import in_order, pool_of

Outcomes = dict[tuple[str, str], Facts | BadSample]
COMMIT_EVERY = 64
"""Visuals whose reading a kill can lose, when they are read in one go."""


class ReadOnce:
    """Reads visuals with a fixed number of processes and remembers the outcome in ``path`` (SQLite).

    A file that was refused, or whose size or time of change differs, is read again. What was read before a kill is not
    lost: every call of ``read`` commits.

    Either ``read`` block by block; or ``need`` all visuals first, ``read_needed`` them with an estimate of the time
    left, and ``recall`` them as often as wanted, without looking at the files again.
    """

    def __init__(self, path: Path, *, workers: int = 1) -> None:
        """
        Args:
            path: the database; made when it is not there.
            workers: processes; 1 reads in this one.
        """
        self._path, self._workers = path, workers

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._pool = pool_of(self._workers)
        self._data = sqlite3.connect(self._path)
        self._data.execute("CREATE TABLE IF NOT EXISTS visuals (key TEXT PRIMARY KEY, state TEXT, told TEXT)")
        # What this run needs: told is empty until it is read. A temporary table is a file of SQLite, not memory.
        self._data.execute(
            "CREATE TEMP TABLE run (place INTEGER PRIMARY KEY, key TEXT UNIQUE, ref TEXT, state TEXT, told TEXT)"
        )
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
            told = self._remembered(_name(ref), state)
            if told is not None:
                outcomes[key] = Facts(**json.loads(told))
            else:
                unknown[key] = (ref, state)
        results = in_order(self._pool, self._workers, decode, [ref for ref, _ in unknown.values()])
        for (key, (_, state)), (ref, outcome) in zip(unknown.items(), results, strict=True):
            outcomes[key] = outcome
            self._remember(_name(ref), state, outcome)
        self._data.commit()
        return outcomes

    def need(self, refs: Iterable[VisualRef]) -> int:
        """Note absolute refs for ``read_needed``; returns how many of them nobody has read."""
        new = 0
        for name, ref in {_name(ref): ref for ref in refs}.items():
            if self._data.execute("SELECT 1 FROM run WHERE key = ?", (name,)).fetchone():
                continue
            state = _state(Path(ref.path))
            told = self._remembered(name, state)
            new += told is None
            self._data.execute(
                "INSERT INTO run (key, ref, state, told) VALUES (?, ?, ?, ?)",
                (name, json.dumps(asdict(ref)) if told is None else None, state, told),
            )
        return new

    def read_needed(self, *, progress: bool = False) -> None:
        """Read what was noted and is not known.

        Args:
            progress: show a bar on standard error.
        """
        done, total = self._data.execute("SELECT count(told), count(*) FROM run").fetchone()
        results = in_order(self._pool, self._workers, _decode_noted, self._unread())
        with tracking("reading visuals", total, done=done, show=progress) as track:
            for number, ((place, name, _, state), outcome) in enumerate(results, start=1):
                told = outcome.to_dict() if isinstance(outcome, BadSample) else asdict(outcome)
                self._data.execute("UPDATE run SET told = ? WHERE place = ?", (json.dumps(told), place))
                self._remember(name, state, outcome)
                if number % COMMIT_EVERY == 0:
                    self._data.commit()
                track.advance()
        self._data.commit()

    def recall(self, refs: Iterable[VisualRef]) -> Outcomes:
        """What this run knows of each distinct absolute ref; what appeared since is read now."""
        distinct = {key_of(ref): ref for ref in refs}
        outcomes: Outcomes = {}
        for key, ref in distinct.items():
            found = self._data.execute("SELECT told FROM run WHERE key = ?", (_name(ref),)).fetchone()
            if found is None or found[0] is None:
                self.need([ref])
                self.read_needed()
                found = self._data.execute("SELECT told FROM run WHERE key = ?", (_name(ref),)).fetchone()
            told = json.loads(found[0])
            outcomes[key] = BadSample(told.pop("reason"), **told) if "reason" in told else Facts(**told)
        return outcomes

    def _unread(self) -> Iterator[tuple[int, str, str, str]]:
        """(place, name, ref as JSON, state) of what is noted and not read."""
        last = 0
        while found := self._data.execute(
            "SELECT place, key, ref, state FROM run WHERE told IS NULL AND place > ? ORDER BY place LIMIT 256", (last,)
        ).fetchall():
            yield from found
            last = found[-1][0]

    def _remembered(self, name: str, state: str) -> str | None:
        found = self._data.execute("SELECT state, told FROM visuals WHERE key = ?", (name,)).fetchone()
        return found[1] if found is not None and found[0] == state else None

    def _remember(self, name: str, state: str, outcome: Facts | BadSample) -> None:
        if isinstance(outcome, BadSample):
            return  # Read again in the next run: a newer reader may take it.
        self._data.execute(
            "INSERT OR REPLACE INTO visuals VALUES (?, ?, ?)", (name, state, json.dumps(asdict(outcome)))
        )


def _decode_noted(row: tuple[int, str, str, str]) -> Facts | BadSample:
    return decode(VisualRef(**json.loads(row[2])))


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
