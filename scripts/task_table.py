"""What docs/tasks.md says of the tasks: ``python -m medvlm.scripts.task_table --write docs/tasks.md``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medvlm.eval.task import Task
from medvlm.eval.tasks.catalogue import TASKS
from medvlm.scripts.marked_page import write_block

BEGIN, END = "<!-- tasks:begin -->", "<!-- tasks:end -->"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


def task_table() -> str:
    """A row of Markdown for each task, and below what is known of each."""
    rows = ["| task | questions | access | ids held | hub dataset | about |", "|---|---|---|---|---|---|"]
    for task in TASKS.values():
        held = "yes" if task.ids_sha256 else "no"
        hub = f"`{task.hub}`" if task.hub else "–"
        rows.append(f"| `{task.label}` | {task.n:,} | {task.access} | {held} | {hub} | {_cell(task.title)} |")
    return "\n".join([*rows, "", *(line for task in TASKS.values() for line in _notes(task))]).rstrip()


def _notes(task: Task) -> list[str]:
    lines = [f"### {task.name}", "", f"{_cell(task.about)} {task.n:,} questions: {_cell(task.n_source)}."]
    lines[-1] += f" Licence: {_cell(task.licence)}. <{task.url}>. {_cell(task.citation)}."
    lines.append("")
    lines += [f"- {_cell(fault)}" for fault in task.faults]
    lines += [
        f"- Published: {_cell(one.model)}, `{one.metric}` {one.value:g} ({_cell(one.source)}; {_cell(one.how)})."
        for one in task.published
    ]
    return [line.replace("..", ".") if not line.startswith("#") else line for line in lines] + [""]


def main(arguments: list[str] | None = None) -> int:
    """The command; prints the block, or writes it between the markers of a page."""
    parser = argparse.ArgumentParser(prog="python -m medvlm.scripts.task_table", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the block in this page; else print it")
    options = parser.parse_args(arguments)
    if options.write is None:
        print(task_table())
        return 0
    try:
        write_block(options.write, BEGIN, END, task_table())
    except (OSError, ValueError) as error:
        print(f"task_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
