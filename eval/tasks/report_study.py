"""One study of a report benchmark, whichever layout it was read from, and the questions about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.studies import UNNAMED, leaked
from medvlm.data_recipes.sample import Part, QuestionKind, Sample, Turn, VisualRef

REQUEST = 'Write the report of this chest X-ray study. Write it as "Findings: ..." and "Impression: ...".'

_FILLER = re.compile(
    r"[\W_]*(?:none|nan|null|n/?a|unknown|not (?:available|applicable|provided)|x{2,})?[\W_]*", re.IGNORECASE
)
_LABEL = re.compile(r"^\s*(?:findings|impression|indication|comparison)\s*:", re.IGNORECASE)
_NUMBERED = re.compile(r"^\s*(?:\d+[.)]|[-*])\s")
_WRITTEN = re.compile(r"(?:Findings: (?P<findings>.*?))?(?:(?:^|\n)Impression: (?P<impression>.*))?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What all studies of a benchmark share.

    Attributes:
        source: ``Sample.source``.
        modality: as DICOM writes it.
        mend: where a missing picture is to be had.
    """

    source: str
    licence: str
    modality: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study with its reference report.

    Attributes:
        study_id: as published.
        sample_id: that of its report question; the published id unless the study was read from another layout.
        pictures: (name of the view, file) in the published order; the name is UNNAMED where it is not known.
        findings, impression: None where the reference has no such section (see :func:`section`).
        indication, comparison, age: as written, None where nothing is said.
        sex: "male" or "female".
        age_band: "50-60": of ten years, the lower end included.
        published: what of the published record a predictions file repeats, see eval.rexrank.
    """

    study_id: str
    sample_id: str
    patient_id: str
    origin: Origin
    where: str
    pictures: tuple[tuple[str, Path], ...]
    findings: str | None
    impression: str | None
    indication: str | None = None
    comparison: str | None = None
    sex: str | None = None
    age: str | None = None
    age_band: str | None = None
    published: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections that the reference has."""
        named = (("findings", self.findings), ("impression", self.impression))
        return tuple(name for name, text in named if text is not None)

    @property
    def report(self) -> str:
        """The reference as one text, as :func:`written` makes it."""
        return written(self.findings, self.impression)


def section(text: object) -> str | None:
    """A section, stripped and with hard-wrapped lines joined; None where it is absent or only a filler.

    Absent is null and NaN; fillers are "None.", "nan", "N/A", "/", "XXXX" and the like, with or without the section's
    own label. Paragraphs and numbered lines keep their line breaks, because a broken line cuts a sentence for those who
    read line by line ("no evidence", "of edema").
    """
    if text is None or (isinstance(text, float) and text != text):
        return None
    plain = _LABEL.sub("", str(text)).strip()
    return None if _FILLER.fullmatch(plain) else unwrapped(plain)


def unwrapped(text: str) -> str:
    """``text`` with lines joined that continue a sentence."""
    lines: list[str] = []
    fresh = True
    for line in text.splitlines():
        words = " ".join(line.split())
        if not words:
            fresh = True
            continue
        if fresh or _NUMBERED.match(line) or not lines:
            lines.append(words)
        else:
            lines[-1] += f" {words}"
        fresh = False
    return "\n".join(lines)


def written(findings: str | None, impression: str | None) -> str:
    """ "Findings: ...", a new line, "Impression: ..."; a section that is not there is not written, never "None"."""
    parts = (("Findings", findings), ("Impression", impression))
    return "\n".join(f"{name}: {text}" for name, text in parts if text is not None)


