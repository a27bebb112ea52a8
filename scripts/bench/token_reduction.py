"""What dropping visual tokens costs: ours at several bounds, Hulu-Med's rule, M3D's pooling, and nothing dropped.

    python -m medvlm.scripts.bench.token_reduction --checkpoint CHECKPOINT --data PHANTOMS --out runs/tokens
    python -m medvlm.scripts.bench.token_reduction --checkpoint CHECKPOINT --real SCAN SCAN --out runs/tokens-real

Tokens kept and errors are over the volumes that the closed 3D questions of PHANTOMS/test_questions.jsonl are about, or
over the given scans; accuracy is of the answers that the checkpoint gives to these questions with the tokens that each
rule keeps, in batches of 4, and of 1 where the answers must be the same. The error of a dropped token is the difference
to what stands for it: the last kept token of its column or, with pooling, the mean of its block. Channels are in
[0, 1], and differences are taken of cells, which is what the bound is about (4 x 4 voxels where a rule has none), and
of single voxels. Pooling averages the tokens that the projector made, because the checkpoint has no pooling projector:
its accuracy is that of a model which never saw such means. The interval of a change is a bootstrap over patients of
paired answers. ``--trained`` adds checkpoints that were trained with a reduction, each under its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.progress import track

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.sample import VisualRef
from medvlm.eval.extract import extract
from medvlm.eval.intervals import clustered, proportion
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.eval.models import Request
from medvlm.eval.plan import MAX_NEW_TOKENS, Item, read_items, take
from medvlm.eval.scorers.choice import is_correct
from medvlm.model.visual import Visual, Volume
from medvlm.scripts.bench.token_rules import PooledTokens, Rule, RuleProcessor, Tally, drift_kept, rules

REAL_BUDGET: dict[str, Any] = {
    "patch_size": [2, 16, 16], "merge": [1, 2, 2], "max_patches": {"volume": 16384}, "max_depth": {"volume": 160},
}  # fmt: skip
"""Given scans are cut at nearly their own resolution, as for a pretrained encoder with patches of 16 pixels."""


def questions(data: Path, limit: int | None, seed: int) -> list[Item]:
    """The closed 3D questions of the test split.

    Raises:
        ValueError: there are none.
    """
    manifest = data / "test_questions.jsonl"
    items, _ = read_items([manifest])
    closed = [item for item in items if item.dimension == "3d" and item.question.kind == "closed"]
    if not closed:
        raise ValueError(f"{manifest} has no closed question about a volume; make it with medvlm data phantoms")
    return take(closed, limit, seed=seed)


def load_visuals(items: Sequence[Item]) -> dict[str, Visual]:
    """Every visual of ``items`` once, by path."""
    refs = {ref.path: (ref, item.root) for item in items for ref in item.sample.visuals()}
    return {path: read(ref, root) for path, (ref, root) in track(refs.items(), "reading", console=_console())}


def tallies(
    visuals: Iterable[Visual], table: Sequence[Rule], checkpoint: Path, **settings: Any
) -> list[dict[str, Any]]:
    """Tokens and errors of every rule over ``visuals``."""
    visuals = list(visuals)
    processors = [RuleProcessor.under(rule, checkpoint, **settings) for rule in table]
    background = next(p for p, rule in zip(processors, table, strict=True) if rule.reduction == {"bound": None})
    found = [Tally() for _ in table]
    for visual in track(visuals, "measuring", console=_console()):
        empty = ~background.patch(visual).kept
        for tally, processor in zip(found, processors, strict=True):
            tally.add(processor.patch(visual), processor, empty)
            processor._cut.clear()
    return [
        {"rule": rule.name, **tally.row(), "drift_kept": drift_kept(rule)}
        for rule, tally in zip(table, found, strict=True)
    ]


def answers(model: CheckpointModel, items: Sequence[Item], visuals: dict[str, Visual], batch_size: int) -> list[str]:
    """What the model writes to each question."""
    model.batch_size = batch_size
    requests = [
        Request(
            request_id=item.sample.sample_id,
            sample_id=item.sample.sample_id,
            turns=item.sample.turns,
            question=item.question,
            visuals=tuple(visuals[ref.path] for ref in item.sample.visuals()),
            max_new_tokens=MAX_NEW_TOKENS["closed"],
        )
        for item in items
    ]
    return [response.text for response in model.answer(requests)]


def accuracy(
    checkpoint: Path,
    trained: Sequence[Path],
    table: Sequence[Rule],
    items: Sequence[Item],
    visuals: dict[str, Visual],
    alone: int,
) -> list[dict[str, Any]]:
    """For every rule: share of right answers, its change against the first rule in points, and batch 1 against 4.

    The last rules of ``table`` belong to the checkpoints in ``trained``, in order; the others to ``checkpoint``.
    """
    patients = [item.sample.patient_id for item in items]
    rows, first = [], np.zeros(0)
    owners = [checkpoint] * (len(table) - len(trained)) + list(trained)
    for rule, owner in track(list(zip(table, owners, strict=True)), "asking", console=_console()):
        model = CheckpointModel(owner)
        model.processor = processor = RuleProcessor.under(rule, owner)
        if rule.block is not None:
            model.model.projector = PooledTokens(model.model.projector, processor.merge, rule.block)
        began = time.perf_counter()
        texts = answers(model, items, visuals, 4)
        seconds = time.perf_counter() - began
        right = np.array([_right(item, text) for item, text in zip(items, texts, strict=True)], dtype=float)
        first = right if not len(first) else first
        change = clustered(np.stack([right - first, np.ones_like(right)], axis=1), patients)
        whole = proportion(right.tolist(), patients)
        rows.append(
            {
                "questions": len(items),
                "patients": len(set(patients)),
                "accuracy": whole.value,
                "accuracy_low": whole.low,
                "accuracy_high": whole.high,
                "points": 100 * float((right - first).mean()),
                "points_low": None if change.low is None else 100 * change.low,
                "points_high": None if change.high is None else 100 * change.high,
                "answers_changed": int((right != first).sum()),
                "batch_1_asked": min(alone, len(items)),
                "batch_1_differs": sum(
                    a != b for a, b in zip(answers(model, items[:alone], visuals, 1), texts, strict=False)
                ),
                "seconds": seconds,
            }
        )
    return rows


def own_rule(checkpoint: Path) -> Rule:
    """The reduction that ``checkpoint`` was trained with, as a row.

    Raises:
        ValueError: it was trained without one.
    """
    reduction = RuleProcessor.from_pretrained(checkpoint).reduction
    if reduction is None:
        raise ValueError(f"{checkpoint} has no reduction in its processor; give it as --checkpoint")
    said = ", ".join(f"{key} {value}" for key, value in reduction.items())
    return Rule(name=f"trained with: {said}", reduction=reduction)


def _right(item: Item, text: str) -> bool:
    return is_correct(item.question, extract(item.question, text, item.prompt).value, item.prompt)


def real_scans(paths: Sequence[Path]) -> list[tuple[Path, Volume]]:
    """The scans that can be read; what cannot is said. A CT that states no unit is asked for as "PATH=HU"."""
    found = []
    for path in paths:
        name, _, unit = str(path).partition("=")
        options = {"modality": "CT", "unit": "HU"} if unit == "HU" else {}
        try:
            kind = sniff(Path(name))
            visual = read(VisualRef(kind=kind or "volume", path=Path(name).name, options=options), Path(name).parent)
        except BadSample as bad:
            print(f"left out: {bad}", file=sys.stderr)
            continue
        if isinstance(visual, Volume):
            found.append((Path(name), visual))
    if not found:
        raise ValueError("none of the given scans is a volume that can be read; the reasons stand above")
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table, with accuracy where it was asked for."""
    asked = "accuracy" in rows[0]
    heads = ["rule", "kept", "background", "cell error max (mean)", "voxel error max (mean)", "drift kept"]
    heads += ["accuracy", "change in points (95 %)", "answers that differ in a batch of 1"] if asked else []
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [
            row["rule"],
            f"{row['kept']:.1%}",
            f"{row['background']:.1%}",
            f"{row['cell_error_max']:.3f} ({row['cell_error_mean']:.3f})",
            f"{row['voxel_error_max']:.3f} ({row['voxel_error_mean']:.3f})",
            f"{row['drift_kept']:.0%}",
        ]
        if asked:
            low, high = row["points_low"], row["points_high"]
            interval = "" if low is None else f" ({low:+.1f} to {high:+.1f})"
            cells += [
                f"{row['accuracy']:.1%}",
                f"{row['points']:+.1f}{interval}",
                f"{row['batch_1_differs']} of {row['batch_1_asked']}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _console() -> Console:
    console = Console(stderr=True)
    console.quiet = not console.is_terminal
    return console


def _stamp() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def run(options: argparse.Namespace) -> None:
    """Measure, print, and write ``token_reduction.json`` and ``.md`` into the folder."""
    table = rules(options.bounds, options.cells, options.budgets)
    table += [own_rule(checkpoint) for checkpoint in options.trained]
    report: dict[str, Any] = {**_stamp(), "checkpoint": options.checkpoint.name}
    parts: list[str] = []
    if options.data is not None:
        items = questions(options.data, options.limit, options.seed)
        visuals = load_visuals(items)
        rows = tallies(visuals.values(), table, options.checkpoint)
        asked = accuracy(options.checkpoint, options.trained, table, items, visuals, options.alone)
        report["phantoms"] = [{**row, **more} for row, more in zip(rows, asked, strict=True)]
        parts.append(markdown(report["phantoms"]))
    for path, volume in real_scans(options.real) if options.real else []:
        size = "{} x {} x {}".format(*volume.voxels.shape)
        report.setdefault("real", {})[path.name] = rows = tallies([volume], table, options.checkpoint, **REAL_BUDGET)
        parts.append(
            f"{path.name}, {volume.modality}, {size} voxels, {rows[0]['tokens_made']} tokens:\n\n{markdown(rows)}"
        )
    text = "\n\n".join(parts) + "\n"
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / "token_reduction.json", json.dumps(report, indent=1) + "\n")
    write_atomic(options.out / "token_reduction.md", text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m medvlm.scripts.bench.token_reduction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a medvlm checkpoint")
    parser.add_argument("--trained", type=Path, nargs="*", default=[], help="checkpoints trained with a reduction")
    parser.add_argument("--data", type=Path, help="folder with test_questions.jsonl")
    parser.add_argument(
        "--real", type=Path, nargs="*", help="scans: files or folders of DICOM slices; PATH=HU for a CT"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bounds", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2])
    parser.add_argument("--cells", type=int, nargs="+", default=[4], help="voxels of a cell; a row per cell and bound")
    parser.add_argument("--budgets", type=int, nargs="*", default=[], help="a row each: at most so many tokens")
    parser.add_argument("--limit", type=int, help="questions, spread by a seeded hash; all by default")
    parser.add_argument("--alone", type=int, default=100, help="questions asked in batches of 1 as well")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.data is None and not options.real:
        parser.error("give --data, --real, or both")
    try:
        run(options)
    except (BadSample, ValueError, OSError) as error:
        print(f"token_reduction: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
