"""Questions about volumes, and their reports."""

from __future__ import annotations

from medvlm.eval.task import Task
from medvlm.eval.tasks import ct_rate, m3d_cap, m3d_positioning, m3d_vqa, three_d_rad

TASKS: tuple[Task, ...] = (
    *m3d_vqa.TASKS,
    m3d_cap.TASK,
    m3d_positioning.TASK,
    *three_d_rad.TASKS,
    *ct_rate.TASKS,
)
