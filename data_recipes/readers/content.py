"""What a file is, told from its first bytes: extensions lie."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

Format = Literal["picture", "dicom", "nifti", "array", "archive", "clip"]

HEAD = 1024
"""Bytes read to tell a format; the last magic number tested lies at byte 344 + 4 of a NIfTI header."""

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"GIF87a", b"GIF89a",
             b"\0\0\0\x0cjP  \r\n\x87\n", b"\xffO\xffQ")  # fmt: skip
_CLIPS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"0&\xb2u\x8ef\xcf\x11", b"FLV\x01", b"OggS")


def head_of(path: Path) -> bytes:
    """The first bytes of the file, gunzipped when it is gzip; what is there when it is shorter or damaged."""
    with path.open("rb") as file:
        raw = file.read(HEAD)
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        with gzip.open(path) as file:
            return file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        # Damaged beyond its header: the bytes that do come out still tell what the file was meant to be.
        try:
            return zlib.decompressobj(wbits=31).decompress(raw, HEAD)
        except zlib.error:
            return b""


def is_gzip(path: Path) -> bool:
    """Whether the file's first bytes say gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_bare_dicom(head: bytes) -> bool:
    """A data set without preamble: its first element is of group 0002 or 0008, in either byte order.

    Explicit: a known VR stands at byte 4. Implicit: a length that is small and even.
    """
    if len(head) < 16:
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))  # type: ignore[arg-type]
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if head[4:6] in (b"UL", b"OB", b"UI", b"CS", b"SH", b"DA", b"TM", b"LO", b"AE"):
            return True
        length = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
        if length <= 256 and length % 2 == 0 and order == "little":
            return True
    return False


def _is_nifti_or_kin(head: bytes) -> bool:
    """NIfTI-1/2 and Analyze by header size and magic; MGH, MINC-1 and PAR by their own marks: what nibabel reads."""
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return True
    for order in ("little", "big"):
        if int.from_bytes(head[:4], order) == 348 and len(head) >= 348:  # type: ignore[arg-type]
            dims = int.from_bytes(head[40:42], order)  # type: ignore[arg-type]
            if 1 <= dims <= 7:
                return True
    mgh = [int.from_bytes(head[i : i + 4], "big") for i in range(0, 24, 4)]
    if len(head) >= 284 and mgh[0] == 1 and all(0 < n < 65536 for n in mgh[1:5]) and mgh[5] in (0, 1, 3, 4):
        return True
    return head.startswith((b"CDF\x01", b"CDF\x02")) or b"DATA DESCRIPTION FILE" in head[:200]


def format_of(path: Path) -> Format | None:
    """Which reader the file is for; None when no reader knows it. Reads HEAD bytes.

    The .img half of a NIfTI or Analyze pair has no magic number: it is known by the .hdr beside it.
    """
    head = head_of(path)
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(b"\x93NUMPY"):
        return "array"
    if head.startswith(b"PK\x03\x04") and _first_name(head).endswith(b".npy"):
        return "archive"
    if head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "picture"
    if head[4:8] == b"ftyp":
        return None if head[8:12] in (b"heic", b"heix", b"mif1", b"avif") else "clip"
    if head.startswith(_CLIPS) or head[4:8] in (b"moov", b"mdat", b"wide") or _is_other_clip(head):
        return "clip"
    if _is_nifti_or_kin(head) or header_of_pair(path) != path:
        return "nifti"
    return "dicom" if _is_bare_dicom(head) else None


def _is_other_clip(head: bytes) -> bool:
    """AVI, and MPEG transport stream (a sync byte every 188 bytes)."""
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return True
    return len(head) > 564 and all(head[i] == 0x47 for i in (0, 188, 376, 564))


def _first_name(head: bytes) -> bytes:
    """Name of the first file of a zip archive (PKWARE APPNOTE 6.3, section 4.3.7)."""
    return head[30 : 30 + int.from_bytes(head[26:28], "little")]


def header_of_pair(path: Path) -> Path:
    """The .hdr(.gz) that belongs to an .img(.gz) when it lies beside it and is a NIfTI or Analyze header."""
    for end in (".img", ".img.gz"):
        if path.name.lower().endswith(end):
            stem = path.name[: -len(end)]
            for name in (stem + ".hdr", stem + ".hdr.gz"):
                header = path.with_name(name)
                if header.is_file() and _is_nifti_or_kin(head_of(header)):
                    return header
    return path
