"""The files that a row names -> VisualRefs: where they lie, what they are by content, which reader options they get."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.hub import write_once
from medvlm.data_recipes.own.settings import KEYS_OF_VISUALS, Filled
from medvlm.data_recipes.readers import sniff
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.tables import Row
from medvlm.model.visual import Kind

_NAME = re.compile(r"\{([^{}]+)\}")
_ADDRESS = re.compile(r"^[a-z][a-z0-9+]{1,9}://", re.IGNORECASE)
_DATA = re.compile(r"^data:[\w/.+-]*;base64,", re.IGNORECASE)


@lru_cache(maxsize=4096)
def _known(path: Path) -> tuple[Kind | None, str]:
    """What the file is, and where it lies without links."""
    return sniff(path), str(path.resolve())


def written_text(row: Row, key: str) -> str:
    """The text of ``key`` with its line breaks, stripped; "" when there is none; a number becomes its digits.

    Raises:
        BadSample: there is no such key, or its value is neither text nor a number.
    """
    if key not in row.values:
        raise BadSample(f"there is no {key!r}", where=row.where, mend=f"use one of {', '.join(sorted(row.values))}")
    value = row.values[key]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadSample(
            f"{key!r} must be text or a number, got {type(value).__name__}",
            where=row.where,
            mend=f"write {key!r} as text",
        )
    return str(value).strip()


def filled_template(template: str, row: Row) -> str:
    """``template`` with every ``{key}`` replaced by what the row says there.

    Raises:
        BadSample: the row has no such key, or it is empty.
    """

    def value(found: re.Match[str]) -> str:
        text = written_text(row, found[1])
        if not text:
            raise BadSample(f"{found[1]!r} is empty", where=row.where, mend=f"fill in {found[1]!r} or drop the row")
        return text

    return _NAME.sub(value, template)


class Visuals:
    """Finds the visuals of rows."""

    def __init__(self, filled: Filled, own: Path) -> None:
        """
        Args:
            own: folder for pictures that stand inside the rows as data: addresses.
        """
        self._folder, self._suffix = filled.path(filled.recipe.images), filled.recipe.suffix
        self._fields, self._options, self._own = filled.recipe.fields.visuals, filled.recipe.reader, own

    def named(self, row: Row) -> list[VisualRef]:
        """The visuals of the usual keys, or of those that the recipe names, in the order written.

        Raises:
            BadSample: a file is missing or is no visual, or a key holds neither a path nor a list of paths.
        """
        if not self._fields:
            return [ref for key in KEYS_OF_VISUALS for ref in self.under(row, key)]
        found: list[VisualRef] = []
        for field in self._fields:
            if "{" in field:
                found.append(self.at(filled_template(field, row), row.where))
            elif field not in row.values:
                written_text(row, field)  # Says which keys there are.
            else:
                found += self.under(row, field)
        return found

    def under(self, row: Row, key: str) -> list[VisualRef]:
        """The visuals that ``key`` names: none, one path, or a list of paths."""
        value = row.values.get(key)
        if value is None or (isinstance(value, str) and not value.strip()):
            return []
        wanted: Kind | None = "video" if key.startswith("video") else None
        items = value if isinstance(value, list) else [value]
        return [self.at(item, row.where, wanted) for item in items if item is not None]

    def at(self, written: Any, where: str, wanted: Kind | None = None) -> VisualRef:
        """The visual at the path that a row names.

        Args:
            wanted: video for a file that could be read as an image too; else the content decides.
        """
        if isinstance(written, dict) and "url" in written:  # OpenAI: {"image_url": {"url": ...}}
            written = written["url"]
        if not isinstance(written, str) or not written.strip():
            raise BadSample(
                f"a visual must be a path, got {type(written).__name__}", where=where, mend="write the path of the file"
            )
        written = written.strip()
        if found := _DATA.match(written):
            try:
                data = base64.b64decode(written[found.end() :], validate=True)
            except binascii.Error:
                raise BadSample("a data: address that is not base64", where=where, mend="write the path") from None
            written = write_once(data, self._own)
        elif _ADDRESS.match(written):
            if not written.startswith("file://"):
                raise BadSample(
                    f"the visual is an address ({written.split('://')[0]}://...), nothing is fetched from the network",
                    where=where,
                    mend="download the file and write its path",
                )
            written = written.removeprefix("file://")
        path = self._folder / (
            written if not self._suffix or written.endswith(self._suffix) else written + self._suffix
        )
        try:
            kind, place = _known(path)
        except OSError as error:
            raise BadSample(
                f"the visual cannot be opened ({error.strerror})", where=where, mend="write the path of a file"
            ) from error
        except BadSample as bad:
            reason = "the visual is missing" if bad.reason == "no such file" else bad.reason
            raise BadSample(
                f"{reason} ({path})", where=where, mend="correct the path, or images in the recipe, or drop the row"
            ) from bad
        if kind is None:
            raise BadSample(
                f"{path} is no picture, DICOM, NIfTI, NPY or clip, going by its content",
                where=where,
                mend="name a file that holds an image, or drop the row",
            )
        kind = wanted if wanted == "video" and not path.is_dir() else kind
        return VisualRef(kind=kind, path=place, options=dict(self._options.get(kind, {})))
