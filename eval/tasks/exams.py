"""Multiple-choice examinations, text tasks and closed labels."""

from __future__ import annotations

from medvlm.eval.task import Task

TASKS: tuple[Task, ...] = ()
