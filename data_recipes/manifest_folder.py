"""The manifests of a folder, written row by row: each file appears whole or not at all, none stands in memory."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.sample import Sample, to_json, visuals_of

ALWAYS = ("train.jsonl", "test_questions.jsonl", "quarantine.jsonl")
"""Written even when empty."""
SOMETIMES = (
    "validation_questions.jsonl", "test_reports.jsonl", "train_pairs.jsonl", "validation_pairs.jsonl",
    "test_pairs.jsonl",
)  # fmt: skip
"""Written when there are such rows; what an earlier run left is removed."""


def file_of(sample: Sample) -> str:
    """The manifest that a sample belongs to."""
    if sample.preference is not None:
        return f"{sample.split}_pairs.jsonl"
    if sample.split == "train":
        return "train.jsonl"
    if sample.split == "test" and sample.question is not None and sample.question.kind == "report":
        return "test_reports.jsonl"
    return f"{sample.split}_questions.jsonl"


class ManifestFolder:
    """Takes samples and refusals in any order; on leaving, the files appear, ``summary.json`` last.

    Rows go to hidden files beside the manifests. When the block ends with an exception, these are removed and what was
    in the folder before stays.
    """

    def __init__(self, out: Path, *, summary: dict[str, Any] | None = None) -> None:
        """
        Args:
            summary: what summary.json says; None: ``counts``.
        """
        self.out, self._summary = out, summary
        self._files: dict[str, TextIO] = {}
        self._splits: dict[str, Counter[str]] = {}
        self._refused: Counter[str] = Counter()
        self._shown: dict[str, set[int]] = {"image": set(), "volume": set(), "video": set()}
        self._extra: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        for name in ALWAYS:
            self._file(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for name, file in self._files.items():
                if kind is None:
                    file.flush()
                    os.fsync(file.fileno())
                file.close()
                if kind is None:
                    self._part(name).replace(self.out / name)
        finally:
            for name in (*ALWAYS, *SOMETIMES):
                self._part(name).unlink(missing_ok=True)
        if kind is None:
            for name in set(SOMETIMES) - set(self._files):
                (self.out / name).unlink(missing_ok=True)
            text = json.dumps(self._summary or self.counts(), indent=2, ensure_ascii=False)
            write_atomic(self.out / "summary.json", text + "\n")

    def _part(self, name: str) -> Path:
        return self.out / f".{name}.part"

    def _file(self, name: str) -> TextIO:
        if name not in self._files:
            self._files[name] = self._part(name).open("w", encoding="utf-8")
        return self._files[name]

    def add(self, sample: Sample) -> None:
        """Write one sample to the manifest of its split."""
        self._file(file_of(sample)).write(json.dumps(to_json(sample), ensure_ascii=False) + "\n")
        self._splits.setdefault(sample.source, Counter())[sample.split] += 1
        for side in sample.sides():
            for ref in visuals_of(side):
                # A number for each visual, not its path: a million paths would be most of the memory of a build.
                self._shown[ref.kind].add(hash((ref.path, json.dumps(ref.options, sort_keys=True))))

    def refuse(self, bad: BadSample, source: str) -> None:
        """Write one row of the quarantine."""
        self._file("quarantine.jsonl").write(json.dumps(bad.to_dict(), ensure_ascii=False) + "\n")
        self._refused[source] += 1

    def say(self, **facts: Any) -> None:
        """Facts for ``summary.json`` beside the counts."""
        self._extra.update(facts)

    def counts(self) -> dict[str, Any]:
        """Samples, distinct visuals of each kind, refusals, and all of it by source and split."""
        by_source = {
            source: {
                **{split: self._splits.get(source, Counter())[split] for split in ("train", "validation", "test")},
                "quarantined": self._refused[source],
            }
            for source in sorted({*self._splits, *self._refused})
        }
        return {
            "samples": sum(splits.total() for splits in self._splits.values()),
            **{f"{kind}s": len(shown) for kind, shown in self._shown.items()},
            "quarantined": self._refused.total(),
            **self._extra,
            "by_source": by_source,
        }


class Later:
    """Refusals that are written when their turn comes: many of them lie in a temporary file, not in memory."""

    IN_MEMORY = 1 << 20
    """Bytes that are not worth a file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (it is gone with this object)
            max_size=self.IN_MEMORY, mode="w+", encoding="utf-8"
        )

    def add(self, bad: BadSample, source: str) -> None:
        """Keep one refusal."""
        self._file.write(json.dumps([bad.to_dict(), source]) + "\n")

    def write_to(self, folder: ManifestFolder) -> None:
        """All of them in their order; then none is left."""
        for bad, source in self:
            folder.refuse(bad, source)
        self._file.seek(0)
        self._file.truncate()

    def __iter__(self) -> Iterator[tuple[BadSample, str]]:
        self._file.seek(0)
        for line in self._file:
            told, source = json.loads(line)
            yield BadSample(told.pop("reason"), **told), source
