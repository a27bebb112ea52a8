"""A stage whose encoder is frozen: what it makes of a visual is made once, kept on disk, and read from then on."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from medvlm.data_recipes.feature_cache import FeatureCache
from medvlm.model.batch import PackedBatch
from medvlm.model.loading import Model
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.train.config import Curriculum, Stage
from medvlm.train.engine import Engine
from medvlm.train.lora import component_of
from medvlm.train.objectives.objective import Loss, Objective

_OBJECTIVES = ("supervised", "preference")
_WAITING = 64
"""Most features that wait to be written."""


def no_cache_because(model: Model, curriculum: Curriculum, stage: Stage) -> str:
    """Why the features of ``stage`` cannot be kept; empty when they can."""
    if not isinstance(model, MedVLMForConditionalGeneration):
        return "existing vision-language models encode and project in one pass"
    if any(p.requires_grad and component_of(model, n) == "vision" for n, p in model.named_parameters()):
        return "the encoder trains"
    if any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.vision.modules()):
        return "the encoder has dropout, so that it makes something else of a visual each time"
    if stage.objective not in _OBJECTIVES:
        return f"objective {stage.objective!r} needs the patches"
    if curriculum.engine.sequence_parallel > 1:
        return "processes share packs (engine.sequence_parallel)"
    return ""


def open_cache(
    model: Model, curriculum: Curriculum, stage: Stage, device: torch.device, say: Callable[[str], None]
) -> FeatureCache | None:
    """The cache of ``stage``, when the configuration asks for one and the stage can have it; call it before the engine
    takes the model."""
    if not curriculum.data.feature_cache:
        return None
    because = no_cache_because(model, curriculum, stage)
    if because:
        say(f"keeps no features: {because}")
        return None
    assert isinstance(model, MedVLMForConditionalGeneration)
    gib = curriculum.data.feature_cache_gib
    folder = Path(curriculum.output_dir) / "features"
    say(f"keeps what the frozen encoder makes of visuals in {folder}")
    settings = f"{curriculum.engine.kind} {curriculum.engine.precision}"
    encoder = encoder_fingerprint(model, settings, device)
    return FeatureCache(folder, encoder, None if gib is None else int(gib * 2**30))


def encoder_fingerprint(model: MedVLMForConditionalGeneration, arithmetic: str, device: torch.device) -> str:
    """SHA-256 (hex) of all that decides what the encoder makes of a visual: weights, config, arithmetic."""
    vision = model.vision
    settings = [vision.config.to_dict(), list(model.merge), arithmetic, device.type, vision.config._attn_implementation]
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(vision.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(np.ascontiguousarray(tensor.detach().cpu().flatten().view(torch.uint8).numpy()).data)
    return found.hexdigest()


class WithFeatures:
    """An objective whose packs come with features: those that the loader found, and the others encoded here and kept.

    A visual is encoded by itself, so that its features do not depend on what else was in the pack when it was met
    first: a resumed training then continues to the bit.

    Attributes:
        encoded: visuals that the encoder ran over.
        read: visuals whose features were found.
    """

    def __init__(self, objective: Objective, cache: FeatureCache) -> None:
        self.objective, self.cache = objective, cache
        self.encoded = self.read = 0
        self._blank: Tensor | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="medvlm-features")
        self._waiting: deque[Future[None]] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def prepare(self, engine: Engine, packs: Sequence[PackedBatch]) -> list[PackedBatch]:
        """See ``Objective``."""
        if not self.objective.prepares:
            return list(packs)
        return self.objective.prepare(engine, [self.complete(engine.model, p.to(engine.device)) for p in packs])

    def __call__(self, model: nn.Module, batch: PackedBatch) -> Loss:
        """See ``Objective``."""
        return self.objective(model, self.complete(model, batch))

    @torch.no_grad()
    def complete(self, model: nn.Module, batch: PackedBatch) -> PackedBatch:
        """``batch`` with the features of all its visuals; of a pack of text, of the blank one that stands for them."""
        if batch.features is not None:
            return batch
        missing = [index for index, visual in enumerate(batch.named) if visual.features is None]
        blank = self._blank is None and len(batch.grids) == 0
        more = _more(model, len(missing) + blank, batch.tokens.device)
        sizes = batch.grids.prod(dim=1)[missing].tolist()
        made: dict[int, Tensor] = {}
        for index, patches in zip(missing, batch.patches.split(sizes) if sizes else (), strict=True):
            made[index] = self._encode(model, batch, index, patches)
        self.encoded, self.read = self.encoded + len(missing), self.read + len(batch.named) - len(missing)
        text = replace(batch, grids=batch.grids[:0])
        for _ in range(more + blank):
            self._blank = model(run=lambda inner: inner.encode_pack(text))
        if len(batch.grids) == 0:
            return replace(batch, features=self._blank)
        device = batch.tokens.device
        found = [made[i] if i in made else visual.features.to(device) for i, visual in enumerate(batch.named)]
        return replace(batch, features=torch.cat(found), patches=batch.patches[:0], named=())

    def _encode(self, model: nn.Module, batch: PackedBatch, index: int, patches: Tensor) -> Tensor:
        own = slice(index, index + 1)
        visual = (patches, batch.grids[own], batch.spacing[own], batch.axis_kinds[own])
        features = model(run=lambda inner: inner.encode(*visual))
        while len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()
        kept = features.detach().to("cpu", copy=True)
        self._waiting.append(self._writer.submit(self.cache.put, batch.named[index], kept))
        return features

    def __enter__(self) -> WithFeatures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until all features are written.

        Raises:
            OSError: they could not be.
        """
        self._writer.shutdown(wait=True)
        for future in self._waiting:
            future.result()


def _more(model: nn.Module, passes: int, device: torch.device) -> int:
    """Passes of the encoder that this rank must add to its own ``passes``, before it makes any.

    Under ZeRO-3 and FSDP each is a collective, so all ranks make as many as the one that must make most.
    """
    divided = any(hasattr(p, "ds_id") for name, p in model.named_parameters() if "vision." in name)
    divided = divided or any(isinstance(module, FSDPModule) for module in model.modules())
    if not divided or not dist.is_initialized() or dist.get_world_size() == 1:
        return 0
    most = torch.tensor(passes, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most) - passes
