"""A manifest -> a manifest of preference pairs: two passes over the rows, a bounded pool between them.

The first pass fills the pool of other patients' samples and learns which patients are held out; the second writes the
pairs. Both read row by row. Every few hundred rows the state goes to disk, so that a run that was stopped goes on from
there and gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.one_writer import one_writer
from medvlm.data_recipes.pairs.case import Case, case_of
from medvlm.data_recipes.pairs.image_rules import ImageRule, Places, image_pair
from medvlm.data_recipes.pairs.pair_files import PairFiles, Tally
from medvlm.data_recipes.pairs.pool import Pool
from medvlm.data_recipes.pairs.rules import RULES, VERSION, text_pair
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.sample import Sample, Split, Turn, VisualRef, read_jsonl

CHECKPOINT_ROWS = 500
"""Rows between two states on disk: what a killed run does again."""


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """What to make.

    Attributes:
        rules: names of text rules; see rules.RULES.
        images: image rules.
        seed: all that is random follows from it.
        per_sample: most pairs of one sample; the rules that have made fewest so far come first. None: all.
        split: whose samples are used, as sources and as other patients alike.
        held_out: manifests whose patients may not be used.
        allow_official: use patients whom the authors' own split shares with a test set (metadata ``official_split``).
        root: what relative paths of visuals start from; the folder of the manifest when None.
    """

    rules: tuple[str, ...] = tuple(rule.name for rule in RULES)
    images: tuple[ImageRule, ...] = ()
    seed: int = 0
    per_sample: int | None = 2
    split: Split = "train"
    held_out: tuple[Path, ...] = ()
    allow_official: bool = False
    root: Path | None = None

    def __post_init__(self) -> None:
        known = {rule.name for rule in RULES}
        unknown = [name for name in self.rules if name not in known]
        if unknown:
            raise ValueError(f"no rule {unknown[0]!r}; the rules are {', '.join(sorted(known))}")
        if not self.rules and not self.images:
            raise ValueError("no rule is chosen; name some with --rules or --images")
        if self.per_sample is not None and self.per_sample < 1:
            raise ValueError(f"per_sample is {self.per_sample}; use at least 1, or leave it out for every rule")


def held_out_patients(manifest: Path, settings: PairSettings) -> set[bytes]:
    """Hashes, of 8 bytes each, of the patients who stand in another split, or in a manifest that is held out.

    Raises:
        ValueError: a held-out manifest has a row that cannot be read, and so a patient who would not be held out.
    """
    found: set[bytes] = set()
    for path in (manifest, *settings.held_out):
        for number, row in enumerate(_plain_rows(path), start=1):
            if not isinstance(row, dict) or not isinstance(row.get("patient_id"), str):
                if path == manifest:
                    continue  # the second pass puts it into the quarantine
                raise ValueError(f"row {number} of {path} names no patient; mend it, or patients are not held out")
            if path == manifest and row.get("split") == settings.split:
                continue
            if not (settings.allow_official and (row.get("metadata") or {}).get("official_split")):
                found.add(_hash(row["patient_id"]))
    return found


def _plain_rows(path: Path) -> Iterator[Any]:
    """Rows as JSON without the checks of a Sample, which take most of the time; None for what is no JSON."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    yield None


def _hash(patient_id: str) -> bytes:
    return hashlib.blake2b(patient_id.encode(), digest_size=8).digest()


def why_not(sample: Sample, settings: PairSettings, held_out: set[bytes]) -> str | None:
    """Why a sample gives no pairs, in the words of the summary; None when it may."""
    if sample.split != settings.split:
        return f"split {sample.split}"
    if _hash(sample.patient_id) in held_out:
        return "patient held out"
    if sample.preference is not None:
        return "a preference already"
    return None if case_of(sample) is not None else "no answer"


def fill_pool(manifest: Path, settings: PairSettings, held_out: set[bytes], advance: Callable[[], None]) -> Pool:
    """The pool of other patients' samples of one split."""
    pool = Pool(settings.seed)
    for row in read_jsonl(manifest):
        if isinstance(row, Sample) and why_not(row, settings, held_out) is None:
            case = case_of(row)
            assert case is not None
            if pool.wants(case.group, row.sample_id):
                pool.add(case.group, case.entry)
        advance()
    return pool


def pairs_of(case: Case, settings: PairSettings, pool: Pool, places: Places, made: Counter[str]) -> Iterator[Sample]:
    """At most ``per_sample`` pairs of one sample; rules that have ``made`` fewest pairs are tried first.

    Raises:
        BadSample: a visual cannot be read.
    """
    ways: list[tuple[str, Callable[[], Sample | None]]] = [
        (rule.name, lambda rule=rule: text_pair(case, rule, pool, settings.seed))  # type: ignore[misc]
        for rule in RULES
        if rule.name in settings.rules
    ]
    ways += [
        (rule.name, lambda rule=rule: image_pair(case, rule, pool, places, settings.seed))  # type: ignore[misc]
        for rule in settings.images
    ]
    left = settings.per_sample
    for _, make in sorted(ways, key=lambda way: made[way[0]]):
        if left == 0:
            return
        pair = make()
        if pair is not None:
            left = None if left is None else left - 1
            yield pair


