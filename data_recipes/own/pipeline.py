"""Rows of a recipe -> finished samples in their order, a block at a time: nothing holds all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from medvlm.data_recipes.decoding import Facts, key_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest_folder import ManifestFolder
from medvlm.data_recipes.one_writer import one_writer
from medvlm.data_recipes.own import llava, messages, preferences, table
from medvlm.data_recipes.own.dicom import samples_of_studies
from medvlm.data_recipes.own.draft import Workshop
from medvlm.data_recipes.own.identity import Owners
from medvlm.data_recipes.own.rows import SourceRow, count_rows, read_rows
from medvlm.data_recipes.own.settings import Filled, Format
from medvlm.data_recipes.own.visuals import Visuals
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.read_once import Outcomes, ReadOnce, all_visuals, map_visuals, with_facts
from medvlm.data_recipes.sample import Sample, VisualRef

BLOCK = 256
"""Samples whose visuals are read together; a kill loses the reading of at most one block."""
OWN_VISUALS = "visuals"
"""Folder beside the manifests for pictures that stand inside the rows."""
MEMORY = ".visuals.sqlite"
UNKNOWN = "unknown"
"""What readers say where a file states no modality."""

Make = Callable[[SourceRow, Workshop], Iterator[Sample]]
Draft = Sample | BadSample

ROWS: dict[Format, Make] = {
    "llava": llava.samples,
    "messages": messages.samples,
    "preferences": preferences.samples,
    "table": table.samples,
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """Drafts that are finished together, and how many rows they come from."""

    drafts: tuple[Draft, ...]
    rows: int


def build(filled: Filled, out: Path, *, workers: int = 1, limit: int | None = None, progress: bool = False) -> dict:
    """Write the manifests of a recipe into ``out``.

    Args:
        workers: processes that read visuals.
        limit: rows (DICOM: samples) that are looked at; all when None.
        progress: show a bar on standard error.

    Returns:
        What summary.json says.

    Raises:
        BadSample: a list of patients of the recipe cannot be used, or another process is writing into ``out``.
    """
    own = out / OWN_VISUALS
    workshop = Workshop(filled, Visuals(filled, own), Owners(filled))
    total = count_rows(filled) if limit is None else limit
    ids: set[bytes] = set()
    root = str(out.resolve()) + os.sep
    with (
        one_writer(out / ".lock"),
        ReadOnce(out / MEMORY, workers=workers) as reading,
        ManifestFolder(out) as folder,
        tracking("rows", total, show=progress) as track,
    ):
        rows = 0
        for block in _blocks(filled, workshop, own, limit):
            outcomes = reading.read(ref for one in block.drafts if isinstance(one, Sample) for ref in all_visuals(one))
            for draft in block.drafts:
                finished = draft if isinstance(draft, BadSample) else _finished(draft, outcomes)
                finished = _once(finished, ids)
                if isinstance(finished, BadSample):
                    folder.refuse(finished, filled.recipe.name)
                else:
                    folder.add(_beside(finished, root))
            rows += block.rows
            track.advance(block.rows)
        folder.say(rows=rows)
    return folder.counts()


def _blocks(filled: Filled, workshop: Workshop, own: Path, limit: int | None) -> Iterator[Block]:
    drafts: Iterable[tuple[Draft, ...]]
    if filled.recipe.format == "dicom":
        drafts = ((one,) for one in samples_of_studies(workshop))
    else:
        drafts = (_row(row, ROWS[filled.recipe.format], workshop) for row in read_rows(filled, own))
    rest = iter(drafts if limit is None else islice(drafts, limit))
    while found := list(islice(rest, BLOCK)):
        yield Block(drafts=tuple(one for row in found for one in row), rows=len(found))


def _row(row: SourceRow | BadSample, make: Make, workshop: Workshop) -> tuple[Draft, ...]:
    if isinstance(row, BadSample):
        return (row,)
    try:
        return tuple(make(row, workshop))
    except BadSample as bad:
        return (bad,)


def _finished(draft: Sample, outcomes: Outcomes) -> Draft:
    """The draft with hashes, and with the modality that its first visual states."""
    refs = all_visuals(draft)
    facts = outcomes[key_of(refs[0])] if refs else None
    if isinstance(facts, Facts) and facts.modality != UNKNOWN and "modality" not in draft.metadata:
        draft = replace(draft, metadata={**draft.metadata, "modality": facts.modality})
    return with_facts(draft, outcomes)


def _once(draft: Draft, ids: set[bytes]) -> Draft:
    """Refuse a second sample of the same id (a file that the recipe names twice)."""
    if isinstance(draft, BadSample):
        return draft
    digest = blake2b(draft.sample_id.encode(), digest_size=10).digest()
    if digest in ids:
        return BadSample(
            f"sample_id {draft.sample_id!r} occurs twice",
            where=draft.sample_id,
            mend="name each file once in paths",
            sample_id=draft.sample_id,
        )
    ids.add(digest)
    return draft


def _beside(sample: Sample, root: str) -> Sample:
    """Visuals that lie under ``root``, the folder of the manifests, get paths relative to it: it can be moved."""
    if not any(ref.path.startswith(root) for ref in all_visuals(sample)):
        return sample

    def relative(ref: VisualRef) -> VisualRef:
        return replace(ref, path=Path(ref.path.removeprefix(root)).as_posix()) if ref.path.startswith(root) else ref

    return map_visuals(sample, relative)
