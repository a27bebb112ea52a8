"""Is the ruler straight? `medvlm eval selftest` asks every task of answerers whose score is known beforehand.

On each task: who knows the answers scores 1, a constant answer scores its share of the references, an empty answer
scores 0 and is unread throughout, and the references in a wrong order score as often as two references agree. The
shares are counted from the files without any scorer.

Without --root the tasks are made-up examples in the published layouts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from medvlm.data_recipes.sample import Question
from medvlm.eval.extract import extract
from medvlm.eval.generate import generate
from medvlm.eval.known_wrong import CASES, misread
from medvlm.eval.metric import Answered
from medvlm.eval.models import Answerer, ConstantModel, OracleModel, reference_of
from medvlm.eval.plan import Item
from medvlm.eval.rows import Row
from medvlm.eval.run import Settings, run_row
from medvlm.eval.run_folder import claim, read_plan, write_plan
from medvlm.eval.score import marks_of
from medvlm.eval.scorers.catalogue import METRICS
from medvlm.eval.scorers.choice import is_correct
from medvlm.eval.stages import aggregate_stage, extract_stage, score_stage
from medvlm.eval.task import Loaded, Task, load
from medvlm.eval.tasks.catalogue import TASKS, task_named

SHIFTS = 24
"""Wrong orders that are tried on a large task; on a smaller one all of them."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that must hold of one task; ``faults`` is empty when it does."""

    task: str
    name: str
    faults: tuple[str, ...]


def check_task(loaded: Loaded, out: Path) -> list[Check]:
    """All checks of one task; run folders are written below ``out``."""
    name = loaded.task.label
    checks: list[tuple[str, Callable[[], list[str]]]] = [
        ("oracle", lambda: _oracle(_table(OracleModel(), loaded, out / "oracle"))),
        ("constant", lambda: _constants(loaded.items)),
        ("empty", lambda: _empty(_table(ConstantModel(""), loaded, out / "empty"), len(loaded.items))),
        ("shuffled", lambda: _shuffled(loaded.items)),
    ]
    return [Check(task=name, name=what, faults=tuple(check())) for what, check in checks]


def _table(answerer: Answerer, loaded: Loaded, out: Path) -> list[Row]:
    """Ask, extract, score and aggregate as a run does; the rows of metrics.json over all questions."""
    settings = Settings(conditions=("image",))
    plan = settings.plan(loaded.items)
    about = {"task": loaded.task.label, "cluster": loaded.task.cluster, "published": [], "differs": loaded.differs}
    claim(out, run_row(answerer, loaded.items, settings, plan, about))
    write_plan(out, plan)
    generate(answerer, plan.asks, out, chunk_size=64, show_progress=False)
    asks = read_plan(out)
    extract_stage(out, asks)
    score_stage(out, asks)
    return [row for row in aggregate_stage(out)["table"] if row["dimension"] == row["topic"] == "all"]


def _is_mark(row: Row) -> bool:
    """A share of what is right: 1 for who knows the answers, 0 for who says nothing."""
    _, metric = METRICS[row["metric"]]
    return metric.unit == "share" and metric.better == "higher"


def _oracle(table: Sequence[Row]) -> list[str]:
    marks = [row for row in table if _is_mark(row) and row["value"] is not None]
    faults = [
        f"{row['metric']} is {row['value']:.4f} for who knows the answers"
        for row in marks
        if abs(row["value"] - 1) > 1e-9
    ]
    return faults or ([] if marks else ["no metric could be computed"])


def _empty(table: Sequence[Row], questions: int) -> list[str]:
    faults = [
        f"{row['metric']} is {row['value']:.4f} for empty answers"
        for row in table
        if _is_mark(row) and row["value"] is not None and abs(row["value"]) > 1e-9
    ]
    for row in table:
        if row["unparsed"] != row["n"] or row["empty"] != row["n"]:
            faults.append(f"{row['metric']}: {row['unparsed']} of {row['n']} empty answers count as unread")
    return faults or ([] if questions else ["no question"])


def _letters(question: Question) -> list[str]:
    """The letters of a choice's accepted answers, the reference first, found without the scorer."""
    letters = [chr(ord("A") + place) for place in range(len(question.choices))]
    answers = [answer.strip() for answer in question.answers]
    return [text if text in letters else letters[list(question.choices).index(text)] for text in answers]


def _closed(items: Sequence[Item], kind: str) -> list[tuple[Item, str, set[str]]]:
    """(item, its reference as a model would write it, all accepted forms) of closed questions or of choices."""
    asked = [item for item in items if item.question.kind == kind]
    if kind == "choice":
        found = [(item, _letters(item.question)) for item in asked]
        return [(item, letters[0], set(letters)) for item, letters in found]
    return [
        (item, item.question.answers[0], {answer.strip().lower() for answer in item.question.answers}) for item in asked
    ]


