"""One shard: rows of a layout -> a tar and its record, or the finished one of an earlier run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.data_recipes.shards.byte_ranges import join
from medvlm.data_recipes.shards.layout import Layout
from medvlm.data_recipes.shards.members import Settings, encode_sample
from medvlm.data_recipes.shards.storage import new_file, read_json, same, write_text
from medvlm.data_recipes.shards.tar_file import TarWriter


class Stopped(Exception):
    """The build was asked to stop; the shard at work is given up."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a worker needs.

    Attributes:
        out: folder or url.
        plan: sha256 of everything that decides the bytes; records of another plan do not count.
    """

    out: str
    layout: Layout
    settings: Settings
    plan: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a finished shard; stands beside it as "<shard>.index.json", written after it.

    Attributes:
        members: number of members before each row, and of all: row r has members[r] .. members[r + 1].
        offset, size, crc32: of the bytes of each member in the tar.
        quarantine: rows that are not in it, as quarantine.jsonl shows them.
    """

    shard: str
    plan: str
    rows: int
    tar_bytes: int
    sha256: str
    members: list[int]
    offset: list[int]
    size: list[int]
    crc32: list[int]
    quarantine: list[dict[str, str | None]]

    def to_text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes) -> Record:
        """Raises ValueError or TypeError when ``text`` is no record."""
        return cls(**json.loads(text))


def record_name(shard: str) -> str:
    """ "train-00012.tar" -> "train-00012.index.json" """
    return shard.removesuffix(".tar") + ".index.json"


def _never() -> bool:
    return False


def finished(job: Job, number: int) -> Record | None:
    """The record of a shard that an earlier run of the same plan finished and that is still as it was."""
    name = job.layout.name(number)
    try:
        found: Any = read_json(join(job.out, record_name(name)))
        record = Record(**found) if found is not None else None
    except (ValueError, TypeError):
        return None
    if record is None or record.plan != job.plan or record.shard != name:
        return None
    return record if same(join(job.out, name), size=record.tar_bytes, sha256=record.sha256) else None


def build_shard(job: Job, number: int, stopped: Callable[[], bool] = _never) -> Record:
    """Write shard ``number``, or find it finished; its bytes do not depend on who writes it, or when.

    Raises:
        Stopped: ``stopped()`` said so between two rows; nothing is left behind.
        OSError: the manifest or a visual's disk cannot be read, or ``out`` cannot be written.
    """
    done = finished(job, number)
    if done is not None:
        return done
    name = job.layout.name(number)
    members, offset, size, crc32 = [0], [], [], []
    quarantine: list[dict[str, str | None]] = []
    with new_file(job.out, name) as path:
        with path.open("wb") as file, TarWriter(file) as tar:
            for key, row, where in job.layout.rows(number):
                if stopped():
                    raise Stopped
                try:
                    if isinstance(row, BadSample):
                        raise row
                    encoded = encode_sample(row, key, job.settings, where=where)
                except BadSample as bad:
                    quarantine.append(bad.to_dict())
                    continue
                except Exception as error:
                    # A fault of the code, not of the data: it must be seen, and with the row that shows it.
                    error.add_note(f"while writing {where} into {name}")
                    raise
                for member in encoded:
                    at, length = tar.add(member)
                    offset.append(at)
                    size.append(length)
                    crc32.append(zlib.crc32(member.data))
                members.append(len(offset))
        record = Record(
            shard=name,
            plan=job.plan,
            rows=len(members) - 1,
            tar_bytes=path.stat().st_size,
            sha256=sha256_of(path),
            members=members,
            offset=offset,
            size=size,
            crc32=crc32,
            quarantine=quarantine,
        )
    write_text(job.out, record_name(name), record.to_text())
    return record
