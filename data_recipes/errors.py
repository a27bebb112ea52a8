"""The one error that data may raise."""

from __future__ import annotations


class BadSample(Exception):
    """A sample or file that cannot be used, said so that a person can mend it.

    Attributes:
        reason: what was found and what was expected, without patient names.
        where: file path, or "path:row" of a manifest.
        mend: what the user can do.
        sample_id: the sample, when known.
    """

    def __init__(self, reason: str, *, where: str, mend: str, sample_id: str | None = None) -> None:
        self.reason, self.where, self.mend, self.sample_id = reason, str(where), mend, sample_id
        super().__init__(f"{self.where}: {reason}. Mend: {mend}")

    def __reduce__(self) -> tuple:
        # Keyword-only arguments do not survive the default pickling between processes.
        return (_rebuild, (self.reason, self.where, self.mend, self.sample_id))

    def bare(self) -> BadSample:
        """The same words without the traceback, which keeps alive whatever was read when it was raised."""
        return _rebuild(self.reason, self.where, self.mend, self.sample_id)

    def to_dict(self) -> dict[str, str | None]:
        """One row of quarantine.jsonl."""
        return {"where": self.where, "reason": self.reason, "mend": self.mend, "sample_id": self.sample_id}


def _rebuild(reason: str, where: str, mend: str, sample_id: str | None) -> BadSample:
    return BadSample(reason, where=where, mend=mend, sample_id=sample_id)
