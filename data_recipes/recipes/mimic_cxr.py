"""MIMIC-CXR and MIMIC-CXR-JPG: chest radiographs with free-text reports, several images and studies per patient.

Johnson et al., MIMIC-CXR, a de-identified publicly available database of chest radiographs with free-text reports,
Scientific Data 6:317 (2019); Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042 (2019). The tables of MIMIC-CXR-JPG say
view, date and split; images are its .jpg or the .dcm of MIMIC-CXR; the reports are those of mimic-cxr-reports.zip.
Dates are shifted by one offset per patient, so that differences of days are true. One sample is one study: all its
views, and the images of the patient's study before it where dates and times tell which that is.

The metadata table (377,110 images) is held in memory as short tuples, because studies of a patient are needed together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medvlm.data_recipes.asking import visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.reports.cleaning import Policy
from medvlm.data_recipes.reports.large_tables import stream_csv
from medvlm.data_recipes.reports.priors import Link, Moment, StudyTime, link_priors, read_moment
from medvlm.data_recipes.reports.sections import sections
from medvlm.data_recipes.reports.studies import UNNAMED, PriorStudy, View, ask_study, view_name
from medvlm.data_recipes.reports.written import answer_of, context_of
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, read_text

METADATA, SPLIT = "mimic-cxr-2.*-metadata.csv*", "mimic-cxr-2.*-split.csv*"
COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
SPLITS: dict[str, Split] = {"train": "train", "validate": "validation", "test": "test"}
REPORTS = (Path("files"), Path("mimic-cxr-reports") / "files")


@dataclass(kw_only=True, slots=True)
class _Study:
    subject: str
    study: str
    where: str
    split: Split | None = None
    images: list[tuple[str, str]] = field(default_factory=list)
    """(dicom_id, name of the view)."""
    moments: set[Moment | None] = field(default_factory=set)

    @property
    def moment(self) -> Moment | None:
        """The earliest of its images; None when one has no date or they are of several days."""
        known = [moment for moment in self.moments if moment is not None]
        if len(known) != len(self.moments) or len({moment.day for moment in known}) != 1:
            return None
        clocks = [moment.clock for moment in known]
        return Moment(day=known[0].day, clock=None if None in clocks else min(c for c in clocks if c is not None))

    def place(self, root: Path) -> Path:
        return root / f"p{self.subject[:2]}" / f"p{self.subject}" / f"s{self.study}"


def _table(folder: Path, pattern: str) -> Path | None:
    found = [path for path in sorted(folder.glob(pattern)) if path.name.endswith((".csv", ".csv.gz"))]
    return found[0] if found else None


def _add(row: Row, patients: dict[str, dict[str, _Study]]) -> None:
    subject, study = row.text("subject_id"), row.text("study_id")
    moment = read_moment(row.written("StudyDate"), row.written("StudyTime"), where=row.where)
    name = view_name(row.optional("ViewPosition"), row.optional("ViewCodeSequence_CodeMeaning")) or UNNAMED
    dicom = row.text("dicom_id")
    found = patients.setdefault(subject, {}).setdefault(study, _Study(subject=subject, study=study, where=row.where))
    found.images.append((dicom, name))
    found.moments.add(moment)


def _studies(folder: Path, metadata: Path) -> Iterator[dict[str, dict[str, _Study]] | BadSample]:
    """Rows that cannot be used, then all studies by patient."""
    patients: dict[str, dict[str, _Study]] = {}
    for row in stream_csv(metadata, required=COLUMNS):
        try:
            if isinstance(row, BadSample):
                raise row
            _add(row, patients)
        except BadSample as bad:
            yield bad
    table = _table(folder, SPLIT)
    if table is None:
        yield BadSample(
            "the table of splits is not there, so test studies cannot be told from training studies",
            where=str(folder),
            mend=f"put mimic-cxr-2.0.0-split.csv.gz beside the metadata, from {RECIPE.url}",
        )
        return
    for row in stream_csv(table, required=("subject_id", "study_id", "split")):
        try:
            if isinstance(row, BadSample):
                raise row
            study = patients.get(row.text("subject_id"), {}).get(row.text("study_id"))
            split = SPLITS.get(row.text("split"))
            if split is None:
                raise BadSample(
                    f"the split is {row.text('split')!r}", where=row.where, mend=f"use one of {', '.join(SPLITS)}"
                )
            if study is not None and study.split not in (None, split):
                raise BadSample("the study stands in two splits", where=row.where, mend="use the table as published")
            if study is not None:
                study.split = split
        except BadSample as bad:
            yield bad
    yield patients


def _views(study: _Study, folder: Path) -> tuple[View, ...]:
    """Raises BadSample when an image is missing."""
    place = study.place(folder / "files")
    views = []
    for dicom, name in study.images:
        dcm = place / f"{dicom}.dcm"
        path = dcm if dcm.is_file() else place / f"{dicom}.jpg"
        mend = f"download the images of the study from {RECIPE.url}"
        options = {} if path.suffix == ".dcm" else {"modality": "DX"}
        views.append(View(name=name, visual=visual_at(path, kind="image", where=study.where, mend=mend, **options)))
    return tuple(views)


def _text(study: _Study, folder: Path) -> tuple[str, str]:
    """The report and its path.

    Raises:
        BadSample: it is not there.
    """
    paths = [study.place(folder / root).with_suffix(".txt") for root in REPORTS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise BadSample(
            f"the report {paths[0]} is missing", where=study.where, mend="unpack mimic-cxr-reports.zip beside files"
        )
    return read_text(path), str(path)


def _prior(link: Link, studies: dict[str, _Study], folder: Path, with_report: bool) -> tuple[PriorStudy | None, str]:
    """The prior to show, and what became of it."""
    if link.prior_id is None:
        return None, link.reason
    study = studies[link.prior_id]
    try:
        views = _views(study, folder)
        report = None
        if with_report:
            text, where = _text(study, folder)
            report = answer_of(sections(text), where=where, prior_shown=True).text
    except BadSample as bad:
        return None, f"the prior is not shown: {bad.reason}"
    return PriorStudy(study_id=_name(study), views=views, days=link.days, report=report), link.reason


def _name(study: _Study) -> str:
    return f"{RECIPE.name}/s{study.study}"


def _sample(
    study: _Study, studies: dict[str, _Study], link: Link, folder: Path, *,
    marks: Policy, unseen_prior: Policy, prior_report: bool,
) -> Sample:  # fmt: skip
    if study.split is None:
        raise BadSample("the study stands in no split", where=study.where, mend="use the table of splits as published")
    if {s.split for s in studies.values() if s.split is not None} != {study.split}:
        raise BadSample(
            "studies of one patient stand in several splits", where=study.where, mend="use the table as published"
        )
    text, where = _text(study, folder)
    views = _views(study, folder)
    prior, reason = _prior(link, studies, folder, prior_report)
    report = sections(text)
    written = answer_of(report, where=where, prior_shown=prior is not None, marks=marks, unseen_prior=unseen_prior)
    context = context_of(report)
    prompt = f"Write the report of {'the current' if prior else 'this'} chest X-ray study."
    return ask_study(
        sample_id=f"{_name(study)}/report",
        patient_id=f"{RECIPE.name}/p{study.subject}",
        study_id=_name(study),
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=study.split,
        views=views,
        prior=prior,
        prompt=f"{context}\n{prompt}" if context else prompt,
        answers=[written.text],
        where=where,
        metadata={"modality": "DX", "official_split": True, "prior": reason, **written.metadata},
    )


def samples(
    folder: Path,
    *,
    marks: Policy = "keep",
    unseen_prior: Policy = "keep",
    window_days: int | None = None,
    prior_report: bool = False,
) -> Iterator[Sample | BadSample]:
    """One sample per study; see reports.written.answer_of and reports.priors.link_priors for the arguments."""
    metadata = _table(folder, METADATA)
    if metadata is None:
        yield BadSample("no metadata table", where=str(folder), mend=f"download {METADATA} from {RECIPE.url}")
        return
    for found in _studies(folder, metadata):
        if isinstance(found, BadSample):
            yield found
            continue
        for studies in found.values():
            times = (
                StudyTime(study_id=s.study, patient_id=s.subject, moment=s.moment, modality="DX", body_part="chest")
                for s in studies.values()
            )
            links = link_priors(times, window_days=window_days)
            for study in studies.values():
                try:
                    yield _sample(
                        study, studies, links[study.study], folder,
                        marks=marks, unseen_prior=unseen_prior, prior_report=prior_report,
                    )  # fmt: skip
                except BadSample as bad:
                    yield bad


RECIPE = Recipe(
    name="mimic-cxr",
    version="MIMIC-CXR-JPG 2.1.0 (2024) or MIMIC-CXR 2.1.0 (2024)",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    url="https://physionet.org/content/mimic-cxr-jpg/",
    citation="Johnson et al., Scientific Data 6:317 (2019); Johnson et al., arXiv:1901.07042 (2019)",
    owned=("mimic-cxr-2.*.csv*", "files/p1*/**/*", "mimic-cxr-reports/**/*.txt"),
    matches=lambda folder: _table(folder, METADATA) is not None,
    build=samples,
    about="377,110 chest radiographs of 227,835 studies of 65,379 patients with free-text reports, de-identified, in "
    "the authors' split. One sample per study: its views, named, and the study before it where dates and times tell "
    "which that is.",
    layout=(
        "FOLDER/\n"
        "  mimic-cxr-2.0.0-metadata.csv.gz           of MIMIC-CXR-JPG, or unpacked\n"
        "  mimic-cxr-2.0.0-split.csv.gz              the same\n"
        "  files/p10/p10000032/s50414267/<dicom_id>.jpg, or .dcm of MIMIC-CXR\n"
        "  files/p10/p10000032/s50414267.txt         mimic-cxr-reports.zip, or below mimic-cxr-reports/"
    ),
    questions=("report: findings and impression of all views, with the prior study shown where there is one",),
    faults=(
        "ViewPosition is empty for part of the images; the view code is used then, else the image is named View.",
        "StudyTime is a number that has lost its leading zeros; it is read as HHMMSS all the same.",
        "Some reports have no header for findings or impression: the last paragraph is the answer then, and "
        "metadata.sections says so.",
        "Reports compare with images that are not there; metadata.speaks_of_unseen_prior marks them.",
    ),
)
