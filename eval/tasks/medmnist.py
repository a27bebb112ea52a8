"""MedMNIST v2 and MedMNIST+: the class of a small picture or volume, 18 sets, each a task.

Yang et al., Scientific Data 10:41 (2023). Read by the recipe medmnist from <flag>.npz, or from <flag>_64.npz, _128 or
_224 where that is the only size: the items are the same. Classes are lettered options or, where there are two or they
are grades, answers in words; the 14 findings of ChestMNIST are asked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipes import medmnist
from medvlm.data_recipes.recipes.medmnist_flags import FLAGS
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task
from medvlm.eval.tasks.examination import missing
from medvlm.eval.tasks.label_sets import together

TEST = {
    "pathmnist": 7180, "chestmnist": 22433, "dermamnist": 2005, "octmnist": 1000, "pneumoniamnist": 624,
    "retinamnist": 400, "breastmnist": 156, "bloodmnist": 3421, "tissuemnist": 47280, "organamnist": 17778,
    "organcmnist": 8216, "organsmnist": 8827, "organmnist3d": 610, "nodulemnist3d": 310, "adrenalmnist3d": 298,
    "fracturemnist3d": 240, "vesselmnist3d": 382, "synapsemnist3d": 352,
}  # fmt: skip
"""Set -> items of its test split, medmnist/info.py of version 3.0.2."""
_SIZES = ("", "_64", "_128", "_224")
_FAULTS = {
    "organcmnist": ("The first release counts 8,268 test items, version 3 has 8,216.",),
    "organsmnist": ("The first release counts 8,829 test items, version 3 has 8,827.",),
    "chestmnist": (
        "Labels were mined from reports; the pictures are those of ChestX-ray14 under no common name.",
        "Published figures are AUC over probabilities of each finding, which a text does not give.",
    ),
    "adrenalmnist3d": ("Shapes (masks), not intensities.",),
    "vesselmnist3d": ("Shapes (masks), not intensities.",),
}


def _file(folder: Path, flag: str) -> Path:
    """The one archive of the set.

    Raises:
        BadSample: there is none, or several sizes and not the smallest.
    """
    found = [folder / f"{flag}{size}.npz" for size in _SIZES if (folder / f"{flag}{size}.npz").is_file()]
    if not found:
        raise missing(folder, f"{flag}.npz", medmnist.RECIPE.url)
    if found[0].stem != flag and len(found) > 1:
        raise BadSample(
            f"{len(found)} sizes of {flag} are there",
            where=str(folder),
            mend="leave one, so that it is clear which is asked",
        )
    return found[0]


def _read(folder: Path, *, flag: str) -> Iterator[Sample | BadSample]:
    path = _file(folder, flag)
    samples = medmnist.archive_samples(path, flag, {"test": "test"})
    if FLAGS[flag].findings:
        prompt = "Which findings does this chest radiograph show?"
        yield from together(samples, prompt=prompt, labels=len(FLAGS[flag].answers), where=str(path))
        return
    # The recipe asks a class as a choice and, once more, openly: a test item is one question.
    yield from (one for one in samples if isinstance(one, BadSample) or not one.sample_id.endswith("/open"))


def _example(folder: Path, *, flag: str) -> None:
    about, count = FLAGS[flag], 24
    generator = np.random.default_rng(len(flag))
    side = (6, 6, 6) if flag.endswith("3d") else (28, 28)
    arrays: dict[str, np.ndarray] = {}
    for part, items in (("train", 2), ("val", 2), ("test", count)):
        arrays[f"{part}_images"] = generator.integers(0, 255, (items, *side), dtype=np.uint8)
        if about.findings:
            places = np.arange(items)[:, None] + np.arange(len(about.answers))[None, :]
            arrays[f"{part}_labels"] = (places % 5 == 0).astype(np.uint8)
        else:
            arrays[f"{part}_labels"] = (np.arange(items)[:, None] % len(about.answers)).astype(np.uint8)
    np.savez(folder / f"{flag}.npz", **arrays)  # type: ignore[arg-type]


def _task(flag: str) -> Task:
    about = FLAGS[flag]
    title = flag.removesuffix("3d").removesuffix("mnist").capitalize() + "MNIST" + "3D" * flag.endswith("3d")
    classes = f"{len(about.answers)} {'findings' if about.findings else 'classes'}"
    return Task(
        name=f"medmnist-{flag.replace('mnist', '')}",
        version=1,
        title=f"{title}, test",
        about=f"{classes}; {'volumes' if flag.endswith('3d') else 'pictures'}, {about.modality}.",
        folder="medmnist",
        read=partial(_read, flag=flag),
        n=TEST[flag],
        n_source="medmnist/info.py of MedMNIST 3.0.2",
        example=partial(_example, flag=flag),
        licence=about.licence,
        url=medmnist.RECIPE.url,
        citation=medmnist.RECIPE.citation,
        faults=(
            "Published accuracies are of classifiers trained on the training split; a model that is asked in words was "
            "not, and AUC needs probabilities of all classes.",
            "No file names patients: each item counts as its own patient.",
            *_FAULTS.get(flag, ()),
        ),
    )


TASKS = tuple(_task(flag) for flag in TEST)
