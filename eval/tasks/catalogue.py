"""Every task, by name."""

from __future__ import annotations

from medvlm.eval.task import Task
from medvlm.eval.tasks import exams, pictures, probes, reports, volumes

TASKS: dict[str, Task] = {
    task.name: task for group in (pictures, exams, volumes, reports, probes) for task in group.TASKS
}


def task_named(name: str) -> Task:
    """The task called ``name``.

    Raises:
        ValueError: there is none; names those there are.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(TASKS)}; see medvlm eval list")
    return TASKS[name]
