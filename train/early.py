"""A configuration and the files that it names, checked before anything that takes seconds to import.

What is found here is told in a moment; what needs the model or the samples is told later by whoever reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.config import Curriculum, ModelSource, Stage, load_curriculum

LOOKED_AT = 8
"""Rows at the beginning of each manifest that are looked at."""


def load_checked(path: str | Path, overrides: Iterable[str] = (), only: str | None = None) -> Curriculum:
    """The curriculum at ``path``, if the files that it names are there and look as they must.

    Args:
        only: the stage that will be run; None: all that are not done. Files of the others need not be there.

    Raises:
        BadConfig: the configuration is wrong, or names a folder that is not there.
        BadSample: a manifest that is not there, is empty, or is not what its stage needs.
    """
    curriculum = load_curriculum(path, overrides)
    if only is not None:
        curriculum.stage(only)
    _check_sources(curriculum.model)
    root = Path(curriculum.data.root)
    if not root.is_dir():
        raise BadConfig(
            f"data.root is {str(root)!r}, and there is no such folder", where=str(path),
            mend="check the path; a relative one starts at the working directory, here " + str(Path.cwd()),
        )  # fmt: skip
    pending = []
    for number, stage in enumerate(curriculum.stages, start=1):
        done = Path(curriculum.output_dir) / "stages" / f"{number:02d}-{stage.name}" / "done.json"
        if only not in (None, stage.name) or done.is_file():
            continue
        pending.append(stage)
        for source in stage.mixture:
            if "://" not in source.manifest and not (root / source.manifest).is_dir():
                _check_manifest(root / source.manifest, root, stage)
    _check_asked(curriculum, pending, root)
    return curriculum


def _check_asked(curriculum: Curriculum, stages: Iterable[Stage], root: Path) -> None:
    """Questions that a stage asks while it trains are there; its turn may come days later."""
    asking = [stage.name for stage in stages if stage.evaluate_every is not None]
    for name in curriculum.evaluation.manifests if curriculum.evaluation is not None and asking else ():
        if "://" not in name and not (root / name).exists():
            raise BadSample(
                f"no such manifest, and stage {asking[0]!r} asks its questions (evaluate_every)",
                where=str(root / name),
                mend="check evaluation.manifests, which are relative to data.root, or remove evaluate_every",
            )  # fmt: skip


def _check_sources(model: ModelSource) -> None:
    """Folders that look like paths are there, and sizes along z, y, x are three; anything else may be right."""
    parts = {
        "model.pretrained": model.pretrained,
        "model.vision.pretrained": model.vision.get("pretrained"),
        "model.text.pretrained": model.text.get("pretrained"),
        "model.tokenizer.pretrained": model.tokenizer.get("pretrained"),
        "model.tokenizer.chat_template": model.tokenizer.get("chat_template"),
    }
    for key, value in parts.items():
        name = str(value) if value is not None else ""
        looks = name.startswith(("/", "./", "../", "~")) or (name.count("/") > 1 and "://" not in name)
        if (looks and ":" not in name and not Path(name).exists()) or (
            key.endswith("chat_template") and name.endswith(".jinja") and not Path(name).is_file()
        ):
            raise BadConfig(
                f"{key} is {name!r}, and there is no such file or folder", where="configuration",
                mend="check the path; a relative one starts at the working directory, here " + str(Path.cwd()),
            )  # fmt: skip

    for key, sizes in (
        ("model.vision.patch_size", model.vision.get("patch_size")),
        ("model.projector.merge", model.projector.get("merge")),
    ):
        if isinstance(sizes, list) and not (len(sizes) == 3 and all(isinstance(n, int) and n > 0 for n in sizes)):
            raise BadConfig(
                f"{key} is {sizes}", where="configuration", mend="write three numbers from 1 on: along z or time, y, x"
            )


def _check_manifest(manifest: Path, root: Path, stage: Stage) -> None:
    if not manifest.is_file():
        raise _missing(manifest)
    rows = list(_first_rows(manifest))
    if not rows:
        raise BadSample(
            "the manifest has no rows", where=str(manifest), mend="write it again, or leave it out of the mixture"
        )
    wanted = stage.objective == "preference"
    first = f"{manifest}, sample {rows[0].get('sample_id')}"
    if all(("preference" in row) != wanted for row in rows):
        found = "has no preference" if wanted else "has a preference"
        raise BadSample(
            f"the sample {found}, but stage {stage.name!r} is {stage.objective}", where=first,
            mend="name a manifest of pairs for a preference stage, and of conversations for the others",
        )  # fmt: skip
    if all(row.get("split") == "test" for row in rows):
        asked = " with a question" if "question" in rows[0] else ""
        raise BadSample(
            f"a test sample{asked} must not be trained on", where=first,
            mend="name a training manifest",
        )  # fmt: skip
    if stage.objective == "supervised" and all(_answers(row) is False for row in rows):
        raise BadSample(
            f"no assistant speaks in the first {len(rows)} rows, so that there is nothing to learn", where=first,
            mend="end each conversation with what the assistant says",
        )  # fmt: skip
    paths = [path for row in rows for path in _paths(row)]
    if paths and not any((root / path).exists() for path in paths if "://" not in path):
        raise BadSample(
            f"none of the first {len(paths)} images, volumes and clips is there, such as {paths[0]!r}",
            where=f"{manifest}:1", mend=f"check data.root, which is {str(root)!r}: paths in rows are relative to it",
        )  # fmt: skip


def _missing(manifest: Path) -> BadSample:
    there = sorted(path.name for path in manifest.parent.glob("*.jsonl"))[:8] if manifest.parent.is_dir() else []
    return BadSample(
        "no such manifest", where=str(manifest),
        mend="check its path, which is relative to data.root" + (f"; there are {', '.join(there)}" if there else ""),
    )  # fmt: skip


def _first_rows(manifest: Path) -> Iterator[dict[str, Any]]:
    """Rows that are JSON objects; what is wrong with others is told, row by row, when samples are read."""
    with manifest.open("rb") as file:
        for _, line in zip(range(LOOKED_AT), file, strict=False):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else {}


def _answers(row: dict[str, Any]) -> bool | None:
    """Whether an assistant says something; None: the row is of a form that is read later."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        return None
    return any(message.get("role") == "assistant" for message in messages)


def _paths(row: dict[str, Any]) -> Iterator[str]:
    """Files that a row shows; members of shards and rows of an unknown form have none."""
    for message in row.get("messages") or ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("path"), str) and "://" not in part["path"]:
                yield part["path"]
