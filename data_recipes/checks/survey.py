"""All checks over all rows and visuals: a few passes over the manifests, one over the files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medvlm.data_recipes.checks.answers import Answers
from medvlm.data_recipes.checks.catalogue import Catalogue, Seen
from medvlm.data_recipes.checks.copies import NEAR, Copies
from medvlm.data_recipes.checks.files import Files
from medvlm.data_recipes.checks.finding import Finding, RowCheck
from medvlm.data_recipes.checks.journal import Journal
from medvlm.data_recipes.checks.lengths import Budget, Measured, length_findings
from medvlm.data_recipes.checks.licences import Licences
from medvlm.data_recipes.checks.patients import Patients, SampleIds
from medvlm.data_recipes.checks.private import Private
from medvlm.data_recipes.checks.private_texts import private_text_findings
from medvlm.data_recipes.checks.shortcuts import Shortcuts
from medvlm.data_recipes.checks.sides import Sides
from medvlm.data_recipes.checks.targets import Targets
from medvlm.data_recipes.checks.texts import WORDS, text_findings
from medvlm.data_recipes.checks.visuals import Visuals, look_at_all
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.progress import tracking


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is checked and how.

    Attributes:
        manifests, registered, root: see catalogue.Catalogue.
        out: folder of the journals.
        augmentations: names of sides.AUGMENTATIONS that training is going to use.
        processor: checkpoint whose processor measures lengths; None: not measured.
        distance: bits in which near-duplicates may differ.
        words: of an n-gram.
        private: where identifiers are looked for in files.
        allow_official: only warn about patients that a published split shares.
    """

    manifests: tuple[Path, ...]
    registered: tuple[Path, ...] = ()
    root: Path | None = None
    out: Path
    augmentations: tuple[str, ...] = ()
    processor: str | None = None
    budget: Budget = field(default_factory=Budget)
    distance: int = NEAR
    words: int = WORDS
    private: Private = field(default_factory=Private)
    allow_official: bool = False
    workers: int = 1
    progress: bool = False


class Survey:
    """Runs the checks; ``findings`` once, the tables after it.

    Raises:
        BadSample: a manifest is missing.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.catalogue = Catalogue(plan.manifests, plan.registered, plan.root)
        self.visuals = Visuals()
        self.licences, self.answers, self.shortcuts = Licences(), Answers(), Shortcuts()
        self.measured = Measured()
        self.rows: Counter[str] = Counter()

    def findings(self) -> Iterator[Finding]:
        """Every finding, check by check."""
        plan, catalogue = self.plan, self.catalogue
        checks: list[RowCheck] = [
            Patients(plan.allow_official), SampleIds(), Targets(), self.licences, Sides(plan.augmentations),
            self.answers, self.shortcuts,
        ]  # fmt: skip
        with tracking("reading rows", len(catalogue), show=plan.progress) as track:
            for number in range(len(catalogue)):
                row = catalogue.row(number)
                track.advance()
                if isinstance(row, BadSample):
                    self.rows["refused"] += 1
                    yield refused(row, catalogue.is_registered(number))
                    continue
                self.rows[row.part] += 1
                self.visuals.see(row)
                for check in checks:
                    check.see(row)
        if not catalogue.under_test():
            yield Finding(
                check="rows", severity="error", where=str(plan.manifests[0]), reason="no rows at all", leave_out=False,
                mend="see quarantine.jsonl of the walk for what could not be used",
            )  # fmt: skip
        with Journal(plan.out / "texts.jsonl") as journal:
            yield from private_text_findings(catalogue, journal, workers=plan.workers, progress=plan.progress)
        copies, files = Copies(self.visuals, plan.distance), Files(self.visuals)
        with Journal(plan.out / "visuals.jsonl") as journal:
            for number, look in look_at_all(
                self.visuals, journal, plan.private, workers=plan.workers, progress=plan.progress
            ):
                copies.look(number, look)
                files.look(number, look)
        for check in checks:
            yield from check.findings(catalogue)
        yield from files.findings(catalogue)
        yield from copies.findings(catalogue)

        def content(row: Seen) -> tuple[int, ...]:
            return tuple(sorted(copies.content(self.visuals.number_of(ref)) for ref in row.visuals()))

        yield from text_findings(catalogue, content, plan.words)
        for row in catalogue:
            if isinstance(row, Seen) and not row.registered:
                yield from files.compare(row)
        if plan.processor is not None:
            with Journal(plan.out / "lengths.jsonl") as journal:
                yield from length_findings(
                    catalogue, files.can_be_read, plan.processor, journal, plan.budget, self.measured,
                    workers=plan.workers, progress=plan.progress,
                )  # fmt: skip

    def not_run(self) -> dict[str, str]:
        """Check -> why it was not made."""
        found = {}
        if not self.plan.augmentations:
            found["sides"] = "no --augmentation is planned"
        if self.plan.processor is None:
            found["lengths"] = "no --processor is given"
        if not self.plan.private.pixels:
            found["names_in_pixels"] = "--ocr is not given"
        if not self.plan.registered:
            found |= dict.fromkeys(("test_set_images", "test_set_texts"), "no test set is registered with --against")
        return found


_ROUTES = (
    ("licences", re.compile(r"'licence' must be")),
    (
        "empty_answers",
        re.compile(r"question\.answers must be|\]\.content\[\d+\]\.'text' must be"),
    ),
    ("empty_answers", re.compile(r"ends without an answer|content must be a non-empty list")),
)
"""Which check a row belongs to that sample.from_json refuses; all others are rows that cannot be read."""


def refused(bad: BadSample, registered: bool) -> Finding:
    """The finding of a row that is no sample."""
    check = next((name for name, words in _ROUTES if words.search(bad.reason)), "rows")
    return Finding(
        check=check, severity="error", where=bad.where, sample_id=bad.sample_id,
        reason=bad.reason, mend=bad.mend, leave_out=not registered,
    )  # fmt: skip