def sections_of(text: str) -> tuple[str | None, str | None]:
    """(findings, impression) of a text that :func:`written` made.

    Raises:
        ValueError: it is no such text.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None or not text:
        raise ValueError('the reference is not of the form "Findings: ..." and "Impression: ..."')
    return match["findings"], match["impression"]


def report_questions(studies: Iterable[Study | BadSample]) -> Iterator[Sample | BadSample]:
    """The request for the report of each study; what cannot be asked comes out in its place."""
    for study in studies:
        try:
            yield study if isinstance(study, BadSample) else report_question(study)
        except BadSample as bad:
            yield bad


def report_question(study: Study) -> Sample:
    """The request for the report, with what was known before the pictures were read.

    The topic is "report" where the reference has both sections, else the name of the one it has: tables by topic keep
    references of one section apart, because all that a model writes in the other section counts as invented.

    Raises:
        BadSample: a picture is missing, or the reference says nothing.
    """
    if not study.sections:
        raise BadSample(
            "the reference has neither findings nor an impression",
            where=study.where,
            mend="leave the study out",
            sample_id=study.sample_id,
        )
    known = (
        ("Age", study.age), ("Sex", study.sex), ("Indication", study.indication), ("Comparison", study.comparison),
    )  # fmt: skip
    context = "\n".join(f"{name}: {text}" for name, text in known if text is not None)
    prompt = f"{context}\n{REQUEST}" if context else REQUEST
    return question_about(
        study,
        sample_id=study.sample_id,
        prompt=prompt,
        answers=[study.report],
        kind="report",
        topic="report" if len(study.sections) == 2 else study.sections[0],
        view_names=True,
        metadata={
            "sections": list(study.sections),
            "context_repeats_report": leaked(study.report, context) is not None,
            "published": dict(study.published),
        },
    )


def question_about(
    study: Study,
    *,
    sample_id: str,
    prompt: str,
    answers: Sequence[str],
    kind: QuestionKind,
    topic: str,
    choices: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    view_names: bool = False,
    shown: Path | None = None,
) -> Sample:
    """A question about the pictures of ``study``, in the published order.

    Args:
        view_names: write the name of its view before each.
        shown: the one picture to be shown in the place of each of them.

    Raises:
        BadSample: no picture, or one that is missing.
    """
    if not study.pictures:
        raise BadSample("the study has no picture", where=study.where, mend="leave it out", sample_id=sample_id)
    visuals = [_visual(study, shown or path) for _, path in study.pictures]
    sample = ask(
        sample_id=sample_id,
        patient_id=study.patient_id,
        study_id=study.study_id,
        source=study.origin.source,
        licence=study.origin.licence,
        split="test",
        visuals=visuals,
        prompt=prompt,
        answers=answers,
        where=study.where,
        kind=kind,
        choices=choices,
        topic=topic,
        metadata={
            "modality": study.origin.modality,
            "view": view_of([name for name, _ in study.pictures]),
            **({"sex": study.sex} if study.sex else {}),
            **({"age_band": study.age_band} if study.age_band else {}),
            **(metadata or {}),
        },
    )
    if not view_names:
        return sample
    content = (*named([name for name, _ in study.pictures], visuals), sample.turns[-1].text)
    return replace(sample, turns=(Turn(role="user", content=content),))


def _visual(study: Study, path: Path) -> VisualRef:
    options = {} if path.suffix.lower() == ".dcm" else {"modality": study.origin.modality}
    return visual_at(path, kind="image", where=study.where, mend=study.origin.mend, **options)


def named(names: Sequence[str], visuals: Sequence[VisualRef]) -> tuple[Part, ...]:
    """ "Frontal:", its picture, "Lateral:", its picture, in the order given; equal names are numbered."""
    total, seen = Counter(names), Counter[str]()
    parts: list[Part] = []
    for name, visual in zip(names, visuals, strict=True):
        seen[name] += 1
        parts += [f"{name} {seen[name]}:" if total[name] > 1 else f"{name}:", visual]
    return tuple(parts)


def view_of(names: Sequence[str]) -> str:
    """Which views a study shows, for tables by view: "frontal and lateral", ...; "unknown" where one is not known."""
    known = sorted({name.lower() for name in names if name != UNNAMED})
    if not known or UNNAMED in names:
        return "unknown"
    return " and ".join(known)


def from_recipe(sample: Sample, *, study_id: str, origin: Origin) -> Study:
    """A study that a recipe read from the original layout of its dataset.

    Its pictures, context and sections are cut by our recipe and not by those who published the benchmark: the sample
    id says "original/", so that such a run is never taken for one of the published split.

    Raises:
        BadSample: the recipe made no report question of it.
    """
    where = f"{sample.source}, study {study_id}"
    prompt = sample.prompt()[-1].text
    known = {
        name.lower(): text
        for name, text in re.findall(r"^(Indication|History): (.+)$", prompt, flags=re.MULTILINE)
    }  # fmt: skip
    said = re.fullmatch(r"(?:Findings: (?P<f>.*?))?\s*(?:\bImpression: (?P<i>.*))?", sample.said(), flags=re.DOTALL)
    if said is None or not sample.visuals():
        raise BadSample(
            "the report has neither findings nor impression by name, or no picture",
            where=where,
            mend="leave the study out, or use the ReXrank file",
        )
    views = list(sample.metadata.get("views", ()))
    pictures = [ref.path for ref in sample.visuals()]
    # Studies with their prior show it first.
    pictures = pictures[-len(views) :] if views else pictures
    return Study(
        study_id=study_id,
        sample_id=f"original/{study_id}",
        patient_id=sample.patient_id,
        origin=origin,
        where=where,
        pictures=tuple(zip(views or [UNNAMED] * len(pictures), map(Path, pictures), strict=True)),
        findings=section(said["f"]),
        impression=section(said["i"]),
        indication=section(known.get("indication") or known.get("history")),
    )
