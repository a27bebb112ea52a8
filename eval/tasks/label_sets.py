"""The findings of one picture asked at once: yes/no samples of a recipe -> one question for the set of labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import PurePosixPath

from medvlm.data_recipes.asking import NONE_OF_THEM, ask
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample


def _name(sample: Sample | BadSample) -> str:
    """The picture of a yes/no sample: its id without the finding at its end."""
    return str(PurePosixPath(sample.sample_id).parent) if isinstance(sample, Sample) else f"{id(sample)}"


def together(
    samples: Iterable[Sample | BadSample], *, prompt: str, labels: int, where: str
) -> Iterator[Sample | BadSample]:
    """One sample a picture that asks for all of its findings.

    Args:
        samples: closed yes/no samples whose ids end in the finding, those of one picture one after the other.
        labels: how many findings each picture is asked about.
        where: named in complaints.
    """
    for name, group in groupby(samples, key=_name):
        members = list(group)
        first = members[0]
        if isinstance(first, BadSample):
            yield first
            continue
        answers = {
            sample.sample_id.rsplit("/", 1)[1].replace("-", " "): sample.question.answers[0]
            for sample in members
            if isinstance(sample, Sample) and sample.question is not None
        }
        if len(answers) != labels:
            yield BadSample(
                f"{len(answers)} findings of {labels} are known of {name}", where=where, mend="use the whole table"
            )
            continue
        yield ask(
            sample_id=f"{name}/labels",
            patient_id=first.patient_id,
            study_id=first.study_id,
            source=first.source,
            licence=first.licence,
            split=first.split,
            prompt=prompt,
            answers=[label for label, answer in answers.items() if answer == "yes"] or [NONE_OF_THEM],
            kind="labels",
            choices=tuple(answers),
            topic="findings",
            visuals=first.visuals(),
            where=where,
            metadata={key: value for key, value in first.metadata.items() if key not in ("dimension", "topic")},
        )
