"""MedMNIST: <flag>[_<size>].npz with {train,val,test}_{images,labels} of 8-bit numbers, compressed as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recipe_fixtures.writing import Fixture

LABELS: dict[str, dict[str, list[list[int]]]] = {
    "pathmnist": {"train": [[7], [0]], "val": [[8]], "test": [[2]]},
    "pneumoniamnist": {"train": [[1]], "val": [[0]], "test": [[1]]},
    "retinamnist_64": {"train": [[3]], "val": [[0]], "test": [[4]]},
    "organmnist3d": {"train": [[0]], "val": [[1]], "test": [[10]]},
    "chestmnist": {"train": [[0, 1, 0, 0, 1] + [0] * 9], "val": [[0] * 14], "test": [[1] + [0] * 13]},
}


def shape(flag: str) -> tuple[int, ...]:
    size = int(flag.partition("_")[2] or 28)
    if flag.endswith("3d"):
        return (size,) * 3
    return (size, size, 3) if flag.startswith(("path", "retina")) else (size, size)


def arrays(flag: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(len(flag))
    made: dict[str, np.ndarray] = {}
    for part, labels in LABELS[flag].items():
        made[f"{part}_images"] = random.integers(0, 256, (len(labels), *shape(flag)), dtype=np.uint8)
        made[f"{part}_labels"] = np.array(labels, np.uint8)
    return made


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for flag in LABELS:
        np.savez_compressed(folder / f"{flag}.npz", **arrays(flag))


def spoil(folder: Path) -> None:
    path = arrays("pathmnist")
    path["train_labels"][1] = 9
    path["val_labels"] = path["val_labels"][:0]
    np.savez_compressed(folder / "pathmnist.npz", **path)
    organs = arrays("organmnist3d")
    del organs["test_labels"]
    np.savez_compressed(folder / "organmnist3d.npz", **organs)


MEND = "Mend: download the file again; its MD5 stands in medmnist/info.py"
FIXTURE = Fixture(
    recipe="medmnist",
    write=write,
    spoil=spoil,
    # choice and open; closed; closed; choice and open; 2 present and 2 absent findings, then all 14 of them
    samples=2 * 4 + 3 + 3 + 2 * 3 + (4 + 14 + 14),
    refusals=(
        "{folder}/organmnist3d.npz: no array 'test_labels' in the archive. " + MEND,
        "{folder}/pathmnist.npz:train_labels[1]: label 9 means nothing: the labels run from 0 to 8. " + MEND,
        "{folder}/pathmnist.npz: val_labels has shape (0, 1), expected (1, 1). " + MEND,
    ),
)
