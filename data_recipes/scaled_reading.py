"""Reading a visual for a processor: JPEG pictures no larger than it has use for, everything else whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from medvlm.data_recipes.readers import picture, reader_of, require_kind
from medvlm.data_recipes.sample import VisualRef
from medvlm.model.loading import Processor
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.visual import Visual


def read_for(ref: VisualRef, root: Path, processor: Processor) -> Visual:
    """What ``read(ref, root)`` returns, except that a JPEG much larger than what the processor will resample it to is
    decoded smaller (see medvlm.data_recipes.readers.picture.read).

    The scale depends on the file and on the processor's budget only: training, evaluation and use see the same pixels.
    Processors of existing vision-language models resample by rules of their own, and get whole pictures.

    Raises:
        BadSample: as ``read``.
    """
    path, reader = reader_of(ref, root)
    if reader is picture.read and isinstance(processor, MedVLMProcessor):
        reader = partial(picture.read, at_least=partial(_plane_of, processor))
    return require_kind(reader(path, **ref.options), ref, path)


def _plane_of(processor: MedVLMProcessor, whole: tuple[int, int]) -> tuple[int, int]:
    """(H, W) that ``processor`` resamples an image of ``whole`` to."""
    try:
        _, height, width = processor.rule.target_size((1, *whole), "image")
    except ValueError:
        return whole  # the budget is too small for any image: patch() says so
    return height, width
