"""The parent's side of a learned scorer: start it in any Python, hand it pairs of texts, take marks as they come."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from medvlm.eval.rows import Row


class ScorerProcess:
    """A running scorer; use as a context, which ends it.

    Args:
        python: interpreter of the environment that has the scorer's package.
        script: speaks workers/marking_protocol.py.
        log: takes what it and its libraries print.
        settings: of the scorer, such as a model's name.
        silence_s: after which it counts as hung; loading a model and one batch have to fit in.

    Raises:
        ValueError: the interpreter is not there, or the scorer refuses; says what would mend it.
    """

    def __init__(
        self,
        python: Path,
        script: Path,
        log: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        batch_size: int = 16,
        silence_s: float = 1800.0,
    ) -> None:
        self.silence_s, self.log = silence_s, log
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._printed = log.open("wb")
        try:
            self._child = subprocess.Popen(
                [str(python), "-u", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed
            )
        except OSError as error:
            self._printed.close()
            raise ValueError(f"{python} cannot be started ({error}); give the Python of an environment") from error
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._send([{"settings": dict(settings or {}), "batch_size": batch_size}])
            first = self._next()
            if first is None or "refused" in first:
                why = self._ended() if first is None else first["refused"]
                raise ValueError(f"{script.stem} cannot run in {python}: {why}")
        except BaseException:
            self.close()
            raise
        self.about: dict[str, Any] = first["about"]

    def marks(self, pairs: Sequence[Mapping[str, str]]) -> Iterator[Row]:
        """What it says of each pair, {"id", "marks"} or {"id", "unscored"}, as soon as it does. Once per process.

        Args:
            pairs: {"id", "answer", "reference"}.

        Raises:
            ValueError: it ended, or fell silent, before it had marked all of them.
        """
        threading.Thread(target=self._send, args=(pairs,), kwargs={"last": True}, daemon=True).start()
        open_ids = {pair["id"] for pair in pairs}
        while open_ids:
            row = self._next()
            if row is None:
                raise ValueError(f"the scorer ended with {len(open_ids)} of {len(pairs)} unmarked: {self._ended()}")
            if row["id"] not in open_ids:
                raise ValueError(f"the scorer marked {row['id']!r}, which it was not asked, or asked once only")
            open_ids.remove(row["id"])
            yield row

    def _send(self, rows: Sequence[Mapping[str, Any]], last: bool = False) -> None:
        stream: IO[bytes] | None = self._child.stdin
        assert stream is not None
        with suppress(OSError, ValueError):  # it ended; the reader says so
            for row in rows:
                stream.write(json.dumps(row).encode() + b"\n")
            stream.flush()
            if last:
                stream.close()

    def _listen(self) -> None:
        stream: IO[bytes] | None = self._child.stdout
        assert stream is not None
        for line in stream:
            self._lines.put(line.decode())
        self._lines.put(None)

    def _next(self) -> Row | None:
        try:
            line = self._lines.get(timeout=self.silence_s)
        except queue.Empty:
            self._child.kill()
            raise ValueError(
                f"the scorer said nothing for {self.silence_s:g} s and was ended; see {self.log}, or allow more with "
                "--silence"
            ) from None
        if line is None:
            return None
        try:
            row: Row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"the scorer's output is no JSON ({error.msg}); see {self.log}") from error
        return row

    def _ended(self) -> str:
        try:
            code: int | None = self._child.wait(10)
        except subprocess.TimeoutExpired:
            code = None
        if code is not None and code < 0:
            return f"killed by signal {-code} (9: often for want of memory); see {self.log}"
        return f"exit code {code}; see {self.log}"

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()
        self._printed.close()

    def __enter__(self) -> ScorerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
