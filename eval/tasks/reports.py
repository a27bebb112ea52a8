"""Reports of chest radiographs."""

from __future__ import annotations

from medvlm.eval.task import Task
from medvlm.eval.tasks import chexpert_plus, iu_xray, mimic_cxr

TASKS: tuple[Task, ...] = (iu_xray.TASK, mimic_cxr.TASK, chexpert_plus.TASK)
