"""Who has what: the findings, the body and the split of one virtual patient, as a pure function of the seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medvlm.data_recipes.phantoms.anatomy import Body, Spot, draw_body, place
from medvlm.data_recipes.sample import Split

FOCAL = ("nodule", "mass", "consolidation")
CHEST_KINDS = ("nodule", "mass", "consolidation", "pleural effusion", "pneumothorax", "cardiomegaly")
"""Findings of the chest in the fixed order of every report."""

CINE_KINDS = ("reduced motion", "pericardial effusion")
"""Findings of the ultrasound clip in the fixed order of every report."""

ZONES = ("upper", "middle", "lower")
PLEURAL_GRADES = ("small", "moderate", "large")
HEART_GRADES = ("mild", "moderate", "severe")
CHANGES = ("larger", "smaller", "unchanged", "new")
SIZES_MM = {"nodule": (20, 32), "mass": (50, 75)}

FINDING_COUNT_ODDS = (0.15, 0.45, 0.40)
"""Odds of 0, 1 and 2 chest findings."""

PRIOR_ODDS = 0.25
"""Share of all patients with a prior radiograph; only patients with a finding have one."""

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")

STREAMS = ("patient", "radiograph", "prior", "ct", "cine", "language")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to see; a field that means nothing for the kind is None.

    Attributes:
        kind: one of CHEST_KINDS or CINE_KINDS.
        side: of the patient, not of the viewer.
        size_mm: diameter of the nodule (of each of several) or mass.
        count: number of nodules.
        zone: third of the lung height, for focal kinds.
        severity: PLEURAL_GRADES for effusion and pneumothorax, HEART_GRADES for cardiomegaly and reduced motion.
        change: since the prior radiograph; only the first finding of a patient with a prior.
    """

    kind: str
    side: Side | None = None
    size_mm: int | None = None
    count: int | None = None
    zone: str | None = None
    severity: str | None = None
    change: str | None = None


PREFERENCE_EVERY = 7
"""Of the training patients every seventh; coprime to 2, 4 and 5, by which files and clips are given out."""


@dataclass(frozen=True, kw_only=True)
class VirtualPatient:
    """A patient before any picture is drawn.

    Attributes:
        findings: 0 to 2 chest findings of different kinds; ``spots`` says where each lies, in the same order.
        cine_findings: of the heart; None when it was not looked at.
    """

    patient_id: str
    index: int
    split: Split
    body: Body
    findings: tuple[Finding, ...]
    spots: tuple[Spot, ...]
    cine_findings: tuple[Finding, ...] | None

    @property
    def for_preference(self) -> bool:
        """Whether the patient is kept from the supervised stages and shown to the preference stage only.

        A model that has learnt a patient's report by heart prefers it to any wrong one: such pairs teach nothing. On
        patients that it has not seen it makes the mistakes that the preference stage is there to mend.
        """
        return self.split == "train" and self.index % PREFERENCE_EVERY == PREFERENCE_EVERY // 2

    @property
    def has_prior(self) -> bool:
        """Whether there is an earlier radiograph; the pairs show none."""
        return not self.for_preference and any(finding.change is not None for finding in self.findings)

    @property
    def has_clip(self) -> bool:
        """Whether there is an ultrasound clip; the pairs show none."""
        return not self.for_preference and self.cine_findings is not None


def streams(seed: int, index: int) -> dict[str, np.random.Generator]:
    """Independent generators of patient ``index``, one per entry of STREAMS.

    Each purpose has its own stream so that, say, one more question never changes a picture.
    """
    children = np.random.SeedSequence([seed, index]).spawn(len(STREAMS))
    return {name: np.random.default_rng(child) for name, child in zip(STREAMS, children, strict=True)}


