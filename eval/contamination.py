"""Was the test in the training? Copies of a run's pictures and texts in training manifests, and the score without them.

    medvlm eval contamination RUN --train train.jsonl ...

Pictures: equal pixels, or perceptual hashes that differ in few bits. Texts: n-grams of 13 words as in the contamination
analysis of GPT-3 (Brown et al. 2020, appendix C); those that stand in more than 10 training rows are left out, because
phrases of templates and of normal reports prove nothing. Writes contamination.jsonl (a row per question) and
contamination.json.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from medvlm.data_recipes.checks.copies import NEAR
from medvlm.data_recipes.checks.hashing import as_words
from medvlm.data_recipes.checks.looking import Look, look
from medvlm.data_recipes.checks.near import HammingIndex
from medvlm.data_recipes.checks.private import Private
from medvlm.data_recipes.checks.texts import COMMON, WORDS, shingles
from medvlm.data_recipes.checks.workers import enough, in_order
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample, VisualRef, read_jsonl
from medvlm.eval.rows import Row, write_json, write_rows
from medvlm.eval.run_folder import read_plan, read_run
from medvlm.eval.stages import scores_of
from medvlm.eval.table import ALL, clusters_of, table_of

COPY = 0.5
"""Share of a text's n-grams from which on it counts as a copy; below, it shares a passage."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What one question shares with the training.

    Attributes:
        visual: "same pixels", "near copy" or "" when none of its visuals was seen.
        bits: in which the hashes differ at least; None without a copy.
        text: share of its n-grams (question and answer) that stand in the training, 0 to 1.
        where: a training row that holds the copy, "" without.
    """

    sample_id: str
    visual: str
    bits: int | None
    text: float
    where: str

    @property
    def contaminated(self) -> bool:
        """The picture was seen, or most of the text."""
        return bool(self.visual) or self.text >= COPY


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What training showed: where each picture and n-gram stands first."""

    pixels: dict[str, str]
    hashes: np.ndarray
    hash_owners: list[str]
    grams: np.ndarray
    gram_owners: list[str]
    unread: int


def overlaps(
    samples: Sequence[Sample],
    root: Path,
    train: Sequence[Path],
    *,
    distance: int = NEAR,
    workers: int = 1,
    show_progress: bool = False,
) -> tuple[list[Overlap], int]:
    """What each of ``samples`` shares with the rows of ``train``, and how many visuals could not be read.

    Args:
        root: that relative paths of the samples' visuals start from.
        train: manifests; paths in a manifest are relative to its folder.
        distance: bits of 256 in which two hashes of one picture may differ.
        workers: processes that read visuals.
    """
    seen = _seen(train, workers, show_progress)
    index = HammingIndex(seen.hashes, distance)
    looks = _looks([_absolute(ref, root) for sample in samples for ref in sample.visuals()], workers, show_progress)
    unread = seen.unread + sum(one.pixels is None for one in looks.values())
    return [_overlap(sample, root, looks, seen, index) for sample in samples], unread


def _absolute(ref: VisualRef, root: Path) -> VisualRef:
    return replace(ref, path=str((root / ref.path).absolute()))


def _name(ref: VisualRef) -> str:
    return f"{ref.kind} {ref.path} {sorted(ref.options.items())}"


def _look(ref: VisualRef) -> Look:
    return look(ref, Private())


def _looks(refs: Iterable[VisualRef], workers: int, show_progress: bool) -> dict[str, Look]:
    """Name of each different visual -> what it looks like."""
    different = {_name(ref): ref for ref in refs}
    found = in_order(_look, different.values(), workers=enough(workers, len(different), 16))
    console = Console(stderr=True)
    shown = track(found, "reading visuals", total=len(different), console=console, disable=not show_progress)
    return {_name(ref): one for ref, one in shown}


def _seen(train: Sequence[Path], workers: int, show_progress: bool) -> _Seen:
    refs: dict[str, tuple[VisualRef, str]] = {}
    grams: dict[int, str] = {}
    rows_with: Counter[int] = Counter()
    for manifest in train:
        for sample, where in _rows(manifest):
            for ref in sample.visuals():
                absolute = _absolute(ref, manifest.parent)
                refs.setdefault(_name(absolute), (absolute, where))
            for gram in _grams(sample).tolist():
                grams.setdefault(gram, where)
                rows_with[gram] += 1
    looks = _looks([ref for ref, _ in refs.values()], workers, show_progress)
    pixels: dict[str, str] = {}
    hashes: list[str] = []
    owners: list[str] = []
    for name, one in looks.items():
        if one.pixels is not None:
            pixels.setdefault(one.pixels, refs[name][1])
            hashes += one.hashes
            owners += [refs[name][1]] * len(one.hashes)
    values = np.array(sorted(gram for gram, rows in rows_with.items() if rows <= COMMON), np.uint64)
    return _Seen(
        pixels=pixels, hashes=as_words(hashes), hash_owners=owners, grams=values,
        gram_owners=[grams[int(value)] for value in values], unread=sum(one.pixels is None for one in looks.values()),
    )  # fmt: skip


