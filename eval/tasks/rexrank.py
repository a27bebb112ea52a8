"""The study files of ReXrank (rajpurkarlab/ReXrank, folder data/) -> studies.

A JSON object: study id -> image_path (list), key_image_path, section_findings, section_impression, report, context,
frontal_lateral (list), split, and in some files subject_id or sex, age, race, ethnicity, ap_pa. As the files are, and
not as their README says: ``context`` is one text ("Age:50-60.Gender:M.Indication: ... Comparison: ...", in older
predictions inside <context>), an absent section is NaN, and ``frontal_lateral`` is at times longer or shorter than
``image_path``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.studies import UNNAMED, view_name
from medvlm.data_recipes.tables import read_text
from medvlm.eval.tasks.report_study import Origin, Study, section

REPEATED = ("image_path", "key_image_path", "frontal_lateral", "split", "subject_id", "context")
"""Keys of a record that a predictions file repeats."""

_CONTEXT = re.compile(
    r"\s*(?:<context>)?\s*(?:Age:\s*(?P<age>.*?)\s*)?(?:Gender:\s*(?P<gender>.*?)\s*)?"
    r"(?:Indication:\s*(?P<indication>.*?)\s*)?(?:Comparison:\s*(?P<comparison>.*?)\s*)?(?:</context>)?\s*",
    re.DOTALL,
)
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
_BANDS = {"20-Oct": "10-20"}
"""A spreadsheet made a date of the band of ages 10-20 in one record."""

REPOSITORY = "https://github.com/rajpurkarlab/ReXrank"


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object whose keys are studies.

    Raises:
        BadSample: not JSON, no object, or a study that stands in it twice (of which JSON readers silently keep one).
    """
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice.extend(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return found

    try:
        value = json.loads(read_text(path), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise BadSample(
            f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", mend="use the file as published"
        ) from error
    if not isinstance(value, dict):
        raise BadSample(
            f"expected an object of studies, got {type(value).__name__}",
            where=str(path),
            mend=f"use the file of {REPOSITORY}",
        )
    if twice:
        raise BadSample(f"{len(twice)} keys stand twice, first {twice[0]!r}", where=str(path), mend="keep one of them")
    return value


def read_studies(
    path: Path,
    *,
    origin: Origin,
    roots: Sequence[Path],
    patient: Callable[[str, Mapping[str, Any]], str],
    split: str | None,
) -> Iterator[Study | BadSample]:
    """The studies of a ReXrank file in its order; whether the pictures are there is seen when they are asked about.

    Args:
        roots: folders that may hold the pictures; the first that has one counts.
        patient: (study id, record) -> the patient.
        split: what the record must say of its split, where it says any.

    Raises:
        BadSample: the file is no such file.
    """
    for study_id, record in read_object(path).items():
        where = f"{path}:{study_id}"
        try:
            if not isinstance(record, dict):
                raise BadSample(
                    f"expected an object, got {type(record).__name__}", where=where, mend="use the file as published"
                )
            if split is not None and record.get("split", split) != split:
                raise BadSample(
                    f"the study is of the split {record['split']!r}, the task asks {split!r}",
                    where=where,
                    mend=f"use the {split} file of {REPOSITORY}",
                    sample_id=study_id,
                )
            yield _study(study_id, record, where=where, origin=origin, roots=roots, patient=patient(study_id, record))
        except BadSample as bad:
            yield bad


def _study(
    study_id: str, record: Mapping[str, Any], *, where: str, origin: Origin, roots: Sequence[Path], patient: str
) -> Study:
    for key in ("image_path", "section_findings", "section_impression"):
        if key not in record:
            raise BadSample(f"{key!r} is missing", where=where, mend="use the file as published", sample_id=study_id)
    known = context_of(record.get("context"), where=where)
    age = section(known.get("age", record.get("age")))
    age = age.rstrip(".") if age else None
    age = _BANDS.get(age, age.removesuffix(".0")) if age else None
    sex = section(known.get("gender")) or section(record.get("sex")) or ""
    paths = _paths(record["image_path"], roots, where)
    return Study(
        study_id=study_id,
        sample_id=study_id,
        patient_id=patient,
        origin=origin,
        where=where,
        pictures=tuple(zip(_views(record.get("frontal_lateral"), len(paths)), paths, strict=True)),
        findings=section(record["section_findings"]),
        impression=section(record["section_impression"]),
        indication=section(known.get("indication")),
        comparison=section(known.get("comparison")),
        sex=_SEXES.get(sex.rstrip(".").lower()),
        age=age,
        age_band=age_band(age),
        published={key: _plain(record[key]) for key in REPEATED if key in record},
    )


def _plain(value: Any) -> Any:
    """``value`` with null for NaN, which is no JSON."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def _paths(given: Any, roots: Sequence[Path], where: str) -> list[Path]:
    if not isinstance(given, list) or not given or not all(isinstance(one, str) and one.strip() for one in given):
        raise BadSample("image_path is no list of paths", where=where, mend="use the file as published")
    paths = []
    for one in given:
        inner = PurePosixPath(one.lstrip("/"))
        if ".." in inner.parts:
            raise BadSample("image_path leaves the folder of pictures", where=where, mend="use the file as published")
        places = [root / inner for root in roots]
        paths.append(next((place for place in places if place.is_file()), places[0]))
    return paths


def _views(given: Any, count: int) -> list[str]:
    """Names of the views; none where they are not as many as the pictures, so that nobody knows which is whose."""
    if not isinstance(given, list) or len(given) != count:
        return [UNNAMED] * count
    return [(view_name(one) if isinstance(one, str) else None) or UNNAMED for one in given]


def context_of(given: Any, *, where: str) -> dict[str, str]:
    """age, gender, indication, comparison of a context, as text or as the object that the README describes.

    Raises:
        BadSample: neither, or a text of another form.
    """
    if given is None or (isinstance(given, float) and given != given):
        return {}
    if isinstance(given, dict):
        return {key: str(value) for key, value in given.items() if value is not None}
    match = _CONTEXT.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise BadSample(
            "the context is not of the form 'Age:... Gender:... Indication:... Comparison:...'",
            where=where,
            mend="use the file as published",
        )
    return {key: text for key, text in match.groupdict().items() if text}


def age_band(age: str | None) -> str | None:
    """ "50-60" of "50-60" or of "57": ten years, the lower end included; None where no number of years is stated."""
    if age is None:
        return None
    if re.fullmatch(r"\d+-\d+|>=\d+", age):
        return age
    number = re.fullmatch(r"(\d{1,3})(?:\.\d+)?", age)
    if number is None:
        return None
    low = int(number[1]) // 10 * 10
    return f"{low}-{low + 10}"
