"""The tasks that can be asked, and what a person must know of each: `medvlm eval list`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from medvlm.eval.task import Task, example_rows, fingerprint, load
from medvlm.eval.tasks.catalogue import TASKS, task_named


def show_all(tasks: Sequence[Task], root: Path, console: Console) -> None:
    """A row per task: how many questions, of which access, and whether its files are below ``root``."""
    table = Table("task", "questions", "access", "files", "about", title=f"{len(tasks)} tasks; files below {root}")
    for task in tasks:
        table.add_row(task.label, f"{task.n:,}", task.access, _state(task, root), task.title)
    console.print(table)
    console.print("medvlm eval list TASK says more; medvlm eval run --task TASK ... asks it")


def _state(task: Task, root: Path) -> str:
    if not (root / task.folder).is_dir():
        return "–"
    try:
        found = load(task, root, partial=True)
    except ValueError:
        return f"{task.folder}: not in the published layout"
    return f"{task.folder}: {len(found.items):,}" + (" (not the published split)" if found.differs else "")


def show_one(task: Task, console: Console) -> None:
    """All that the task says of itself, with its first question."""
    console.print(f"[bold]{task.label}[/bold]  {task.title}", highlight=False)
    console.print(task.about, highlight=False)
    rows = [
        ("questions", f"{task.n:,} ({task.n_source})"),
        ("fingerprint", fingerprint(task)),
        ("ids", _ids(task) or "not known: no complete copy of the split was seen"),
        ("files", f"ROOT/{task.folder}/, from {task.url}" + (f" or hub dataset {task.hub}" if task.hub else "")),
        ("access", f"{task.access}; licence {task.licence}"),
        ("intervals", f"over {'patients' if task.cluster == 'patient' else 'studies'}"),
        ("cite", task.citation),
    ]
    for name, value in rows:
        console.print(f"  {name:12}{value}", highlight=False, markup=False)
    for fault in task.faults:
        console.print(f"  known       {fault}", highlight=False, markup=False)
    for figure in task.published:
        said = f"{figure.model}: {figure.metric} {figure.value:g} ({figure.source}; {figure.how})"
        console.print(f"  published   {said}", highlight=False, markup=False)
    first = example_rows(task)[0]["messages"]
    console.print("a question of its made-up example:", highlight=False)
    for message in first:
        for part in message["content"]:
            text = part["text"] if part["type"] == "text" else f"<{part['type']} {part['path']}>"
            console.print(f"  {message['role']}: {text}", highlight=False, markup=False)


def _ids(task: Task) -> str:
    return task.ids_sha256 if isinstance(task.ids_sha256, str) else ", ".join(task.ids_sha256 or ())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 when a named task does not exist."""
    parser = argparse.ArgumentParser(prog="medvlm eval list", description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="*", help="say all about these")
    parser.add_argument("--root", type=Path, default=Path("benchmarks"), help="where the files of the tasks are")
    args = parser.parse_args(arguments)
    console = Console()
    if not args.task:
        show_all(list(TASKS.values()), args.root, console)
        return 0
    try:
        for name in args.task:
            show_one(task_named(name), console)
    except ValueError as error:
        console.print(f"error: {error}", highlight=False, markup=False)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
