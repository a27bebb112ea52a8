"""rollouts.jsonl: some of the answers of each step with their marks, to be read by people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvlm.eval.rows import append_rows, drop_torn_line, read_rows, write_rows
from medvlm.train.objectives.rollouts import Scored

ROLLOUTS = "rollouts.jsonl"


class RolloutLog:
    """Writes the first ``kept`` groups of each step of rank 0; other ranks write nothing.

    A row holds the text of the question and its reference as the manifest has them, and what the model wrote: no more
    of a patient than the manifest, and no less. Keep the file where the manifest may lie.

    Args:
        folder: of the stage.
        start: steps done before: rows of later ones, which a killed run left, are removed.
    """

    def __init__(self, folder: Path, *, kept: int, rank: int, start: int = 0) -> None:
        self.path, self.kept = folder / ROLLOUTS, kept if rank == 0 else 0
        if rank == 0 and self.path.exists():
            drop_torn_line(self.path)
            rows = read_rows(self.path)
            before = [row for row in rows if row["step"] <= start]
            if len(before) < len(rows):
                write_rows(self.path, before)

    def write(self, step: int, groups: Sequence[Sequence[Scored]]) -> None:
        """Append the answers of a step, counted from 0; its row says from 1, as metrics.jsonl."""
        rows = [
            {
                "step": step + 1,
                "sample_id": group[0].prompt.sample.sample_id,
                "question": group[0].prompt.asked.prompt,
                "reference": group[0].prompt.asked.question.answers[0],
                "answers": [
                    {
                        "text": one.answer.text,
                        "tokens": len(one.answer.tokens),
                        "cut_off": one.answer.cut_off,
                        "unread": one.mark.unread,
                        "rewards": dict(one.mark.parts),
                        "reward": one.reward,
                        "advantage": one.advantage,
                    }
                    for one in group
                ],
            }
            for group in groups[: self.kept]
        ]
        if rows:
            append_rows(self.path, rows)
