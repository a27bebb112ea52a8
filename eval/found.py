"""What a folder of clinical files held, for the report: counts, a look at every source, and what cannot be used."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import DIMENSIONS
from medvlm.data_recipes.decoding import key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample
from medvlm.data_recipes.stratify import dimension, spread
from medvlm.data_recipes.thumbnails import thumbnail
from medvlm.eval.rows import Row

COLUMNS = ("images", "volumes", "videos", "text only", "train", "validation", "test", "quarantined")
_VARIABLE = re.compile(r"'[^']*[\d/][^']*'|[^\s(]*/[^\s)]*|\d+(?:[.,x×]\d+)*")
"""Quoted names that hold a digit or a slash, paths, and numbers."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What report.html shows of a walk.

    Attributes:
        folder: that was walked.
        counts: samples, images, volumes, videos, quarantined, other_files.
        rows: per source: its name and a number for each of ``columns``.
        pictures: rows with source, dimension, modality, split, question, answer, pictures (PNG bytes), trouble.
        refused: like refusals together: count, reason, where (of the first), mend.
        quarantine: every refusal; paths relative to ``folder``.
        notes: sentences that stand above the table.
    """

    folder: str
    counts: Mapping[str, Any]
    rows: Sequence[Row]
    pictures: Sequence[Row]
    refused: Sequence[Row]
    quarantine: Sequence[Row]
    notes: Sequence[str] = ()
    columns: Sequence[str] = COLUMNS


def describe_found(
    folder: Path,
    samples: Collection[Sample],
    quarantine: Iterable[BadSample],
    counts: Mapping[str, Any],
    *,
    pictures: int = 4,
    notes: Sequence[str] = (),
) -> Found:
    """Make the Found of a walk.

    Args:
        samples, quarantine, counts: of the WalkResult; visuals have absolute paths.
        pictures: shown of each source and kind of visual.
    """
    refusals = [_relative(bad.to_dict(), folder) for bad in quarantine]
    return Found(
        folder=str(folder),
        counts=counts,
        rows=_rows(samples, counts["by_source"]),
        pictures=[_look(sample) for sample in _choose(samples, pictures)],
        refused=_grouped(refusals),
        quarantine=refusals,
        notes=notes,
    )


def _rows(samples: Iterable[Sample], by_source: Mapping[str, Mapping[str, int]]) -> list[Row]:
    seen: dict[str, set[tuple[str, tuple[str, str]]]] = defaultdict(set)
    texts: Counter[str] = Counter()
    for sample in samples:
        seen[sample.source] |= {(ref.kind, key_of(ref)) for ref in sample.visuals()}
        texts[sample.source] += not sample.visuals()
    return [
        {
            "source": source,
            **{f"{kind}s": sum(found == kind for found, _ in seen[source]) for kind in DIMENSIONS},
            "text only": texts[source],
            **splits,
        }
        for source, splits in by_source.items()
    ]


def _choose(samples: Iterable[Sample], number: int) -> list[Sample]:
    """``number`` of each source and dimension that shows anything, those of one source together."""
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.visuals():
            groups[(sample.source, dimension(sample))].append(sample)
    return [sample for key in sorted(groups) for sample in spread(groups[key], number)]


def _look(sample: Sample) -> Row:
    question = next(turn for turn in reversed(sample.turns) if turn.role == "user")
    answer = sample.question.answers[0] if sample.question else sample.turns[-1].text
    shown: list[bytes] = []
    trouble = None
    try:
        shown = [thumbnail(read(ref, Path("/"))) for ref in sample.visuals()]
    except BadSample as bad:
        trouble = bad.reason  # read well during the walk: the file has changed since
    return {
        "sample_id": sample.sample_id,
        "source": sample.source,
        "dimension": dimension(sample),
        "modality": sample.metadata.get("modality", ""),
        "split": sample.split,
        "question": question.text,
        "answer": answer,
        "pictures": shown,
        "trouble": trouble,
    }


def _relative(row: dict[str, str | None], folder: Path) -> Row:
    """A refusal whose paths leave out the folder, which is said once."""
    root = f"{folder}/"
    return {key: value.replace(root, "") if isinstance(value, str) else value for key, value in row.items()}


def _grouped(refusals: Iterable[Row]) -> list[Row]:
    """Refusals that differ only in names and numbers, together; the most frequent first."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in refusals:
        top = row["where"].split("/")[0]
        groups[(top, _VARIABLE.sub("…", row["reason"]))].append(row)
    return [
        {
            "count": len(rows),
            "reason": rows[0]["reason"] if len(rows) == 1 else reason,
            "where": rows[0]["where"],
            "mend": rows[0]["mend"],
        }
        for (_, reason), rows in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
