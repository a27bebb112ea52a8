"""Recipe: how one public dataset, in the layout its authors publish, becomes Samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a person must know about a dataset, and the two functions that read it.

    Attributes:
        name: ``Sample.source`` of its samples.
        version: of the published data.
        licence: of the data, as the authors state it; samples with a licence of their own carry that one.
        url: where to get it.
        citation: what to cite.
        owned: glob patterns, relative to the folder, of the files that are the dataset; a walk over a folder
            does not treat them as loose files.
        matches: does this folder hold the published layout?
        build: read the folder. Rows that cannot be used come out as BadSample, in their place.
        about: what the data are, in a few sentences; the first part of the page in docs/datasets.
        layout: the files as they lie below the folder, one per line, indented by two spaces for each folder.
        questions: the kinds of questions that are made, one per item.
        faults: what is known to be wrong or odd in the published files, one per item.
        measured: what building real files gave, and which files they were; "" when none were at hand.
    """

    name: str
    version: str
    licence: str
    url: str
    citation: str
    owned: tuple[str, ...]
    matches: Callable[[Path], bool]
    build: Callable[[Path], Iterator[Sample | BadSample]]
    about: str = ""
    layout: str = ""
    questions: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    measured: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "version", "licence", "url", "citation"):
            if not str(getattr(self, field)).strip():
                raise ValueError(
                    f"recipe {self.name!r}: {field!r} is empty; state what the authors of the data publish"
                )

    def files(self, folder: Path) -> set[Path]:
        """The files under ``folder`` that belong to the dataset."""
        return {path for pattern in self.owned for path in folder.glob(pattern) if path.is_file()}
