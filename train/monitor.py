"""What one sees of a training: a row in metrics.jsonl for each step, and a progress bar or plain lines."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from medvlm.train.throughput import Cost, Meter
from medvlm.train.trackers import Tracker
from medvlm.train.verdict import verdict_of_rows

METRICS = "metrics.jsonl"
SCORES = ("closed_accuracy", "choice_accuracy", "finding_f1", "box_iou")
"""Of the scores of a step, those that its line shows; metrics.jsonl has all."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One optimizer step.

    Attributes:
        step: optimizer steps done, from 1.
        loss: mean over the supervised tokens (or pairs) of the step.
        learning_rates: by component or group.
        grad_norm: before clipping.
        tokens, supervised_tokens, patches: of the step, over all ranks.
        visual_tokens: of the step, over all ranks: those that the decoder saw, out of ``visual_tokens_made``.
        seconds: of the step, waiting for data included.
        data_wait_s: of these, waiting for data.
        metrics: what the objective reports besides (accuracy of preference pairs, ...).
        scores: of questions that were asked after this step; empty when none were.
        cost: time by phase, utilisation, memory.
    """

    step: int
    loss: float
    learning_rates: Mapping[str, float]
    grad_norm: float
    tokens: int
    supervised_tokens: int
    patches: int
    seconds: float
    data_wait_s: float
    visual_tokens: int = 0
    visual_tokens_made: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)

    def row(self, stage: str) -> dict[str, Any]:
        """The row of metrics.jsonl; numbers that are not finite become null, because JSON has no word for them."""
        seconds = max(self.seconds, 1e-9)
        row: dict[str, Any] = {
            "stage": stage,
            "step": self.step,
            "loss": self.loss,
            "learning_rate": dict(self.learning_rates),
            "grad_norm": self.grad_norm,
            "tokens_per_s": self.tokens / seconds,
            "patches_per_s": self.patches / seconds,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "visual_tokens": self.visual_tokens,
            "visual_tokens_made": self.visual_tokens_made,
            "seconds": self.seconds,
            "data_wait_s": self.data_wait_s,
            "padding": self.cost.padding,
            "mfu": self.cost.mfu,
            "hfu": self.cost.hfu,
            "memory_gib": self.cost.memory_gib,
            "phases": dict(self.cost.phases),
            **self.metrics,
        }
        if self.scores:
            row["scores"] = dict(self.scores)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


class Monitor:
    """Writes and shows the steps of one stage; does nothing on ranks other than 0. Use it in a ``with`` block.

    Args:
        folder: where metrics.jsonl is appended to.
        total_steps: of the stage.
        start_step: steps done before, when resuming: rows of this stage after it are removed, so that a step never
            stands twice in the file.
        every: without a terminal, print a line every so many steps.
        bar: show a bar; None shows one when standard error is a terminal, and lines otherwise.
        meter: times the phases of a step; by default one that counts no operations.
        trackers: are told the numbers of each step, on rank 0; closed at the end of the block.
        verdict_every: say after so many steps what holds the training up; also at the end.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        total_steps: int,
        *,
        rank: int = 0,
        start_step: int = 0,
        every: int = 10,
        bar: bool | None = None,
        meter: Meter | None = None,
        trackers: Sequence[Tracker] = (),
        verdict_every: int = 100,
    ) -> None:
        self.path, self.stage, self.total_steps, self.every = folder / METRICS, stage, total_steps, every
        self.rank, self.start_step = rank, start_step
        self.bar = sys.stderr.isatty() if bar is None else bar
        self.meter = Meter() if meter is None else meter
        self.trackers, self.verdict_every = trackers, verdict_every
        self._rows: list[dict[str, Any]] = []
        self._pace: float | None = None
        self._file: IO[str] | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> Monitor:
        if self.rank != 0:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_rows_after(self.path, self.stage, self.start_step)
        self._file = self.path.open("a", encoding="utf-8")
        if self.bar:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[shown]}"),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._progress.add_task(self.stage, total=self.total_steps, completed=self.start_step, left="", shown="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._file is not None:
            self._file.close()
            for tracker in self.trackers:
                tracker.close()
        self._progress = self._file = None

    def log(self, report: StepReport) -> None:
        """Write and show one step."""
        if self.rank != 0:
            return
        if self._file is None:
            raise RuntimeError("Monitor.log outside of its with block; write `with Monitor(...) as monitor:`")
        row = report.row(self.stage)
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for tracker in self.trackers:
            tracker.log(report.step, numbers_of(row))
        took = report.seconds + sum(report.cost.phases.get(name, 0.0) for name in ("save", "evaluate"))
        # Exponential mean over about 20 steps: one slow step must not turn the forecast over.
        self._pace = took if self._pace is None else 0.95 * self._pace + 0.05 * took
        left = timedelta(seconds=round((self.total_steps - report.step) * self._pace))
        parts = parts_of(report)
        if self._progress is not None:
            room = self._progress.console.width - 60  # what the bar and the counts take
            self._progress.update(
                self._progress.task_ids[0], completed=report.step, left=f"{left} left", shown=fitting(parts, room)
            )
        elif report.step % self.every == 0 or report.step in (self.start_step + 1, self.total_steps):
            self._say(f"step {report.step}/{self.total_steps} {' | '.join([*parts, f'{left} left'])}")
        self._judge(row)

    def _judge(self, row: dict[str, Any]) -> None:
        """Say now and then, and at the end, what holds the training up."""
        self._rows.append(row)
        at_end = row["step"] == self.total_steps
        if row["phases"] and ((at_end and len(self._rows) > 2) or len(self._rows) == self.verdict_every):
            first, last = self._rows[0]["step"], row["step"]
            self._say(f"steps {first} to {last}: {verdict_of_rows(self._rows)}")
        if len(self._rows) == self.verdict_every:
            self._rows = []

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(f"[{self.stage}] {text}", markup=False, highlight=False)
        else:
            print(f"[{self.stage}] {text}", file=sys.stderr, flush=True)


