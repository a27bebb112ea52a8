"""What a de-identification keeps, as the options of PS3.15 E.3 name it; nothing is kept unless asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medvlm.data_recipes.deidentification.basic_profile import Option

Ocr = Literal["no", "hinted", "all"]

CODES: dict[str, tuple[str, str]] = {
    "profile": ("113100", "Basic Application Confidentiality Profile"),
    "pixels": ("113101", "Clean Pixel Data Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient_characteristics": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "private": ("113111", "Retain Safe Private Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}
"""Code value and meaning of DeidentificationMethodCodeSequence (PS3.16 CID 7050)."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle that is blacked out in every picture of a size.

    Attributes:
        rows, columns: size of the pictures that it is for.
        low, high: (row, column) of the first pixel, and one past the last.
        modality: only of this modality; None for all.
    """

    rows: int
    columns: int
    low: tuple[int, int]
    high: tuple[int, int]
    modality: str | None = None

    def __post_init__(self) -> None:
        inside = all(
            0 <= a < b <= size for a, b, size in zip(self.low, self.high, (self.rows, self.columns), strict=True)
        )
        if not inside:
            raise ValueError(f"the box {self.low} to {self.high} does not lie in {self.rows} x {self.columns} pixels")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to de-identify.

    Attributes:
        keep: options of PS3.15 E.3: patient_characteristics, dates (shifted by one number of days per patient), uids,
            device, institution, descriptors (texts cleaned by rules instead of removed).
        private: private attributes to keep, as "gggg,CREATOR,ee" ("0019,SIEMENS CT VA0,10"), after a review.
        boxes: rectangles to black out.
        clean_pixels: black out the words that OCR finds: in no file, in those whose header hints at burned-in text
            (secondary captures, ultrasound, ...), or in all.
        look: OCR of the second pass, over the same choice of files.
        keep_names: leave the names of files and folders as they are.
        columns: of CSV files, whose texts are cleaned.
        id_columns: of CSV files, replaced by pseudonyms.
        patient_column: of CSV files, whose dates move together.
        hash_ids: replace sample_id, patient_id and study_id of manifests by pseudonyms.
        date_order: how to read 03/04/2019 when dates are shifted: "mdy", "dmy", or None: such a date is masked.
        command: program that reads a text on standard input and writes JSON spans.
    """

    keep: frozenset[Option] = frozenset()
    private: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    clean_pixels: Ocr = "no"
    look: Ocr = "hinted"
    keep_names: bool = False
    columns: tuple[str, ...] = ()
    id_columns: tuple[str, ...] = ()
    patient_column: str | None = None
    hash_ids: bool = False
    date_order: Literal["mdy", "dmy"] | None = None
    command: str | None = None

    def fingerprint(self) -> str:
        """The same text for the same options."""
        return json.dumps(asdict(self), sort_keys=True, default=sorted)


@dataclass(kw_only=True)
class Tally:
    """What was done to one file, in counts.

    Attributes:
        removed: kind of identifier or keyword of an attribute -> how often.
        notes: what a person must know of the file, without any value.
    """

    removed: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def read_boxes(path: Path) -> tuple[Box, ...]:
    """Boxes of a JSON list of objects: rows, columns, low, high and, if wanted, modality.

    Raises:
        ValueError: no such list; says which item.
    """
    try:
        items: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(items, list):
        raise ValueError(f"{path} must hold a list of boxes")
    return tuple(_boxes(items, path))


def _boxes(items: Iterable[Any], path: Path) -> Iterable[Box]:
    for number, item in enumerate(items, start=1):
        try:
            yield Box(
                rows=int(item["rows"]),
                columns=int(item["columns"]),
                low=(int(item["low"][0]), int(item["low"][1])),
                high=(int(item["high"][0]), int(item["high"][1])),
                modality=item.get("modality"),
            )
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(
                f"{path}: box {number} is wrong ({error}); write rows, columns, low [row, column], high [row, column]"
            ) from error
