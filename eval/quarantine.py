"""quarantine.jsonl: what could not be asked, each request once, over processes and starts.

Each process appends to quarantine.rankN.jsonl as it meets a fault; the first puts these files into one. A request that
was answered at a later start is no longer in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.eval.plan import Ask
from medvlm.eval.rows import Row, drop_torn_line, read_rows, write_rows
from medvlm.eval.run_folder import responses_of

FILE = "quarantine.jsonl"
OF_RANK = "quarantine.rank{rank}.jsonl"


def of_manifest(problem: BadSample) -> Row:
    """The row of a sample that never became a request."""
    return {**problem.to_dict(), "condition": None, "stage": "manifest"}


def of_request(ask: Ask, problem: BadSample) -> Row:
    """The row of a request."""
    return {
        **problem.to_dict(),
        "sample_id": ask.item.sample.sample_id,
        "condition": ask.condition,
        "stage": "generate",
        "request_id": ask.request_id,
    }


def gather(out: Path, asks: Sequence[Ask], bad: Sequence[BadSample]) -> list[Row]:
    """Put the files of the processes into ``out``/quarantine.jsonl, and remove them.

    Args:
        asks: every request of the run: the order of the rows, and what may be in it.
        bad: samples that never became requests.
    """
    files = sorted(out.glob(OF_RANK.format(rank="*")))
    found = {row["request_id"]: row for row in read_rows(out / FILE) if "request_id" in row}
    for path in files:
        drop_torn_line(path)
        found |= {row["request_id"]: row for row in read_rows(path)}
    answered = {row["request_id"] for row in responses_of(out)}
    kept = [found[ask.request_id] for ask in asks if ask.request_id in found and ask.request_id not in answered]
    rows = [*map(of_manifest, bad), *kept]
    write_rows(out / FILE, rows)
    for path in files:
        path.unlink()
    return rows