def parts_of(report: StepReport) -> list[str]:
    """What the line of one step says, the most important first: a narrow terminal shows as much as fits."""
    seconds, cost = max(report.seconds, 1e-9), report.cost
    rates = {name.split(".")[0]: rate for name, rate in report.learning_rates.items()}
    throughput = f"{report.tokens / seconds:,.0f} tokens/s"
    parts = [
        f"loss {report.loss:.4f}",
        throughput if cost.padding is None else f"{throughput} ({cost.padding:.0%} padding)",
        f"data wait {report.data_wait_s / seconds:.0%}",
        f"grad norm {report.grad_norm:.3g}",
        "lr " + " ".join(f"{name} {rate:.3g}" for name, rate in rates.items()),
    ]
    if report.scores:
        found = {name: report.scores.get(name) for name in SCORES}
        told = [f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.items() if value is not None]
        parts.insert(1, ", ".join(told) or "no question could be scored")
    if cost.mfu is not None:
        recomputed = cost.hfu is not None and cost.hfu > cost.mfu
        parts.append(f"MFU {cost.mfu:.1%}" + (f" (HFU {cost.hfu:.1%})" if recomputed else ""))
    if cost.memory_gib is not None:
        parts.append(f"{cost.memory_gib:.1f} GiB")
    if report.patches:
        parts.append(f"{report.patches / seconds:,.0f} patches/s")
    if report.visual_tokens < report.visual_tokens_made:
        parts.append(f"{report.visual_tokens / report.visual_tokens_made:.0%} of visual tokens kept")
    return parts


def fitting(parts: Sequence[str], width: int) -> str:
    """As many of ``parts`` as fit beside each other, at least the first."""
    shown = parts[0]
    for part in parts[1:]:
        if len(shown) + 3 + len(part) > width:
            break
        shown += f" | {part}"
    return shown


def numbers_of(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row of metrics.jsonl under flat names ("learning_rate/projector"), for trackers."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= numbers_of(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found[prefix + name] = float(value)
    return found


def _drop_rows_after(path: Path, stage: str, step: int) -> None:
    """Remove rows of ``stage`` after ``step``, and a last line that a killed process left half written."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{number}: not JSON ({error.msg}); mend or remove the line, or use another output_dir"
            ) from error
        if row["stage"] != stage or row["step"] <= step:
            kept.append(line)
    if len(kept) == len(lines):
        return
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
