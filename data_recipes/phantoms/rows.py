"""Manifest rows of one patient: what each training stage and each test file holds about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medvlm.data_recipes.grounding import extent_mm
from medvlm.data_recipes.phantoms import ct, radiograph
from medvlm.data_recipes.phantoms.boxes import Boxes, ct_boxes, radiograph_boxes
from medvlm.data_recipes.phantoms.labels import labels, progression
from medvlm.data_recipes.phantoms.language import (
    CAPTION_REQUEST,
    REPORT_REQUEST,
    Ask,
    ask_box,
    ask_change,
    ask_region,
    ask_report,
    corrupt,
    impression,
    possible_corruptions,
    questions,
    report,
)
from medvlm.data_recipes.phantoms.patient import CHEST_KINDS, CINE_KINDS, VirtualPatient
from medvlm.data_recipes.sample import Part, Preference, Sample, Turn, VisualRef

Dimension = Literal["2d", "3d", "video", "text"]
Row = tuple[str, Sample]
"""(manifest name, sample)."""

MANIFESTS = (
    "train_captions_2d",
    "train_captions_3d",
    "train_2d",
    "train_3d",
    "train_video",
    "train_text",
    "train_sft",
    "train_pairs",
    "validation_questions",
    "test_questions",
    "test_reports",
    "test_pairs",
    "train_grounding",
    "test_grounding",
)
MODALITIES: dict[Dimension, str] = {"2d": "DX", "3d": "CT", "video": "US", "text": "text"}


@dataclass(frozen=True, kw_only=True)
class Visuals:
    """Where the pictures of one patient lie; None where the patient has none."""

    radiograph: VisualRef
    ct: VisualRef
    prior: VisualRef | None = None
    cine: VisualRef | None = None


def _turns(*pairs: tuple[tuple[Part, ...], str | None]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for content, answer in pairs:
        turns.append(Turn(role="user", content=content))
        if answer is not None:
            turns.append(Turn(role="assistant", content=(answer,)))
    return tuple(turns)


def _shuffled(asks: list[Ask], rng: np.random.Generator) -> list[Ask]:
    return [asks[i] for i in rng.permutation(len(asks))]


class _Writer:
    """Makes samples of one patient and one dimension: fills in what is the same in all of them."""

    def __init__(self, patient: VirtualPatient, dimension: Dimension) -> None:
        self.patient, self.dimension = patient, dimension

    def sample(self, name: str, turns: tuple[Turn, ...], **others: Any) -> Sample:
        more = others.pop("metadata", {})
        return Sample(
            sample_id=f"{self.patient.patient_id}-{self.dimension}-{name}",
            patient_id=self.patient.patient_id,
            study_id=f"{self.patient.patient_id}-{self.dimension}",
            source="phantoms",
            licence="Apache-2.0",
            split=self.patient.split,
            turns=turns,
            metadata={"modality": MODALITIES[self.dimension], "dimension": self.dimension, **self._known(), **more},
            **others,
        )

    def _known(self) -> dict[str, Any]:
        if self.dimension == "video":
            return labels(self.patient.cine_findings or (), CINE_KINDS)
        return labels(self.patient.findings, CHEST_KINDS)

    def single(self, name: str, ask: Ask, *visuals: VisualRef, **others: Any) -> Sample:
        """One question and its answer."""
        return self.sample(name, _turns(((*visuals, ask.prompt), ask.answer)), **others)

    def evaluation(self, name: str, ask: Ask, *visuals: VisualRef) -> Sample:
        """One question whose answer stands in ``question``."""
        return self.sample(name, _turns(((*visuals, ask.prompt), None)), question=ask.question)

    def conversation(self, name: str, asks: list[Ask], visual: VisualRef) -> Sample:
        """All ``asks`` in a row; the visual stands in the first user turn."""
        first, *rest = asks
        return self.sample(
            name, _turns(((visual, first.prompt), first.answer), *(((a.prompt,), a.answer) for a in rest))
        )

    def pairs(self, visual: VisualRef, rng: np.random.Generator) -> list[Sample]:
        """One or two preferences: the true report against one that is wrong in a single way."""
        findings = self.patient.findings
        ways = possible_corruptions(findings)
        number = min(int(rng.integers(1, 3)), len(ways))
        samples = []
        for how in (ways[i] for i in rng.permutation(len(ways))[:number]):
            wrong = report(corrupt(findings, how, rng))
            preference = Preference(
                chosen=(Turn(role="assistant", content=(report(findings),)),),
                rejected=(Turn(role="assistant", content=(wrong,)),),
                made_by=how,
            )
            turns = _turns(((visual, REPORT_REQUEST), None))
            samples.append(self.sample(f"pair-{how}", turns, preference=preference))
        return samples


def rows_of(patient: VirtualPatient, visuals: Visuals, rng: np.random.Generator) -> list[Row]:
    """Every manifest row of ``patient``; a patient only appears in the files of its split and of its purpose."""
    views: list[tuple[Dimension, VisualRef]] = [("2d", visuals.radiograph), ("3d", visuals.ct)]
    if visuals.cine is not None:
        views.append(("video", visuals.cine))
    rows: list[Row] = []
    for dimension, visual in views:
        kinds = CINE_KINDS if dimension == "video" else CHEST_KINDS
        findings = (patient.cine_findings or ()) if dimension == "video" else patient.findings
        asks = questions(findings, rng, kinds)
        whole = ask_report(findings, kinds)
        writer = _Writer(patient, dimension)
        if patient.for_preference:
            rows += [("train_pairs", pair) for pair in writer.pairs(visual, rng)]
        elif patient.split == "train":
            rows += _training_rows(writer, asks, whole, visual, rng)
        else:
            rows += _evaluation_rows(writer, asks, whole, visual, rng)
    if visuals.prior is not None:
        ask, writer = ask_change(patient.findings[0]), _Writer(patient, "2d")
        both = (visuals.prior, visuals.radiograph)
        if patient.split == "train":
            changed = {"progression": progression(patient.findings[0])}
            rows += [("train_2d", writer.single("change", ask, *both, metadata=changed))]
        else:
            rows += [(f"{patient.split}_questions", writer.evaluation("q-change", ask, *both))]
    if patient.split == "train" and not patient.for_preference and patient.index % 4 == 1:
        rows.append(("train_text", _text_row(patient, rng)))
    return rows


def _training_rows(
    writer: _Writer, asks: list[Ask], whole: Ask, visual: VisualRef, rng: np.random.Generator
) -> list[Row]:
    dimension = writer.dimension
    rows: list[Row] = [
        (f"train_{dimension}", writer.conversation("chat", _shuffled([*asks, whole], rng), visual)),
    ]
    if dimension != "video":
        caption = _turns(((visual, CAPTION_REQUEST), impression(writer.patient.findings)))
        one = asks[int(rng.integers(len(asks)))]
        rows += [
            (f"train_captions_{dimension}", writer.sample("caption", caption)),
            ("train_sft", writer.single("sft-report", whole, visual)),
            ("train_sft", writer.single("sft-question", one, visual)),
        ]
    return rows


def _evaluation_rows(
    writer: _Writer, asks: list[Ask], whole: Ask, visual: VisualRef, rng: np.random.Generator
) -> list[Row]:
    split = writer.patient.split
    rows: list[Row] = [
        (f"{split}_questions", writer.evaluation(f"q{number}-{ask.question.topic}", ask, visual))
        for number, ask in enumerate(asks)
    ]
    if split == "test":
        rows.append(("test_reports", writer.evaluation("report", whole, visual)))
        if writer.dimension != "video":
            rows += [("test_pairs", pair) for pair in writer.pairs(visual, rng)]
    return rows


def grounding_rows(
    patient: VirtualPatient, visuals: Visuals, radiograph_mm: float, ct_mm: tuple[float, float, float]
) -> list[Row]:
    """Where each finding is, and what is at its place; none for validation and for the preference stage.

    Nothing is drawn at random, so that these rows change nothing else.

    Args:
        radiograph_mm: pixel spacing of the radiograph.
        ct_mm: (slice, row, column) spacing of the CT volume.
    """
    if patient.for_preference or patient.split == "validation":
        return []
    flat = extent_mm((radiograph.SIZE,) * 2, (radiograph_mm,) * 2)
    views: tuple[tuple[Dimension, VisualRef, Boxes, tuple[float, ...]], ...] = (
        ("2d", visuals.radiograph, radiograph_boxes(patient, radiograph_mm), flat),
        ("3d", visuals.ct, ct_boxes(patient, ct_mm), extent_mm(ct.SHAPE, ct_mm)),
    )
    rows: list[Row] = []
    for dimension, visual, boxes, extent in views:
        writer = _Writer(patient, dimension)
        for number, (finding, places) in enumerate(zip(patient.findings, boxes, strict=True)):
            if not places:
                continue
            asks = [ask_box(finding, places, extent, patient.index + number, mm=False), ask_region(finding, places[0])]
            if dimension == "3d":
                asks.insert(1, ask_box(finding, places, extent, patient.index + number, mm=True))
            write = writer.single if patient.split == "train" else writer.evaluation
            for ask in asks:
                name = f"{ask.question.topic}-{finding.kind.replace(' ', '-')}"
                rows.append((f"{patient.split}_grounding", write(name, ask, visual)))
    return rows


def _text_row(patient: VirtualPatient, rng: np.random.Generator) -> Sample:
    """A question about a report that is given as text."""
    asks = questions(patient.findings, rng)
    ask = asks[int(rng.integers(len(asks)))]
    prompt = f"{report(patient.findings)}\n{ask.prompt}"
    return _Writer(patient, "text").sample("report", _turns(((prompt,), ask.answer)))