def make_pairs(manifest: Path, out: Path, settings: PairSettings, *, show: bool = True) -> Tally:
    """Write the pairs of ``manifest`` to ``out``, and beside it quarantine, summary and changed visuals.

    A run that was stopped goes on where it was; a finished one is made again. Memory holds the pool and the hashes of
    the patients of other splits.

    Raises:
        ValueError: ``out`` is the manifest, or the started run had other settings.
        BadSample: another process is writing to ``out``.
        OSError: no such manifest.
    """
    manifest, out = manifest.absolute(), out.absolute()
    if manifest == out:
        raise ValueError(f"{out} is the manifest itself; write the pairs to another file")
    with one_writer(out.with_name(f".{out.name}.lock")):
        return _pairs_into(manifest, out, settings, show)


def _pairs_into(manifest: Path, out: Path, settings: PairSettings, show: bool) -> Tally:
    total = sum(block.count(b"\n") for block in _blocks(manifest))
    files = PairFiles(out)
    places = Places(root=(settings.root or manifest.parent).absolute(), out=out.parent, folder=files.visuals)
    fingerprint = _fingerprint(manifest, settings)
    tally = files.resume(fingerprint)
    held_out = held_out_patients(manifest, settings)
    with tracking("other patients", total, show=show) as track:
        pool = fill_pool(manifest, settings, held_out, track.advance)
    with tracking("pairs", total, done=tally.row, show=show) as track, files.opened():
        for number, row in enumerate(read_jsonl(manifest), start=1):
            if number <= tally.row:
                continue
            _one_row(row, settings, held_out, pool, places, tally, files)
            tally.row = number
            track.advance()
            if number % CHECKPOINT_ROWS == 0:
                files.checkpoint(tally, fingerprint)
        files.checkpoint(tally, fingerprint)
    files.finish(summary(tally, settings))
    return tally


def _one_row(
    row: Sample | BadSample, settings: PairSettings, held_out: set[bytes], pool: Pool, places: Places, tally: Tally,
    files: PairFiles,
) -> None:  # fmt: skip
    if isinstance(row, BadSample):
        files.refuse(row, tally)
        return
    reason = why_not(row, settings, held_out)
    if reason is not None:
        tally.left_out[reason] += 1
        return
    case = case_of(row)
    assert case is not None
    try:
        pairs = list(pairs_of(case, settings, pool, places, tally.pairs))
    except BadSample as bad:
        files.refuse(BadSample(bad.reason, where=bad.where, mend=bad.mend, sample_id=row.sample_id), tally)
        return
    for pair in pairs:
        files.write(moved(pair, places))
        assert pair.preference is not None
        tally.pairs[pair.preference.made_by] += 1
    tally.samples[str(len(pairs))] += 1


def moved(pair: Sample, places: Places) -> Sample:
    """``pair`` with paths for the folder of the pairs: relative where the file is below it, else absolute."""

    def at(ref: VisualRef) -> VisualRef:
        if (places.out / ref.path).exists() and places.folder in (places.out / ref.path).parents:
            return ref
        full = places.root / ref.path
        inside = full.is_relative_to(places.out)
        return replace(ref, path=full.relative_to(places.out).as_posix() if inside else str(full))

    def turns(old: Sequence[Turn]) -> tuple[Turn, ...]:
        return tuple(replace(t, content=tuple(p if isinstance(p, str) else at(p) for p in t.content)) for t in old)

    if places.out == places.root:
        return pair
    assert pair.preference is not None
    preference = replace(
        pair.preference, chosen=turns(pair.preference.chosen), rejected=turns(pair.preference.rejected)
    )
    return replace(pair, turns=turns(pair.turns), preference=preference)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def _fingerprint(manifest: Path, settings: PairSettings) -> str:
    words = json.dumps(
        [VERSION, sha256_of(manifest), asdict(replace(settings, root=None, held_out=()))], sort_keys=True, default=str
    )
    others = "".join(sha256_of(path) for path in settings.held_out)
    return hashlib.sha256((words + others).encode()).hexdigest()


def summary(tally: Tally, settings: PairSettings) -> dict[str, Any]:
    """Counts of a run, as JSON."""
    chosen = [*settings.rules, *(rule.name for rule in settings.images)]
    return {
        "version": VERSION,
        "seed": settings.seed,
        "split": settings.split,
        "rows": tally.row,
        "pairs": {name: tally.pairs[name] for name in chosen},
        "samples_by_pairs": dict(sorted(tally.samples.items())),
        "left_out": dict(sorted(tally.left_out.items())),
    }
