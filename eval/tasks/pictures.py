"""Questions about pictures."""

from __future__ import annotations

from medvlm.eval.task import Task
from medvlm.eval.tasks import kvasir_vqa, omnimedvqa, path_vqa, pmc_vqa, slake, vqa_med, vqa_rad

TASKS: tuple[Task, ...] = (
    vqa_rad.TASK,
    *slake.TASKS,
    path_vqa.TASK,
    *pmc_vqa.TASKS,
    omnimedvqa.TASK,
    *vqa_med.TASKS,
    kvasir_vqa.TASK,
)
