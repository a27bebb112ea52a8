"""What each training row costs in tokens and patches, and what is over a budget or trains nothing."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.finding import Finding
from medvlm.data_recipes.checks.journal import Journal
from medvlm.data_recipes.checks.workers import in_order
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.packing import Length
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import to_json
from medvlm.model.loading import Processor, load_processor


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one pack; None: not checked."""

    tokens: int | None = None
    patches: int | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Costs of the training rows, for the histograms; 24 bytes a row."""

    tokens: array = field(default_factory=lambda: array("L"))
    patches: array = field(default_factory=lambda: array("L"))
    supervised: array = field(default_factory=lambda: array("L"))


def length_findings(
    catalogue: Catalogue,
    readable: Callable[[Seen], bool],
    checkpoint: str,
    journal: Journal,
    budget: Budget,
    measured: Measured,
    *,
    workers: int = 1,
    progress: bool = False,
) -> Iterator[Finding]:
    """Measure every training row with the processor of a checkpoint, exactly as training does.

    Args:
        readable: whether all visuals of a row can be read (the others are found elsewhere).
        checkpoint: folder or hub id.
        journal: of earlier lengths.
        measured: filled with what each row costs.
    """
    settings = Renderer(load_processor(checkpoint), Path()).settings()
    with tracking("measuring rows", len(catalogue), show=progress) as track:

        def unknown() -> Iterator[tuple[str, Seen]]:
            for row in catalogue:
                track.advance()
                if isinstance(row, Seen) and row.part == "train" and readable(row):
                    yield _key(row, settings), row

        known = partial(_length, checkpoint=checkpoint)
        waiting = ((key, row) for key, row in unknown() if key not in journal)
        for (key, _), outcome in in_order(known, waiting, workers=workers, at_once=32):
            journal.add({"key": key, **outcome})
    for row in catalogue:
        if isinstance(row, Seen) and row.part == "train" and readable(row):
            yield from _judged(row, journal.get(_key(row, settings)), budget, measured)


def _judged(row: Seen, outcome: dict[str, object], budget: Budget, measured: Measured) -> Iterator[Finding]:
    if "reason" in outcome:
        yield _finding("lengths", row, str(outcome["reason"]), str(outcome["mend"]))
        return
    length = Length(**{name: int(str(value)) for name, value in outcome.items() if name != "key"})
    measured.tokens.append(length.tokens)
    measured.patches.append(length.patches)
    measured.supervised.append(length.supervised)
    if length.supervised == 0:
        yield _finding("masked_targets", row, "no token carries loss", "give the last assistant turn an answer")
    for name, cost, most in (("tokens", length.tokens, budget.tokens), ("patches", length.patches, budget.patches)):
        if most is not None and cost > most:
            mend = f"raise data.{name}_per_pack, lower the processor's max_patches, or leave the row out"
            yield _finding("lengths", row, f"{cost} {name}, over the budget of {most} in a pack", mend)


def _finding(check: str, row: Seen, reason: str, mend: str) -> Finding:
    return Finding(
        check=check, severity="error", where=row.where, sample_id=row.sample.sample_id, reason=reason, mend=mend
    )


def _key(row: Seen, settings: str) -> str:
    """Of what a row says, its files (by content where the manifest states it) and the processor's settings."""
    files = [
        (ref.path, None if ref.sha256 else (Path(ref.path).stat().st_size, Path(ref.path).stat().st_mtime_ns))
        for ref in row.visuals()
    ]
    text = json.dumps([to_json(row.sample), files, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _length(asked: tuple[str, Seen], checkpoint: str) -> dict[str, object]:
    row = asked[1]
    try:
        return asdict(Renderer(_processor(checkpoint), row.root, memory_bytes=0).length(row.sample))
    except BadSample as bad:
        return {"reason": bad.reason, "mend": bad.mend}


@cache
def _processor(checkpoint: str) -> Processor:
    return load_processor(checkpoint)
