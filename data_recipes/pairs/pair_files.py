"""The files of one run of pairs: rows appended under temporary names with a state beside them, renamed at the end."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.sample import Sample, to_json


@dataclass(kw_only=True)
class Tally:
    """Counts of a run; what pairs.summary.json holds.

    Attributes:
        row, size: rows of the manifest that are done, and bytes of pairs that they gave.
        refused_size: bytes of quarantine.
        pairs: by rule.
        samples: used, by how many pairs they gave.
        left_out: samples that were not used, by reason.
    """

    row: int = 0
    size: int = 0
    refused_size: int = 0
    pairs: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def quarantined(self) -> int:
        return self.left_out["quarantined"]


class PairFiles:
    """The files of one run: pairs and quarantine under temporary names with a state, renamed at the end."""

    def __init__(self, out: Path) -> None:
        stem = out.name.removesuffix(".jsonl")
        self.out, self.quarantine = out, out.with_name(f"{stem}.quarantine.jsonl")
        self.summary, self.visuals = out.with_name(f"{stem}.summary.json"), out.with_name(f"{stem}_visuals")
        self.part, self.refused = out.with_name(f".{out.name}.part"), out.with_name(f".{self.quarantine.name}.part")
        self.state = out.with_name(f".{out.name}.state.json")
        out.parent.mkdir(parents=True, exist_ok=True)

    def resume(self, fingerprint: str) -> Tally:
        """The tally of a started run, its files cut to what it vouches for; an empty one when there is none."""
        if not self.state.exists():
            return self.fresh()
        state: dict[str, Any] = json.loads(self.state.read_text(encoding="utf-8"))
        if state.pop("fingerprint") != fingerprint:
            raise ValueError(
                f"{self.part} is of a run with another manifest or other settings; repeat those, or delete {self.state}"
            )
        counters = {name: Counter(state[name]) for name in ("pairs", "samples", "left_out")}
        tally = Tally(row=state["row"], size=state["size"], refused_size=state["refused_size"], **counters)
        for path, size in ((self.part, tally.size), (self.refused, tally.refused_size)):
            with path.open("r+b") as file:
                file.truncate(size)
        return tally

    def fresh(self) -> Tally:
        """Begin anew."""
        self.part.write_bytes(b"")
        self.refused.write_bytes(b"")
        return Tally()

    def opened(self) -> PairFiles:
        """A context in which rows can be written behind those that are there."""
        self._pairs, self._bad = self.part.open("ab"), self.refused.open("ab")
        return self

    def __enter__(self) -> PairFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self._pairs.close()
        self._bad.close()

    def write(self, pair: Sample) -> None:
        """One more pair."""
        self._pairs.write((json.dumps(to_json(pair), ensure_ascii=False) + "\n").encode())

    def refuse(self, bad: BadSample, tally: Tally) -> None:
        """One more row of the quarantine."""
        self._bad.write((json.dumps(bad.to_dict(), ensure_ascii=False) + "\n").encode())
        tally.left_out["quarantined"] += 1

    def checkpoint(self, tally: Tally, fingerprint: str) -> None:
        """Bring rows and state to the disk, so that a killed run goes on from here."""
        self.flush(tally)
        write_atomic(self.state, json.dumps({**vars(tally), "fingerprint": fingerprint}) + "\n")

    def flush(self, tally: Tally) -> None:
        """Bring rows to the disk."""
        for file in (self._pairs, self._bad):
            file.flush()
            os.fsync(file.fileno())
        tally.size, tally.refused_size = self._pairs.tell(), self._bad.tell()

    def finish(self, summary: dict[str, Any]) -> None:
        """Give all files their names; the summary first, the pairs last."""
        write_atomic(self.summary, json.dumps(summary, indent=1) + "\n")
        self.refused.replace(self.quarantine)
        self.part.replace(self.out)
        self.state.unlink(missing_ok=True)
