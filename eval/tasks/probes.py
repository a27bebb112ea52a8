"""Invented findings, false premises and change over time.

What a report invents is counted on the report tasks themselves (eval.tasks.reports), by the scorers of reports.
"""

from __future__ import annotations

from medvlm.eval.task import Task
from medvlm.eval.tasks import false_premise, finding_probes, longitudinal

TASKS: tuple[Task, ...] = (
    finding_probes.IU_XRAY,
    finding_probes.MIMIC_CXR,
    false_premise.IU_XRAY,
    false_premise.MIMIC_CXR,
    longitudinal.MS_CXR_T,
    longitudinal.PHANTOMS,
)
