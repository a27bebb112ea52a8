"""The labels of auxiliary losses in the metadata of samples, refused when they are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample
from medvlm.model.head_findings import CHANGES


def check_labels(sample: Sample, kind: str, where: str) -> None:
    """Refuse labels that the auxiliary loss ``kind`` cannot read, before a training meets them.

    Raises:
        BadSample: names ``where``, what was found and the mend.
    """
    read = {"progression": change_labels, "triplets": triplet_labels}.get(kind, finding_labels)
    try:
        read(sample)
    except BadSample as bad:
        raise BadSample(bad.reason, where=where, mend=bad.mend, sample_id=sample.sample_id) from bad


def labelled_names(sample: Sample, kind: str) -> set[str]:
    """Names of findings (entities of triplets) that ``sample`` labels for the auxiliary loss ``kind``.

    Raises:
        BadSample: as ``check_labels``.
    """
    if kind == "triplets":
        return {entity for entity, _, _ in triplet_labels(sample)}
    return set(change_labels(sample) if kind == "progression" else finding_labels(sample))


def finding_labels(sample: Sample) -> dict[str, bool]:
    """``metadata["findings"]``: name -> whether it is there; what is null or missing is not known.

    Raises:
        BadSample: it is anything else.
    """
    found = _mapping(sample, "findings")
    for name, value in found.items():
        if value is not None and not isinstance(value, bool):
            raise _bad(sample, f"findings.{name} is {value!r}", "write true, false or null")
    return {name: value for name, value in found.items() if value is not None}


def change_labels(sample: Sample) -> dict[str, str]:
    """``metadata["progression"]``: finding -> better, same or worse than on the prior; null and missing: not known.

    The first visual of the sample is the prior, the last one the current.

    Raises:
        BadSample: it is anything else, or there are fewer than two visuals.
    """
    found = {name: value for name, value in _mapping(sample, "progression").items() if value is not None}
    for name, value in found.items():
        if value not in CHANGES:
            raise _bad(sample, f"progression.{name} is {value!r}", f"write {', '.join(CHANGES)} or null")
    if found and len(sample.visuals()) < 2:
        raise _bad(sample, "progression needs a prior and a current visual", "show both, the prior first")
    return found


def current(sample: Sample, shown: Sequence[int]) -> list[int]:
    """Of the visuals that ``sample`` shows those that its findings are of: all, or the last one beside a prior."""
    return list(shown[-1:] if change_labels(sample) else shown)


def triplet_labels(sample: Sample) -> list[tuple[str, bool, str | None]]:
    """``metadata["triplets"]``: a list of {"entity", "present", "position"}; a position may be null or missing.

    Raises:
        BadSample: it is anything else, or an absent entity has a position.
    """
    rows = sample.metadata.get("triplets") or []
    mend = 'write [{"entity": "nodule", "present": true, "position": "left upper zone"}, ...]'
    if not isinstance(rows, list):
        raise _bad(sample, f"triplets is a {type(rows).__name__}", mend)
    labels = []
    for row in rows:
        if not isinstance(row, Mapping) or set(row) - {"entity", "present", "position"}:
            raise _bad(sample, f"triplets holds {row!r}", mend)
        entity, present, position = row.get("entity"), row.get("present"), row.get("position")
        if not isinstance(entity, str) or not isinstance(present, bool) or not isinstance(position, str | None):
            raise _bad(sample, f"triplets holds {row!r}", mend)
        if position is not None and not present:
            raise _bad(sample, f"triplets says that {entity!r} is absent and where it is", "leave the position out")
        labels.append((entity, present, position))
    return labels


def _mapping(sample: Sample, key: str) -> Mapping[str, Any]:
    value = sample.metadata.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _bad(sample, f"{key} is a {type(value).__name__}", "write an object of names and labels")
    return value


def _bad(sample: Sample, reason: str, mend: str) -> BadSample:
    return BadSample(f"metadata.{reason}", where=f"sample {sample.sample_id}", mend=mend, sample_id=sample.sample_id)
