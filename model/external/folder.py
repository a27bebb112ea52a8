"""The files of a checkpoint that are not weights: found by folder or hub id, and carried over unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerBase

PROCESSOR_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "medvlm_visuals.json",
)
"""What a processor of transformers is saved as, in any of its versions."""


def local_folder(source: str | Path) -> Path:
    """The folder of ``source``; a hub id is downloaded without its weights."""
    path = Path(source)
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(source), allow_patterns=[*PROCESSOR_FILES, "config.json"]))


def copy_processor_files(source: Path, folder: Path) -> None:
    """Copy the processor's files as they are, so that the copy loads as the source did, without medvlm."""
    for pattern in PROCESSOR_FILES:
        for path in source.glob(pattern):
            if path.is_file():
                target = folder / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with the chat template wherever the folder keeps it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        for name in ("chat_template.json", "processor_config.json"):
            template = _json(folder / name).get("chat_template")
            if template:
                tokenizer.chat_template = template
                break
    return tokenizer


def load_image_processor(folder: Path) -> Any:
    """The family's image processor on Pillow, whatever else is installed: the same pixels on every machine.

    The library's other processors (of clips, and the joint one) need torchvision; they are not loaded.
    """
    return AutoImageProcessor.from_pretrained(folder, backend="pil")


def _json(path: Path) -> dict[str, Any]:
    import json

    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
