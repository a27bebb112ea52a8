"""Invented findings, false premises and change over time."""

from __future__ import annotations

from medvlm.eval.task import Task

TASKS: tuple[Task, ...] = ()
