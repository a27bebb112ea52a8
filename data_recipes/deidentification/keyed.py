"""A secret key and what follows from it: pseudonyms, UIDs and date offsets, the same in every run with that key.

All are HMAC-SHA-256 (RFC 2104) of what they replace. Without the key nobody can compute them or test a guess, which a
plain hash of a record number allows: there are few record numbers, and all of them can be hashed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from pydicom.uid import UID

ENVIRONMENT = "MEDVLM_DEIDENTIFY_KEY"
LEAST_BYTES = 16
PREFIX = "medvlm-"
"""Of every pseudonym, so that a second run and a reader know one."""

_REGISTERED = "1.2.840.10008."
"""Root of the UIDs that the standard defines (SOP classes, transfer syntaxes, well-known frames): they name nobody."""


class Key:
    """A secret. It is never shown: ``repr`` and errors hold nothing of it.

    Args:
        secret: at least LEAST_BYTES bytes, random: ``openssl rand -hex 32 > key.txt``.

    Raises:
        ValueError: too short.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < LEAST_BYTES:
            raise ValueError(
                f"the key has {len(secret)} bytes; at least {LEAST_BYTES} random ones are needed: "
                "openssl rand -hex 32 > key.txt"
            )
        self._secret = secret

    def __repr__(self) -> str:
        return "Key(...)"

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.new(self._secret, f"{purpose}\0{value}".encode(), hashlib.sha256).digest()

    def pseudonym(self, value: str, purpose: str = "patient") -> str:
        """ "medvlm-" and 16 hexadecimal digits in the place of an id."""
        return PREFIX + self._digest(purpose, value.strip()).hex()[:16]

    def uid(self, value: str) -> str:
        """A UID under the root 2.25 (PS3.5 B.2); UIDs that the standard itself registers stay as they are."""
        plain = value.strip(" \0")
        if not plain or plain.startswith(_REGISTERED):
            return plain
        number = bytearray(self._digest("uid", plain)[:16])
        number[6] = number[6] & 0x0F | 0x80  # a UUID of version 8 (RFC 9562): made by a rule of one's own
        number[8] = number[8] & 0x3F | 0x80
        return UID(f"2.25.{int.from_bytes(number, 'big')}")

    def days(self, patient: str) -> int:
        """How many days all dates of ``patient`` move: -3650 to -31, never 0, so that intervals stay."""
        return -31 - int.from_bytes(self._digest("days", patient.strip())[:8], "big") % 3620

    def check(self) -> str:
        """What tells two keys apart and reveals neither; written beside the output, so that a resumed run agrees."""
        return self._digest("check", "").hex()[:16]


def read_key(path: Path | None) -> Key:
    """The key of a file, or of the environment variable MEDVLM_DEIDENTIFY_KEY when ``path`` is None.

    Raises:
        ValueError: there is none, it cannot be read, or it is too short.
    """
    if path is None:
        secret = os.environ.get(ENVIRONMENT, "")
        if not secret:
            raise ValueError(
                f"no key: write one with openssl rand -hex 32 > key.txt and give --key key.txt, or set {ENVIRONMENT}"
            )
        return Key(secret.strip().encode())
    try:
        return Key(path.read_bytes().strip())
    except OSError as error:
        raise ValueError(f"the key file {path} cannot be read ({error.strerror})") from error
