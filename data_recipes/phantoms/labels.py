"""What is known of a virtual patient, as auxiliary losses read it from metadata (docs/contrastive.md)."""

from __future__ import annotations

from typing import Any

from medvlm.data_recipes.phantoms.patient import FOCAL, SIDES, ZONES, Finding

ENTITY_POSITIONS = (*(f"{side} {zone} zone" for side in SIDES for zone in ZONES), *SIDES)
"""Where an entity of ``triplets`` may be: thirds of a lung, or a side of the pleura."""

PROGRESSION = {"larger": "worse", "smaller": "better", "unchanged": "same", "new": "worse"}
"""What a change since the prior means for the patient."""


def labels(findings: tuple[Finding, ...], kinds: tuple[str, ...]) -> dict[str, Any]:
    """``findings`` (every kind, true or false) and ``triplets`` (each kind, present or not, and where)."""
    present = {finding.kind: finding for finding in findings}
    triplets = []
    for kind in kinds:
        row: dict[str, Any] = {"entity": kind, "present": kind in present}
        if kind in present and present[kind].side is not None:
            row["position"] = _position(present[kind])
        triplets.append(row)
    return {"findings": {kind: kind in present for kind in kinds}, "triplets": triplets}


def progression(finding: Finding) -> dict[str, str]:
    """``progression`` of the finding that has a prior."""
    return {finding.kind: PROGRESSION[str(finding.change)]}


def _position(finding: Finding) -> str:
    return f"{finding.side} {finding.zone} zone" if finding.kind in FOCAL else str(finding.side)