def split_patients(patients: int, seed: int, fractions: tuple[float, float, float]) -> tuple[Split, ...]:
    """Split of each patient index by a seeded permutation, before anything else is drawn.

    Args:
        fractions: of train, validation and test; they sum to 1.

    Raises:
        ValueError: fractions that are negative or do not sum to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(
            f"fractions must be three non-negative numbers that sum to 1 (train, validation, test), got {fractions}; "
            "use for example (0.8, 0.05, 0.15)"
        )
    # The leading words keep this generator apart from every patient's [seed, index].
    order = np.random.default_rng(np.random.SeedSequence([seed, patients, 0x5B117])).permutation(patients)
    validation, test = round(fractions[1] * patients), round(fractions[2] * patients)
    splits: list[Split] = ["train"] * patients
    for index in order[:validation]:
        splits[index] = "validation"
    for index in order[validation : validation + test]:
        splits[index] = "test"
    return tuple(splits)


def draw_finding(kind: str, rng: np.random.Generator) -> Finding:
    """A chest finding of ``kind`` with every attribute uniform over its range."""
    if kind == "cardiomegaly":
        return Finding(kind=kind, severity=str(rng.choice(HEART_GRADES)))
    side = SIDES[int(rng.integers(2))]
    if kind not in FOCAL:
        return Finding(kind=kind, side=side, severity=str(rng.choice(PLEURAL_GRADES)))
    zone = str(rng.choice(ZONES))
    if kind == "consolidation":
        return Finding(kind=kind, side=side, zone=zone)
    low, high = SIZES_MM[kind]
    count = int(rng.integers(1, 4)) if kind == "nodule" else None
    # Several nodules of one zone stay apart only when they are small.
    size = int(rng.integers(low, 25 if count is not None and count > 1 else high + 1))
    return Finding(kind=kind, side=side, zone=zone, size_mm=size, count=count)


def compatible(first: Finding, second: Finding) -> bool:
    """Whether both findings can be seen together.

    The rule is the same for left and right, so that rejecting a pair does not unbalance the sides.
    """
    pair = {first.kind: first, second.kind: second}
    if heart := pair.get("cardiomegaly"):
        other = second if first is heart else first
        # A large heart covers the lower zones and, when severe, a small effusion.
        return other.zone != "lower" and not (heart.severity == "severe" and other.severity == "small")
    if first.side != second.side:
        return True
    if "pneumothorax" in pair:
        return False
    if effusion := pair.get("pleural effusion"):
        zone = (second if first is effusion else first).zone
        return (effusion.severity, zone) in {("small", "middle"), ("small", "upper"), ("moderate", "upper")}
    return first.zone != second.zone


def _draw_findings(rng: np.random.Generator) -> tuple[Finding, ...]:
    number = int(rng.choice(len(FINDING_COUNT_ODDS), p=FINDING_COUNT_ODDS))
    kinds = [CHEST_KINDS[i] for i in rng.permutation(len(CHEST_KINDS))[:number]]
    while True:
        findings = tuple(draw_finding(kind, rng) for kind in kinds)
        if number < 2 or compatible(*findings):
            return findings


def _draw_cine(rng: np.random.Generator) -> tuple[Finding, ...]:
    reduced, effusion = rng.random(2) < 0.5
    found = [Finding(kind="reduced motion", severity=str(rng.choice(HEART_GRADES)))] if reduced else []
    return (*found, *([Finding(kind="pericardial effusion")] if effusion else []))


def draw_patient(index: int, *, split: Split, rng: np.random.Generator) -> VirtualPatient:
    """Draw patient ``index`` from its "patient" stream; every second patient also has an ultrasound clip."""
    findings = _draw_findings(rng)
    body = draw_body(rng)
    if findings and rng.random() < PRIOR_ODDS / (1 - FINDING_COUNT_ODDS[0]):
        findings = (replace(findings[0], change=str(rng.choice(CHANGES))), *findings[1:])
    spots = tuple(place(body, f.kind, f.side, f.zone, f.severity, f.size_mm, f.count or 1, rng) for f in findings)
    return VirtualPatient(
        patient_id=f"phantom-{index:06d}",
        index=index,
        split=split,
        body=body,
        findings=findings,
        spots=spots,
        cine_findings=_draw_cine(rng) if index % 2 == 0 else None,
    )
