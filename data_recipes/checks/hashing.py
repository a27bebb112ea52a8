"""Perceptual hashes of images, volumes and videos."""

from __future__ import annotations

from collections.abc import Iterator

import imagehash
import numpy as np
from PIL import Image as Pil

from medvlm.model.intensity import percentile_window
from medvlm.model.visual import Image, Video, Visual, Volume

SIDE = 16
"""Of the block of lowest frequencies that is hashed: 16 x 16 = 256 bits. The usual 8 x 8 is too coarse to tell
radiographs of different patients apart."""

FRAMES = 5
"""Frames of a video that are hashed, evenly over its length, the ends left out."""

EVEN = 4.0
"""A picture whose 64 x 64 reduction has a smaller standard deviation, of 255 grey levels, is not hashed: its bits would
be noise, or those of every other even picture."""

_WIDEST = 512


def hashes_of(visual: Visual) -> tuple[str, ...]:
    """pHash (DCT of a 64 x 64 reduction; Zauner 2010, as ImageHash computes it) of 256 bits, in hexadecimal.

    Brightness and contrast are taken out first: each picture is windowed from its 0.5th to its 99.5th percentile.
    """
    found = (perceptual_hash(picture) for picture in pictures_of(visual))
    return tuple(one for one in found if one is not None)


def pictures_of(visual: Visual) -> Iterator[np.ndarray]:
    """(H, W) arrays: the image in grey; the middle slice along each axis; frames of a video in grey."""
    match visual:
        case Image():
            yield visual.pixels.mean(axis=0)
        case Volume():
            for axis, length in enumerate(visual.voxels.shape):
                yield visual.voxels.take(length // 2, axis=axis)
        case Video():
            count = len(visual.frames)
            for place in np.unique(((np.arange(FRAMES) + 0.5) * count / FRAMES).astype(int)):
                yield visual.frames[place].mean(axis=0)


def perceptual_hash(picture: np.ndarray) -> str | None:
    """Of one (H, W) picture; None when it is even."""
    step = max(1, min(picture.shape) // _WIDEST)
    picture = picture[::step, ::step]
    low, high = percentile_window(picture)
    grey = np.clip((picture - low) / (high - low), 0, 1)
    image = Pil.fromarray((grey * 255).astype(np.uint8))
    if np.asarray(image.resize((64, 64), Pil.Resampling.BOX), np.float32).std() < EVEN:
        return None
    return str(imagehash.phash(image, hash_size=SIDE))


def as_words(hashes: list[str] | tuple[str, ...]) -> np.ndarray:
    """Hexadecimal hashes as (N, 4) uint64, for near.HammingIndex."""
    return np.array([[int(h[k : k + 16], 16) for k in range(0, 64, 16)] for h in hashes], np.uint64).reshape(-1, 4)