def _rows(manifest: Path) -> Iterator[tuple[Sample, str]]:
    for number, row in enumerate(read_jsonl(manifest), start=1):
        if not isinstance(row, BadSample):
            yield row, f"{manifest}:{number}"


def _grams(sample: Sample) -> np.ndarray:
    """n-grams of what is asked and answered where the whole is long enough to prove something; else none."""
    text = " ".join([*(turn.text for turn in sample.turns if turn.role == "user"), sample.said()])
    found = shingles(text)
    return np.unique(found) if len(text.split()) >= WORDS else found[:0]


def _overlap(sample: Sample, root: Path, looks: dict[str, Look], seen: _Seen, index: HammingIndex) -> Overlap:
    visual, bits, where = "", None, ""
    for ref in sample.visuals():
        one = looks[_name(_absolute(ref, root))]
        if one.pixels in seen.pixels:
            visual, bits, where = "same pixels", 0, seen.pixels[str(one.pixels)]
            break
        for _, places, apart in index.near(as_words(one.hashes)) if one.hashes else ():
            if len(apart) and (bits is None or int(apart.min()) < bits):
                visual, bits = "near copy", int(apart.min())
                where = seen.hash_owners[int(places[int(apart.argmin())])]
    grams = _grams(sample)
    text = 0.0
    if len(grams) and len(seen.grams):
        places = np.minimum(np.searchsorted(seen.grams, grams), len(seen.grams) - 1)
        held = seen.grams[places] == grams
        text = float(held.mean())
        if not where and text >= COPY:
            where = seen.gram_owners[int(places[held][0])]
    return Overlap(sample_id=sample.sample_id, visual=visual, bits=bits, text=round(text, 4), where=where)


def report(out: Path, found: Sequence[Overlap], train: Sequence[Path], unread: int) -> dict[str, Any]:
    """Write contamination.jsonl and contamination.json into the run folder: the score with and without the copies."""
    write_rows(out / "contamination.jsonl", [asdict(one) | {"contaminated": one.contaminated} for one in found])
    copied = {one.sample_id for one in found if one.contaminated}
    scores = [row for row in scores_of(out) if row["condition"] == "image"]
    run = read_run(out)
    clusters = clusters_of(scores, run["cluster"], run["seed"])
    parts = {
        "all": scores,
        "clean": [row for row in scores if row["sample_id"] not in copied],
        "contaminated": [row for row in scores if row["sample_id"] in copied],
    }
    result = {
        "train": [str(path) for path in train],
        "questions": len(found),
        "contaminated": len(copied),
        "visuals": dict(Counter(one.visual or "not seen" for one in found)),
        "texts_copied": sum(one.text >= COPY for one in found),
        "passages_shared": sum(0 < one.text < COPY for one in found),
        "visuals_unread": unread,
        "table": [
            {"part": name, **block}
            for name, rows in parts.items()
            if rows
            for block in table_of(rows, clusters)
            if block["dimension"] == block["topic"] == ALL
        ],
    }
    write_json(out / "contamination.json", result)
    return result


def _show(result: dict[str, Any], console: Console) -> None:
    table = Table(
        "metric", "all", "clean", "contaminated", title=f"{result['contaminated']} of {result['questions']} seen"
    )
    cells: dict[str, dict[str, Row]] = {}
    for row in result["table"]:
        cells.setdefault(row["metric"], {})[row["part"]] = row
    for metric, by in cells.items():
        shown = [by.get(part) for part in ("all", "clean", "contaminated")]
        table.add_row(
            metric, *("–" if r is None or r["value"] is None else f"{r['value']:.3f} (n {r['n']})" for r in shown)
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 when a run or a manifest cannot be read."""
    parser = argparse.ArgumentParser(
        prog="medvlm eval contamination", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder, the --out of medvlm eval run")
    parser.add_argument("--train", nargs="+", type=Path, required=True, help="manifests that the model was trained on")
    parser.add_argument("--distance", type=int, default=NEAR, help="bits of 256 in which two hashes may differ")
    parser.add_argument("--workers", type=int, default=1, help="processes that read visuals")
    args = parser.parse_args(arguments)
    console = Console()
    try:
        missing = [str(path) for path in args.train if not path.is_file()]
        if missing:
            raise ValueError(f"{missing[0]} is no manifest; give the JSONL files of the training")
        samples = list({ask.item.sample.sample_id: ask.item.sample for ask in read_plan(args.run)}.values())
        found, unread = overlaps(
            samples, args.run, args.train, distance=args.distance, workers=args.workers,
            show_progress=console.is_terminal,
        )  # fmt: skip
        result = report(args.run, found, args.train, unread)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _show(result, console)
    if unread:
        print(f"warning: {unread} visuals could not be read, so copies of them are not seen", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
