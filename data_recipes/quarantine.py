"""What a training leaves out: written down as it is met, counted, and too much of it stops the training."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from medvlm.data_recipes.errors import BadSample

FEWEST = 100
"""Below so many samples met, a share says little: one bad file of three is no reason to stop."""

_Key = tuple[str, str, str | None]
"""Place, reason and sample: one missing file may be the loss of many samples."""


class Quarantine:
    """Refused samples, each once.

    Args:
        path: JSON lines to append to, None to write nothing. Lines of an earlier run of the stage are kept and not
            repeated. Each line is appended by one write, so that ranks may share the file.
        limit: largest share of the samples met that may be refused.
    """

    def __init__(self, path: Path | None = None, limit: float = 1.0) -> None:
        self.path, self.limit, self.met = path, limit, 0
        self.refused: list[BadSample] = []
        self._lock = threading.Lock()
        self._known: set[_Key] = set()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._written = _written(path)

    def __len__(self) -> int:
        return len(self.refused)

    def add(self, refused: Iterable[BadSample], *, met: int = 0, write: bool = True) -> None:
        """Count ``met`` more samples, of which some were refused.

        Args:
            write: whether this process writes them down; of what all ranks see alike, one does.

        Raises:
            BadSample: more than the limit is refused; names the latest.
        """
        with self._lock:
            self.met += met
            for bad in refused:
                key = (bad.where, bad.reason, bad.sample_id)
                if key in self._known:
                    continue
                self._known.add(key)
                self.refused.append(bad)
                if write and self.path is not None and key not in self._written:
                    _append(self.path, bad)
            if self.refused and self.met >= FEWEST and len(self.refused) > self.limit * self.met:
                last = self.refused[-1]
                raise BadSample(
                    f"{len(self.refused)} of {self.met} samples cannot be used, more than the share of {self.limit:g} "
                    f"that data.quarantine_limit allows; the latest: {last.where}: {last.reason}",
                    where=str(self.path or "the training data"),
                    mend=f"{last.mend}; or raise data.quarantine_limit when so many may be left out",
                )


def _written(path: Path) -> set[_Key]:
    """What the lines of ``path`` name; a last line that was cut short is ended, so that the next stands alone."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    found: set[_Key] = set()
    for line in text.split("\n"):
        try:
            row = json.loads(line)
            found.add((row["where"], row["reason"], row.get("sample_id")))
        except (ValueError, TypeError, KeyError):  # a line is written for people; one that is torn is written again
            continue
    return found


def _append(path: Path, bad: BadSample) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(bad.to_dict(), ensure_ascii=False) + "\n").encode())
    finally:
        os.close(file)
