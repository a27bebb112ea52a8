"""Questions that take for granted what is not there: "On which side is the pneumothorax?" of a report that denies one.

The right answer is to say that there is none. Beside them stand questions in the same words whose premise holds (the
report states the finding and one side), so that always saying "there is none" is no way to a high score, and twins
with a blank picture, of which nothing can be told. What reports state and deny is read by eval.tasks.stated_findings.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks import iu_xray, mimic_cxr
from medvlm.eval.tasks.finding_probes import chosen, of
from medvlm.eval.tasks.report_study import Study, question_about
from medvlm.eval.tasks.stated_findings import WITHOUT_SIDE, Stated, stated

BLANK = Path(__file__).with_name("blank.png")
"""A black picture of 224 x 224 pixels."""

SIDES = ("left", "right", "both sides")
NOT_TOLD = "It cannot be told from what is shown"
BLANK_EVERY = 4
"""One question in so many has a twin with blank pictures. Twins differ in finding and order of choices alone."""


def subject(study: Study) -> tuple[str, Stated] | None:
    """The finding that ``study`` is asked about: one that is there on a stated side before one that is denied.

    None where the report plainly says of no finding either. Which of several is decided by a hash.
    """
    said = {finding: one for finding, one in stated(study.report).items() if finding not in WITHOUT_SIDE}
    sided = [finding for finding, one in said.items() if one.present and one.side is not None]
    denied = [finding for finding, one in said.items() if not one.present]
    for findings in (sided, denied):
        if findings:
            finding = min(findings, key=lambda name: chosen(f"{study.sample_id}/{name}"))
            return finding, said[finding]
    return None


def questions(studies: Sequence[Study], *, blank: Path = BLANK) -> Iterator[Sample | BadSample]:
    """One question for each study with a :func:`subject`, and the twins with the picture ``blank``."""
    for study in studies:
        found = subject(study)
        if found is None:
            continue
        finding, one = found
        none = f"There is no {finding}"
        answer = one.side if one.side is not None else none
        sample_id = f"{study.sample_id}/side of the {finding}"
        yield _question(study, finding, sample_id, answer, probe="true premise" if one.present else "false premise")
        if chosen(sample_id) % BLANK_EVERY == 0:
            yield _question(study, finding, f"{sample_id}/blank", NOT_TOLD, probe="blank picture", shown=blank)


def _question(
    study: Study, finding: str, sample_id: str, answer: str, *, probe: str, shown: Path | None = None
) -> Sample | BadSample:
    options = sorted(
        (*SIDES, f"There is no {finding}", NOT_TOLD), key=lambda option: chosen(f"{sample_id}/{option}")
    )  # fmt: skip
    try:
        return question_about(
            study,
            sample_id=sample_id,
            prompt=f"On which side is the {finding} in this chest X-ray study?",
            answers=["ABCDE"[options.index(answer)]],
            kind="choice",
            choices=options,
            topic="premise",
            # Blank pictures are no partners of others in the control with another patient's picture.
            metadata={"probe": probe, "finding": finding, **({"modality": "blank"} if shown else {})},
            shown=shown,
        )
    except BadSample as bad:
        return bad


def _reading(studies: Callable[[Path], Iterator[Study | BadSample]]) -> Callable[[Path], Iterator[Sample | BadSample]]:
    def read(folder: Path) -> Iterator[Sample | BadSample]:
        own = folder / BLANK.name
        yield from of(studies, partial(questions, blank=own if own.is_file() else BLANK))(folder)

    return read


def _with_blank(example: Callable[[Path], None]) -> Callable[[Path], None]:
    """``example`` with a blank picture of its own, so that nothing in it lies where this package is installed."""

    def write(folder: Path) -> None:
        example(folder)
        shutil.copyfile(BLANK, folder / BLANK.name)

    return write


_ABOUT = (
    "On which side is a finding? Of most studies the report denies it, and the right answer is that there is none; of "
    "the others it states the side; one in four questions is asked again of a blank picture, of which nothing can be "
    "told. One question a study. "
)
_FAULTS = (
    "Questions with a false premise are the most frequent: read each kind of question (stratum probe), not the sum.",
    "The twins with a blank picture differ in finding and order of choices alone: they are few questions asked often.",
    "Only what a report plainly denies is asked about; what it does not name is not.",
)

IU_XRAY = Task(
    name="iu-xray-false-premise",
    version=1,
    title="IU X-Ray: questions with a false premise",
    about=_ABOUT + "Of iu-xray: 414 with a false premise, 47 with a true one, 122 of a blank picture.",
    folder=iu_xray.TASK.folder,
    read=_reading(iu_xray.studies),
    n=583,
    n_source="made of all 590 studies of iu-xray by the rules of this version",
    example=_with_blank(iu_xray.example),
    licence=iu_xray.TASK.licence,
    url=iu_xray.TASK.url,
    citation=iu_xray.TASK.citation,
    access=iu_xray.TASK.access,
    ids_sha256="8bad710af93e78f2205cc44fddcbd0c4c64f5a4b4d9ed26b19766f75721673d0",
    cluster=iu_xray.TASK.cluster,
    faults=_FAULTS,
)
MIMIC_CXR = Task(
    name="mimic-cxr-false-premise",
    version=1,
    title="MIMIC-CXR: questions with a false premise",
    about=_ABOUT + "Of mimic-cxr: 1,084 with a false premise, 412 with a true one, 355 of a blank picture.",
    folder=mimic_cxr.TASK.folder,
    read=_reading(mimic_cxr.studies),
    n=1851,
    n_source="made of all 2,347 studies of mimic-cxr by the rules of this version",
    example=_with_blank(mimic_cxr.example),
    licence=mimic_cxr.TASK.licence,
    url=mimic_cxr.TASK.url,
    citation=mimic_cxr.TASK.citation,
    access=mimic_cxr.TASK.access,
    ids_sha256="9b5728cd4060a2c0a0f22a018da06279d504baf43ed6d6cab7f0f1cf9c4339d3",
    cluster=mimic_cxr.TASK.cluster,
    faults=_FAULTS,
)
