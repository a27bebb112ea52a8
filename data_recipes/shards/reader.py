"""Shard sets, read back: any row by its number."""

from __future__ import annotations

import hashlib
import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers.shard_member import member_bytes
from medvlm.data_recipes.sample import Sample, VisualRef, from_json
from medvlm.data_recipes.shards.build import Record
from medvlm.data_recipes.shards.byte_ranges import is_url, join, local_path, read_whole
from medvlm.data_recipes.shards.cache import ShardCache
from medvlm.data_recipes.shards.members import map_refs

FORMAT, VERSION = "medvlm-shards", 1
INDEX = "index.json"
INDEX_BYTES = 128 << 20
"""Offsets of shards that a process keeps in memory: 20 bytes for each row and each visual."""

_MEND = "copy or build the shard again"


def is_shard_set(path: str | Path) -> bool:
    """Whether ``path`` is the folder or url of a finished shard set.

    Raises:
        ConnectionError: a remote storage that keeps failing.
    """
    place = str(path)
    if place.endswith(".jsonl") or (not is_url(place) and not local_path(place).is_dir()):
        return False
    try:
        index = json.loads(read_whole(join(place, INDEX)))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(index, dict) and index.get("format") == FORMAT


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where the members of one shard lie; see build.Record."""

    members: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc32: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.members.nbytes + self.offset.nbytes + self.size.nbytes + self.crc32.nbytes


class ShardSet:
    """Rows of a finished set; goes to other processes without what it has open. Made by ``open``.

    Attributes:
        url: folder or url.
        fingerprint: SHA-256 of index.json, which names the SHA-256 of everything else.
        split: of every row.
    """

    def __init__(self, url: str, index: bytes, cache: ShardCache | None) -> None:
        self.url, self.cache = url, cache
        self.fingerprint = hashlib.sha256(index).hexdigest()
        try:
            known = json.loads(index)
            if known["format"] != FORMAT or known["version"] != VERSION:
                raise ValueError(f"format {known['format']!r}, version {known['version']!r}")
            self.shards: list[dict[str, Any]] = known["shards"]
            self.split: str = known["split"]
            self._ends = list(accumulate(shard["rows"] for shard in self.shards))
            self._whole_fits = cache is None or sum(s["bytes"] for s in self.shards) <= cache.max_bytes
        except (ValueError, KeyError, TypeError) as error:
            raise BadSample(
                f"no index of a shard set of this version ({type(error).__name__}: {error})",
                where=join(url, INDEX),
                mend="build the set again with medvlm data shard",
            ) from error
        self._forget()

    def _forget(self) -> None:
        self._places: OrderedDict[int, _Places | BadSample] = OrderedDict()
        self._held = 0
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_places", "_held", "_guard")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @classmethod
    def open(cls, url: str | Path, *, cache: ShardCache | None = None) -> ShardSet:
        """Read index.json, and nothing else yet.

        Args:
            url: folder, or whatever fsspec reads: s3://bucket/set, https://host/set.
            cache: of a remote set. Rows by number go through it when the whole set fits into it, else each visual is
                one byte range; a stream always goes through it.

        Raises:
            BadSample: there is no index.json (the build is not finished), or it is none of this version.
            ConnectionError: a remote storage that keeps failing.
        """
        place = str(url) if is_url(str(url)) else str(local_path(str(url)).absolute())
        try:
            index = read_whole(join(place, INDEX))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BadSample(
                f"no {INDEX}: no shard set, or one whose build is not finished",
                where=place,
                mend="run the same medvlm data shard command again",
            ) from error
        return cls(place, index, cache if is_url(place) else None)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int) -> Sample | BadSample:
        """Row ``index``; its visuals name byte ranges, which data_recipes.readers.read reads and checks.

        A row that is torn, changed or missing comes back as the BadSample that names shard and key.

        Raises:
            IndexError: there is no such row.
            ConnectionError: a remote storage that keeps failing.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        shard, number = self.place(index)
        copy = None
        if self.cache is not None:
            copy = self.cache.held(self.shards[shard]["sha256"])
            if copy is None and self._whole_fits:
                copy = self.fetch(shard, self.cache)
        return self.read_row(shard, number, copy)

    def place(self, index: int) -> tuple[int, int]:
        """(shard, row in it) of row ``index``."""
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def fetch(self, shard: int, cache: ShardCache) -> Path | None:
        """A checked copy of a shard in ``cache``; None when the storage has none that is what the index says.

        Raises:
            ConnectionError: a remote storage that keeps failing.
        """
        entry = self.shards[shard]
        try:
            return cache.fetch(join(self.url, entry["name"]), size=entry["bytes"], sha256=entry["sha256"])
        except (FileNotFoundError, BadSample):
            return None  # its rows are then read where they lie, and those that are damaged say so

    def read_row(self, shard: int, number: int, copy: Path | None) -> Sample | BadSample:
        """Row ``number`` of a shard, from ``copy`` or where it lies; see ``row``."""
        origin = join(self.url, self.shards[shard]["name"])
        places = self._places_of(shard)
        if isinstance(places, BadSample):
            return places
        place, url = (origin, {}) if copy is None else (str(copy), {"url": origin})
        first = int(places.members[number])

        def member(at: int) -> dict[str, Any]:
            return {
                "offset": int(places.offset[at]), "size": int(places.size[at]), "crc32": int(places.crc32[at]), **url
            }  # fmt: skip

        where = f"{origin}::row {number}"
        try:
            data = member_bytes(place, member(first), where)
            row = from_json(json.loads(data), where=where)
        except BadSample as bad:
            return bad
        except ValueError as error:
            return BadSample(f"no row in JSON: {error}", where=where, mend=_MEND)

        def located(ref: VisualRef) -> VisualRef:
            # "<key>.<n>.<type>": the n-th visual is the n-th member after the row.
            at = first + 1 + int(ref.path.split(".")[1])
            return replace(ref, path=place, options={**ref.options, "member": ref.path, **member(at)})

        try:
            return map_refs(row, located)
        except (ValueError, LookupError) as error:
            return BadSample(f"a visual that is not in the shard: {error}", where=where, mend=_MEND)

    def _places_of(self, shard: int) -> _Places | BadSample:
        with self._guard:
            if shard in self._places:
                self._places.move_to_end(shard)
                return self._places[shard]
        found = self._read_places(shard)
        with self._guard:
            if shard not in self._places and isinstance(found, _Places):
                self._places[shard] = found
                self._held += found.nbytes
            while self._held > INDEX_BYTES and len(self._places) > 1:
                _, oldest = self._places.popitem(last=False)
                self._held -= oldest.nbytes if isinstance(oldest, _Places) else 0
        return found

    def _read_places(self, shard: int) -> _Places | BadSample:
        entry = self.shards[shard]
        place = join(self.url, entry["index"])
        try:
            data = read_whole(place)
        except FileNotFoundError:
            return BadSample(f"the index of {entry['name']} is missing", where=place, mend=_MEND)
        if hashlib.sha256(data).hexdigest() != entry["index_sha256"]:
            return BadSample(f"the index of {entry['name']} has changed since the build", where=place, mend=_MEND)
        record = Record.from_text(data)
        return _Places(
            members=np.array(record.members, np.int32),
            offset=np.array(record.offset, np.int64),
            size=np.array(record.size, np.int64),
            crc32=np.array(record.crc32, np.uint32),
        )
