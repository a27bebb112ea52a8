"""Is a finding there? Balanced yes/no questions after POPE, from what reference reports plainly say.

POPE (Li et al., EMNLP 2023, arXiv:2305.10355) asks of each picture about objects that are there and as many that are
not: random, popular, or often seen together with what is there. Reports name the same few absent findings all the time:
with POPE's pairing inside a study, the best constant answer for each finding is right in 80 % (MIMIC-CXR) to 85 %
(IU X-Ray) of the questions. Here each "yes" has its "no" in the same words, of another study, so that words alone are
worth 50 %. "There" and "not there" are what a report states (eval.tasks.stated_findings); silence is neither.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path

from medvlm.data_recipes.asking import YES_NO
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.label_questions import spoken
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks import iu_xray, mimic_cxr
from medvlm.eval.tasks.report_study import Study, question_about
from medvlm.eval.tasks.stated_findings import FINDINGS, stated

WAYS = ("random", "popular", "adversarial")
"""How the study without the finding was chosen among those that deny it: any; one that shows what is most often there;
one that shows what is most often there together with the finding."""

_COUNTED = frozenset({"pleural effusion", "pneumothorax", "nodule", "mass", "granuloma", "opacity", "rib fracture"})


def chosen(key: str) -> int:
    """A number that depends on ``key`` alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def pairs(studies: Sequence[Study]) -> Iterator[tuple[str, Study, Study, str]]:
    """(finding, a study that shows it, one that denies it, way): as many as there are of the rarer kind.

    How often findings are there, and together, is counted over all of ``studies``. No study stands twice under one
    finding; the order of ``studies`` does not matter.
    """
    said = {study.sample_id: stated(study.report) for study in studies}
    shows = {name: [f for f, one in found.items() if one.present] for name, found in said.items()}
    popular = Counter(finding for findings in shows.values() for finding in findings)
    together = Counter(pair for findings in shows.values() for pair in permutations(findings, 2))
    for finding in FINDINGS:
        named = [study for study in studies if finding in said[study.sample_id]]
        named.sort(key=lambda study: chosen(f"{study.sample_id}/{finding}"))
        there = [study for study in named if said[study.sample_id][finding].present]
        left = [study for study in named if not said[study.sample_id][finding].present]
        for study, number in zip(there, range(len(left)), strict=False):
            way = WAYS[number % len(WAYS)]
            # Of equals the first, which is a random one: the list is in the order of a hash.
            best = max(left, key=lambda other: _fitness(way, finding, shows[other.sample_id], popular, together))
            left.remove(best)
            yield finding, study, best, way


def _fitness(
    way: str, finding: str, shown: Sequence[str], popular: Counter[str], together: Counter[tuple[str, str]]
) -> int:
    if way == "random":
        return 0
    return max((popular[one] if way == "popular" else together[finding, one] for one in shown), default=0)


def questions(studies: Sequence[Study]) -> Iterator[Sample | BadSample]:
    """Two questions for each of :func:`pairs`, in the same words: one is answered yes, the other no."""
    for finding, there, denied, way in pairs(studies):
        for study, answer, probe in ((there, "yes", "present"), (denied, "no", way)):
            try:
                yield question_about(
                    study,
                    sample_id=f"{study.sample_id}/{finding}",
                    prompt=f"Is there {spoken(finding, _COUNTED)} in this chest X-ray study?",
                    answers=[answer],
                    kind="closed",
                    choices=YES_NO,
                    topic=finding,
                    metadata={"probe": probe},
                )
            except BadSample as bad:
                yield bad


def of(
    studies: Callable[[Path], Iterator[Study | BadSample]],
    make: Callable[[Sequence[Study]], Iterator[Sample | BadSample]],
) -> Callable[[Path], Iterator[Sample | BadSample]]:
    """A ``Task.read`` that makes its questions of all studies that ``studies`` reads."""

    def read(folder: Path) -> Iterator[Sample | BadSample]:
        found = []
        for study in studies(folder):
            if isinstance(study, BadSample):
                yield study
            else:
                found.append(study)
        yield from make(found)

    return read


_ABOUT = (
    "Is a finding there? Each question answered yes has one answered no in the same words, of another study whose "
    "report denies the finding: a random one, or one that looks plausible. "
)
_FAULTS = (
    "What a report does not name is not asked about, in either direction, so that the questions are about the easier "
    "part of what is to be seen.",
    "Findings that reports rarely deny (granuloma, scarring, atelectasis, rib fracture) give few questions or none.",
    "Departs from POPE, which pairs inside one picture: that leaves 80 to 85 % to the words of the question.",
    "The rules that read the reports are frozen; their errors are counted in docs/probes.md.",
)

IU_XRAY = Task(
    name="iu-xray-findings",
    version=1,
    title="IU X-Ray: presence of findings, balanced",
    about=_ABOUT + "The studies are those of iu-xray; 73 of its 590 give questions.",
    folder=iu_xray.TASK.folder,
    read=of(iu_xray.studies, questions),
    n=94,
    n_source="made of all 590 studies of iu-xray by the rules of this version",
    example=iu_xray.example,
    licence=iu_xray.TASK.licence,
    url=iu_xray.TASK.url,
    citation=f"{iu_xray.TASK.citation}; Li et al., EMNLP 2023 (POPE)",
    access=iu_xray.TASK.access,
    ids_sha256="9665c3b077338d384cc5a14fe95eb734a223c283a9752f012bebc00fb90b36e5",
    cluster=iu_xray.TASK.cluster,
    faults=_FAULTS,
)
MIMIC_CXR = Task(
    name="mimic-cxr-findings",
    version=1,
    title="MIMIC-CXR: presence of findings, balanced",
    about=_ABOUT + "The studies are those of mimic-cxr; 1,101 of its 2,347 give questions.",
    folder=mimic_cxr.TASK.folder,
    read=of(mimic_cxr.studies, questions),
    n=1546,
    n_source="made of all 2,347 studies of mimic-cxr by the rules of this version",
    example=mimic_cxr.example,
    licence=mimic_cxr.TASK.licence,
    url=mimic_cxr.TASK.url,
    citation=f"{mimic_cxr.TASK.citation}; Li et al., EMNLP 2023 (POPE)",
    access=mimic_cxr.TASK.access,
    ids_sha256="309f630cd45c5a3a2ae266f5fa9b183bbb78fb83b76f7ec7b7877566fdc8ebf0",
    cluster=mimic_cxr.TASK.cluster,
    faults=_FAULTS,
)
