"""Task: a published benchmark, from the files of its authors to questions that are asked of every model alike."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample, to_json
from medvlm.eval.plan import Item, why_unusable

Access = Literal["open", "gated", "credentialed"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A figure that somebody reported on the task; never comparable beyond what ``how`` says.

    Attributes:
        metric: ours that comes nearest.
        value: in the unit of that metric (a share is 0 to 1).
        model: whose.
        source: where it stands.
        how: how it was measured, as far as it is told; differences to ours first.
    """

    metric: str
    value: float
    model: str
    source: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked, and what a person must know to believe the number.

    Attributes:
        name: on the command line.
        version: rises whenever a question, its wording, choices or answers change; a test holds the fingerprint.
        title, about: for people.
        folder: below --root, where the files of the dataset lie; tasks of one dataset share it.
        read: the folder -> samples of the evaluated split, each with a question; what cannot be used as BadSample.
        n: how many questions the published split has.
        n_source: where ``n`` is stated.
        example: writes a small made-up folder in the published layout: for the self-test, never a sample of the data.
        ids_sha256: of the published split, see :func:`ids_sha256`; None where no complete copy was seen. One for each
            layout, where a copy of the dataset lacks the ids of its authors.
        cluster: what is drawn again for an interval: "patient" or "study".
        hub: dataset id of the Hugging Face hub that holds this layout, for ``medvlm eval fetch``; None: see ``url``.
        faults: what is known to be wrong or odd in the data, or done differently by others.
    """

    name: str
    version: int
    title: str
    about: str
    folder: str
    read: Callable[[Path], Iterator[Sample | BadSample]]
    n: int
    n_source: str
    example: Callable[[Path], None]
    licence: str
    url: str
    citation: str
    access: Access = "open"
    ids_sha256: str | tuple[str, ...] | None = None
    cluster: Literal["patient", "study"] = "patient"
    hub: str | None = None
    published: tuple[Published, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name and version: what a run folder and a table call it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The questions of a task on this disk.

    Attributes:
        differs: how they differ from the published split; "" when they do not. Figures of such a run are no figures of
            the task, and say so.
    """

    task: Task
    items: tuple[Item, ...]
    bad: tuple[BadSample, ...]
    ids_sha256: str
    differs: str


def ids_sha256(ids: Sequence[str]) -> str:
    """SHA-256 of the sorted ids, one a line: two runs are about the same questions exactly when it agrees."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def load(task: Task, root: Path, *, partial: bool = False) -> Loaded:
    """Read the questions of ``task`` below ``root``.

    Args:
        root: holds ``task.folder``, or is the folder of the dataset itself.
        partial: go on with another number of questions than the published split has.

    Raises:
        ValueError: nothing can be asked, or the questions are not those of the published split.
    """
    folder = root / task.folder if (root / task.folder).is_dir() else root
    items: list[Item] = []
    bad: list[BadSample] = []
    seen: dict[str, Path] = {}
    try:
        for sample in task.read(folder):
            problem = sample if isinstance(sample, BadSample) else why_unusable(sample, seen, folder)
            if problem is not None:
                bad.append(problem)
                continue
            assert isinstance(sample, Sample), "why_unusable says what is no Sample"
            seen[sample.sample_id] = folder
            items.append(Item(sample=sample, manifest=folder / "task"))
    except BadSample as refused:
        bad.append(refused)
    if not items:
        first = f": {bad[0]}" if bad else ""
        raise ValueError(
            f"no question of task {task.name} can be asked from {folder}{first}; the layout is described by "
            f"`medvlm eval list {task.name}`"
        )
    ids = ids_sha256([item.sample.sample_id for item in items])
    differs = _difference(task, len(items), len(bad), ids)
    if differs and not partial:
        raise ValueError(
            f"{folder} is not the published split of {task.name}: {differs}. Give the whole split, or --partial "
            "to ask what is there; the report then says that its figures are not those of the task"
        )
    return Loaded(task=task, items=tuple(items), bad=tuple(bad), ids_sha256=ids, differs=differs)


def _difference(task: Task, usable: int, refused: int, ids: str) -> str:
    if usable != task.n:
        return f"{usable} questions can be asked and {refused} rows cannot, {task.n} were published ({task.n_source})"
    known = (task.ids_sha256,) if isinstance(task.ids_sha256, str) else task.ids_sha256
    if known is not None and ids not in known:
        return f"as many questions as published ({task.n}), but not the same ones (SHA-256 of the ids {ids[:12]}...)"
    return ""


def example_rows(task: Task) -> list[dict]:
    """The manifest rows of the task's example, with paths as they lie in its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        task.example(folder)
        samples = list(task.read(folder))
        refused = [sample for sample in samples if isinstance(sample, BadSample)]
        if refused or not samples:
            raise ValueError(
                f"the example of task {task.name} cannot be read: {refused[0] if refused else 'it is empty'}"
            )
        text = json.dumps([to_json(sample) for sample in samples if isinstance(sample, Sample)], ensure_ascii=False)
        return list(json.loads(text.replace(str(folder), "EXAMPLE")))


def fingerprint(task: Task, rows: Sequence[Mapping[str, object]] | None = None) -> str:
    """What the task asks, as a hash: it changes with any wording, choice, answer or id of the example.

    ``rows``: of example_rows, where they were made already.
    """
    rows = example_rows(task) if rows is None else rows
    content = json.dumps([task.name, task.n, task.cluster, rows], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
