"""timm and open_clip, imported when an encoder of theirs is asked for and not before.

Both import torchvision, which a CPU build of torch cannot load as it stands: torchvision 0.28 registers a fake kernel
for ``torchvision::nms`` whose schema only its CUDA library declares. Declaring the schemas first is enough for what is
used here (transforms and models; ``nms`` itself and the JPEG and PNG decoders stay unusable). On a CUDA build nothing
is done. transformers imports torchvision too once it is installed, so ``medvlm.model`` imports this module before
transformers, and importing it is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import torch

_MISSING_ON_CPU = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []
"""A Library's declarations last as long as the object."""


def timm() -> ModuleType:
    """The module timm.

    Raises:
        ModuleNotFoundError: it, or torchvision, is not installed; says what to install.
    """
    return _import("timm", "timm")


def open_clip() -> ModuleType:
    """The module open_clip; it brings timm.

    Raises:
        ModuleNotFoundError: it, or torchvision, is not installed; says what to install.
    """
    return _import("open_clip", "open_clip_torch")


def _import(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a {name} encoder needs {package} and torchvision, and {error.name} is not installed; "
            "run pip install -e '.[encoders]' -c constraints.txt",
            name=error.name,
        ) from error


def _declare_torchvision_operators() -> None:
    if torch.version.cuda is not None or "torchvision" in sys.modules or _kept:
        return
    if importlib.util.find_spec("torchvision") is None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _MISSING_ON_CPU:
        library.define(schema)
    _kept.append(library)


_declare_torchvision_operators()
