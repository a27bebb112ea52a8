"""Multiple-choice examinations, text tasks and closed labels."""

from __future__ import annotations

from medvlm.eval.task import Task
from medvlm.eval.tasks import (
    bc5cdr,
    chestx_ray14,
    covid_qa,
    gmai_mmbench,
    medbullets,
    medec,
    medframeqa,
    medmcqa,
    medmnist,
    medqa,
    medxpertqa,
    mmlu_med,
    mmmu_med,
    pubmedqa,
    radimagenet_vqa,
    supergpqa_med,
)

TASKS: tuple[Task, ...] = (
    *mmmu_med.TASKS,
    *medxpertqa.TASKS,
    *gmai_mmbench.TASKS,
    *radimagenet_vqa.TASKS,
    *medframeqa.TASKS,
    *chestx_ray14.TASKS,
    *medmnist.TASKS,
    *medqa.TASKS,
    *medmcqa.TASKS,
    *pubmedqa.TASKS,
    *mmlu_med.TASKS,
    *medbullets.TASKS,
    *supergpqa_med.TASKS,
    *bc5cdr.TASKS,
    *covid_qa.TASKS,
    *medec.TASKS,
)
