"""One DICOM file -> one clean DICOM file, looked at a second time."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from medvlm.data_recipes.deidentification import pixels
from medvlm.data_recipes.deidentification.dicom_clean import (
    black_out,
    has_pixels,
    rectangle_of,
    rectangles_for,
    words_of,
)
from medvlm.data_recipes.deidentification.dicom_profile import apply_profile
from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.known_people import Known, known_of
from medvlm.data_recipes.deidentification.masking import finder_of_words
from medvlm.data_recipes.deidentification.options import Ocr, Options, Tally
from medvlm.data_recipes.deidentification.tags import identifying_attributes, name_of
from medvlm.data_recipes.deidentification.text import find_identifiers
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.dicom_header import DICOM_ERRORS, open_dataset, quiet
from medvlm.data_recipes.readers.refusals import decoding
from medvlm.data_recipes.whole_file import writing

_DIRECTORY = "1.2.840.10008.1.3.10"

Leak = dict[str, str]
"""file, place, kind and certainty: "found" when rules see an identifier, "possible" when a person should look."""


def leaks_of(name: str, place: str, kinds: Iterable[str], certainty: str = "found") -> list[Leak]:
    """One leak per kind."""
    return [{"file": name, "place": place, "kind": kind, "certainty": certainty} for kind in sorted(set(kinds))]


def clean_dicom(source: Path, target: Path, name: str, *, key: Key, options: Options, tally: Tally) -> list[Leak]:
    """Write the clean copy of ``source`` as ``target``; what the second look finds comes back.

    Args:
        name: of the file in the output, the only one that is told.

    Raises:
        BadSample: damaged, a DICOMDIR, or pixels that cannot be cleaned as asked.
    """
    dataset = open_dataset(source, pixels=True)
    if _DIRECTORY in (str(dataset.get("SOPClassUID", "")), str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))):
        raise BadSample(
            "a DICOMDIR, which lists patients and files by name",
            where=name,
            mend="make a new one from the clean files, if one is needed",
        )
    with quiet():
        known = known_of(dataset)
    hints = pixels.header_hints(dataset)
    rectangles = []
    if has_pixels(dataset):
        rectangles = rectangles_for(dataset, options.boxes)
        if _chosen(options.clean_pixels, hints):
            rectangles += [rectangle_of(box, dataset) for box, _ in words_of(dataset, source)]
    finder = finder_of_words(known.names, known.numbers)
    done = apply_profile(dataset, key=key, options=options, where=source, more=(finder,))
    tally.removed.update(done.removed)
    black_out(dataset, rectangles, source)
    if rectangles:
        tally.removed["rectangles blacked out"] += len(rectangles)
    mend = "convert the file with a DICOM toolkit first, or leave it out"
    buffer = io.BytesIO()
    with decoding(source, "a data set that can be written", mend, also=DICOM_ERRORS, quote=False), quiet():
        dataset.save_as(buffer, enforce_file_format=_is_whole(dataset))
    with writing(target) as stream:
        stream.write(buffer.getbuffer())
    return _second_look(target, name, options, known, hints)


def _is_whole(dataset: Dataset) -> bool:
    """Whether class and instance are named, as a file by PS3.10 needs."""
    return "MediaStorageSOPClassUID" in dataset.file_meta and "MediaStorageSOPInstanceUID" in dataset.file_meta


def _chosen(choice: Ocr, hints: tuple[str, ...]) -> bool:
    return choice == "all" or (choice == "hinted" and bool(hints))


def _second_look(target: Path, name: str, options: Options, known: Known, hints: tuple[str, ...]) -> list[Leak]:
    """What the written file still tells: attributes, known names in its texts, words in its pixels."""
    dataset = open_dataset(target, pixels=True)
    leaks: list[Leak] = []
    for tag in identifying_attributes(dataset, where=target, strict=True):
        if not (options.private and "(" in tag):
            leaks += leaks_of(name, tag, ["attribute"])
    finder = finder_of_words(known.names, known.numbers)
    with quiet():
        for element in dataset.iterall():
            if element.VR in ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "CS", "UR"):
                text = str(element.value or "")
                leaks += leaks_of(name, name_of(element), (o.kind for o in (*find_identifiers(text), *finder(text))))
    if not has_pixels(dataset) or not (hints or options.look == "all"):
        return leaks
    if options.look == "no" or pixels.available() is not None:
        return leaks + leaks_of(name, "pixels", [f"not looked at: {hint}" for hint in hints], "possible")
    words = list(words_of(dataset, target))
    leaks += leaks_of(name, "pixels", (kind for box, _ in words for kind in box.kinds))
    leaks += leaks_of(name, "pixels", (one.kind for _, word in words for one in finder(word)))
    return leaks + leaks_of(name, "pixels", [f"{len(words)} words"] if words else [], "possible")
