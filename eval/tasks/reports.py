"""Reports of chest radiographs."""

from __future__ import annotations

from medvlm.eval.task import Task

TASKS: tuple[Task, ...] = ()
