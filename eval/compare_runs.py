"""Which runs can be compared, and over which questions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvlm.eval.rows import Row, read_rows
from medvlm.eval.run_folder import read_run
from medvlm.eval.stages import scores_of


@dataclass(frozen=True, kw_only=True)
class TwoRuns:
    """Two runs of one task, or of the same manifests, over the questions that both answered.

    Attributes:
        name: the task with its version, or "" of manifests.
        a, b: run.json of each.
        scores_a, scores_b: rows of scores.jsonl under the shared conditions, of the shared samples only.
        conditions: shared.
        left_out: how many samples only one of them answers, under any shared condition.
        notes: what differs and does not forbid a comparison, for people.
    """

    name: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]
    scores_a: tuple[Row, ...]
    scores_b: tuple[Row, ...]
    conditions: tuple[str, ...]
    left_out: int
    notes: tuple[str, ...]


def runs_in(folder: Path) -> dict[str, Path]:
    """Task label ("" of a run over manifests) -> run folder: ``folder`` itself, or the run folders right below it.

    Raises:
        ValueError: there is none, or two are of one task.
    """
    folders = [folder] if (folder / "run.json").exists() else sorted(path.parent for path in folder.glob("*/run.json"))
    if not folders:
        raise ValueError(f"{folder} is no run folder and holds none; give the --out of medvlm eval run")
    found: dict[str, Path] = {}
    for path in folders:
        label = read_run(path).get("task") or ""
        if label in found:
            raise ValueError(f"{found[label]} and {path} are both of {label or 'manifests'}; name one of them")
        found[label] = path
    return found


def pair_up(folder_a: Path, folder_b: Path, *, intersection: bool = False) -> tuple[list[TwoRuns], list[str]]:
    """(the runs of the same tasks, what stands in one folder only).

    Args:
        intersection: go on with the shared questions, conditions and tasks where they are not the same.

    Raises:
        ValueError: two runs are not about the same; says in what they differ.
    """
    a, b = runs_in(folder_a), runs_in(folder_b)
    names = [name for name in a if name in b]
    lonely = [f"{name or 'manifests'}: in {folder_a} only" for name in a if name not in b]
    lonely += [f"{name or 'manifests'}: in {folder_b} only" for name in b if name not in a]
    if not names:
        raise ValueError(
            f"{folder_a} and {folder_b} have no task in common: {', '.join(lonely)}. A task of another version asks "
            "other questions"
        )
    if lonely and not intersection:
        raise ValueError(f"{'; '.join(lonely)}. Give --intersection to compare the tasks that both hold")
    return [two_runs(a[name], b[name], intersection=intersection) for name in names], lonely


def two_runs(path_a: Path, path_b: Path, *, intersection: bool = False) -> TwoRuns:
    """The questions that two runs share.

    Raises:
        ValueError: they are of another task, version or wording, or, without ``intersection``, were not asked the same
            questions under the same conditions.
    """
    a, b = read_run(path_a), read_run(path_b)
    for key in ("task", "fingerprint"):
        if a.get(key) != b.get(key):
            raise ValueError(
                f"{path_a} and {path_b} cannot be compared: {key} {a.get(key)!r} against {b.get(key)!r}. They ask "
                "different questions; run both with the same version of medvlm"
            )
    scores_a, scores_b = scores_of(path_a), scores_of(path_b)
    conditions = tuple(name for name in a["conditions"] if name in b["conditions"])
    asked_a, asked_b = _samples(scores_a, conditions), _samples(scores_b, conditions)
    shared = {name: asked_a[name] & asked_b[name] for name in conditions}
    left_out = len({s for name in conditions for s in asked_a[name] ^ asked_b[name]})
    differ = _differences(a, b, left_out)
    if differ and not intersection:
        raise ValueError(
            f"{path_a} and {path_b} were not asked the same: {'; '.join(differ)}. Give --intersection to compare what "
            "they share"
        )
    if not any(shared.values()):
        raise ValueError(f"{path_a} and {path_b} have no answered question in common under {', '.join(conditions)}")
    _same_questions(path_a, path_b, shared)
    return TwoRuns(
        name=a.get("task") or "",
        a=a,
        b=b,
        scores_a=tuple(row for row in scores_a if row["sample_id"] in shared.get(row["condition"], ())),
        scores_b=tuple(row for row in scores_b if row["sample_id"] in shared.get(row["condition"], ())),
        conditions=conditions,
        left_out=left_out,
        notes=tuple(differ) + _notes(a, b),
    )


def _samples(scores: Sequence[Row], conditions: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in conditions}
    for row in scores:
        if row["condition"] in found:
            found[row["condition"]].add(row["sample_id"])
    return found


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], left_out: int) -> list[str]:
    found = []
    if a["ids_sha256"] != b["ids_sha256"]:
        found.append(f"other questions (ids_sha256 {a['ids_sha256'][:12]} against {b['ids_sha256'][:12]})")
    if set(a["conditions"]) != set(b["conditions"]):
        found.append(f"conditions {', '.join(a['conditions'])} against {', '.join(b['conditions'])}")
    if a.get("cluster") != b.get("cluster"):
        found.append(f"intervals over {a.get('cluster')} against {b.get('cluster')}")
    if left_out:
        found.append(f"{left_out} questions are answered in one of them only")
    return found


def _notes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader must know and a comparison may want to find out."""
    return tuple(
        f"{key}: {a.get(key)} against {b.get(key)}" for key in ("style", "versions") if a.get(key) != b.get(key)
    )  # fmt: skip


def _same_questions(path_a: Path, path_b: Path, shared: Mapping[str, set[str]]) -> None:
    """Refuse two runs whose questions have the same ids and another content, where each is asked once."""
    asked_a, asked_b = _questions(path_a), _questions(path_b)
    other = [
        sample
        for condition, samples in shared.items()
        for sample in sorted(samples)
        if len(asked_a[condition, sample]) == len(asked_b[condition, sample]) == 1
        and asked_a[condition, sample] != asked_b[condition, sample]
    ]
    if other:
        raise ValueError(
            f"{len(other)} questions of {path_a} and {path_b} have the same sample_id but other choices or answers, "
            f"the first {other[0]}; they are not of the same files"
        )


def _questions(path: Path) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in read_rows(path / "requests.jsonl"):
        found[row["condition"], row["sample_id"]].add(json.dumps(row["question"], sort_keys=True))
    return found