def _marked(item: Item, text: str) -> bool:
    return is_correct(item.question, extract(item.question, text, item.prompt).value, item.prompt)


def _constants(items: Sequence[Item]) -> list[str]:
    faults: list[str] = []
    for kind in ("closed", "choice"):
        asked = _closed(items, kind)
        for text, _ in Counter(reference for _, reference, _ in asked).most_common(6):
            expected = sum(text.strip().lower() in accepted or text in accepted for _, _, accepted in asked)
            found = sum(_marked(item, text) for item, _, _ in asked)
            if found != expected:
                faults.append(f"{kind}: always {text!r} is right {found} times, {expected} references say so")
    return faults


def _shuffled(items: Sequence[Item]) -> list[str]:
    faults: list[str] = []
    for kind in ("closed", "choice"):
        asked = _closed(items, kind)
        shifts = list(range(1, len(asked)))
        if len(shifts) > SHIFTS:
            shifts = sorted(np.random.default_rng(0).choice(np.arange(1, len(asked)), SHIFTS, replace=False).tolist())
        found = expected = 0
        for shift in shifts:
            moved = [reference for _, reference, _ in asked[shift:] + asked[:shift]]
            expected += sum(
                text in accepted or text.strip().lower() in accepted
                for text, (_, _, accepted) in zip(moved, asked, strict=True)
            )
            found += sum(_marked(item, text) for text, (item, _, _) in zip(moved, asked, strict=True))
        if found != expected:
            faults.append(f"{kind}: shuffled references are right {found} times, {expected} agree by chance")
    return faults + _others_below_one(items)


def _others_below_one(items: Sequence[Item]) -> list[str]:
    """Open answers and reports in a wrong order must not score like the right ones: a mark that cannot fall is none."""
    others = [item for item in items if item.question.kind not in ("closed", "choice")]
    texts = [reference_of(item.question) for item in others]
    if len(set(texts)) < 2:
        return []
    right = marks_of(_answered(others, texts))
    moved = marks_of(_answered(others, texts[1:] + texts[:1]))
    if all(one == other for one, other in zip(right, moved, strict=True)):
        return [f"all {len(others)} other answers score the same when shuffled"]
    return []


def _answered(items: Sequence[Item], texts: Sequence[str]) -> list[Answered]:
    return [
        Answered(
            item=item,
            question=item.question,
            prompt=item.prompt,
            condition="image",
            written=text,
            value=extract(item.question, text, item.prompt).value,
        )
        for item, text in zip(items, texts, strict=True)
    ]


def selftest(tasks: Sequence[Task], out: Path, *, root: Path | None = None, show_progress: bool = True) -> list[Check]:
    """Every check of every task.

    Args:
        out: an empty folder for the runs.
        root: holds the data of the tasks; a task that is not there, or all without ``root``, is asked as its example.
    """
    checks = [Check(task="reading", name=f"{len(CASES)} known cases", faults=tuple(misread()))]
    for task in track(tasks, "tasks", disable=not show_progress, console=Console(stderr=True)):
        folder = root
        if root is None or not (root / task.folder).is_dir():
            folder = out / "examples" / task.name
            folder.mkdir(parents=True)
            task.example(folder)
        assert folder is not None
        checks += check_task(load(task, folder, partial=True), out / task.name)
    return checks


def show(checks: Sequence[Check], console: Console) -> None:
    """A row per task, and every fault in words."""
    names = ("oracle", "constant", "empty", "shuffled")
    table = Table("task", *names, "other")
    for task in dict.fromkeys(check.task for check in checks):
        cells = {check.name: "wrong" if check.faults else "ok" for check in checks if check.task == task}
        others = [f"{name}: {state}" for name, state in cells.items() if name not in names]
        table.add_row(task, *(cells.get(name, "") for name in names), "; ".join(others))
    console.print(table)
    for check in checks:
        for fault in check.faults:
            console.print(f"{check.task} {check.name}: {fault}", highlight=False, markup=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when a check fails, 2 when a named task does not exist."""
    parser = argparse.ArgumentParser(
        prog="medvlm eval selftest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", nargs="+", help="only these, see medvlm eval list")
    parser.add_argument("--root", type=Path, help="your copies of the tasks, instead of the made-up examples")
    args = parser.parse_args(arguments)
    console = Console()
    try:
        tasks = [task_named(name) for name in args.task] if args.task else list(TASKS.values())
        with tempfile.TemporaryDirectory() as folder:
            checks = selftest(tasks, Path(folder).resolve(), root=args.root, show_progress=console.is_terminal)
    except ValueError as error:
        console.print(f"error: {error}", highlight=False, markup=False)
        return 2
    show(checks, console)
    wrong = sum(bool(check.faults) for check in checks)
    console.print(f"{len(checks)} checks of {len(tasks)} tasks, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
