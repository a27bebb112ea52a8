"""Every task, by name."""

from __future__ import annotations

from difflib import get_close_matches

from medvlm.eval.task import Task
from medvlm.eval.tasks import exams, pictures, probes, reports, volumes

TASKS: dict[str, Task] = {
    task.name: task for group in (pictures, exams, volumes, reports, probes) for task in group.TASKS
}


def task_named(name: str) -> Task:
    """The task called ``name``.

    Raises:
        ValueError: there is none; names those that are written alike.
    """
    if name not in TASKS:
        near = get_close_matches(name.lower(), TASKS, n=4)
        hint = f"is it {' or '.join(near)}? " if near else ""
        raise ValueError(f"no task {name!r}; {hint}medvlm eval list names the {len(TASKS)} there are")
    return TASKS[name]
