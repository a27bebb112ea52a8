"""Small made-up pictures for the examples of tasks: grey noise with a brighter square, drawn from their name alone."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Pil

HEIGHT, WIDTH = 24, 32


def drawn(name: str) -> Pil.Image:
    """A grey picture of HEIGHT x WIDTH pixels, another one for every name."""
    generator = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
    pixels = generator.integers(0, 160, (HEIGHT, WIDTH), dtype=np.uint8)
    top, left = generator.integers(0, HEIGHT - 8), generator.integers(0, WIDTH - 8)
    pixels[top : top + 8, left : left + 8] = 230
    return Pil.fromarray(pixels)


def draw(path: Path) -> None:
    """Write the picture named by ``path`` as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn(path.stem).save(path)


def png_bytes(name: str) -> bytes:
    """The picture as an uncompressed PNG: the same bytes with every version of zlib."""
    buffer = BytesIO()
    drawn(name).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()
