"""How far copies of pictures lie from each other by their perceptual hash, and how far different pictures do.

Usage:
    python -m medvlm.scripts.bench.near_copies FOLDER    # every PNG and JPEG under it; the table of docs/data-checks.md
"""

from __future__ import annotations

import argparse
import io
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Pil
from PIL import ImageEnhance

from medvlm.data_recipes.checks.copies import NEAR
from medvlm.data_recipes.checks.hashing import as_words, perceptual_hash
from medvlm.data_recipes.checks.near import MOST

SAMPLE, SIDE = 200, 512


def changed(picture: Pil.Image, rng: np.random.Generator) -> Iterator[tuple[str, Pil.Image]]:
    """Copies as they turn up in collections."""
    width, height = picture.size
    values = np.asarray(picture, np.float64)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=30)
    yield "JPEG quality 30", Pil.open(io.BytesIO(encoded.getvalue())).convert("L")
    yield "half the size", picture.resize((width // 2, height // 2))
    yield "224 x 224", picture.resize((224, 224))
    noisy = np.clip(values + rng.normal(0, 5, values.shape), 0, 255)
    yield "noise of 5 grey levels", Pil.fromarray(noisy.astype(np.uint8))
    yield "brightness 1.2", ImageEnhance.Brightness(picture).enhance(1.2)
    yield "contrast 1.4", ImageEnhance.Contrast(picture).enhance(1.4)
    yield "gamma 0.7", Pil.fromarray((255 * (values / 255) ** 0.7).astype(np.uint8))
    for share in (0.01, 0.02, 0.04):
        left, top = int(width * share), int(height * share)
        yield f"cropped by {100 * share:.0f} % on each side", picture.crop((left, top, width - left, height - top))
    yield "turned by 2 degrees", picture.rotate(2)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m medvlm.scripts.bench.near_copies", description=__doc__)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    pictures, hashes = [], []
    for path in sorted(p for p in given.folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg")):
        picture = Pil.open(path).convert("L")
        picture.thumbnail((SIDE, SIDE))
        found = perceptual_hash(np.asarray(picture, np.float32) / 255)
        if found is not None:
            pictures.append(picture)
            hashes.append(found)
    words = as_words(hashes)
    apart = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2)
    nearest = np.sort(apart[np.triu_indices(len(words), 1)])[:5]
    print(f"{len(words)} pictures; the nearest pairs of different files differ in {nearest.tolist()} bits")

    rng = np.random.default_rng(0)
    moved: dict[str, list[int]] = defaultdict(list)
    for number in random.Random(0).sample(range(len(pictures)), min(SAMPLE, len(pictures))):
        for name, copy in changed(pictures[number], rng):
            other = perceptual_hash(np.asarray(copy, np.float32) / 255)
            moved[name].append(256 if other is None else (int(other, 16) ^ int(hashes[number], 16)).bit_count())
    print(f"| change | median, 95th percentile, most | found within {NEAR}, {MOST} bits |\n|---|---|---|")
    for name, bits_of in moved.items():
        bits = np.array(bits_of)
        middle, high, most = np.percentile(bits, [50, 95, 100])
        shares = ", ".join(f"{100 * (bits <= limit).mean():.0f} %" for limit in (NEAR, MOST))
        print(f"| {name} | {middle:.0f}, {high:.0f}, {most:.0f} | {shares} |")


if __name__ == "__main__":
    main()
