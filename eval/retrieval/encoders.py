"""Who embeds: any text encoder of transformers, an endpoint, vectors that lie on the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import sha256_of
from medvlm.eval.retrieval.corpus import Passage

Role = Literal["queries", "corpus"]
Pooling = Literal["mean", "cls", "last"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")


class Encoder(Protocol):
    """Queries and documents -> vectors.

    Attributes:
        name: as on the command line.
        settings: all that decides the vectors besides the name.
        reads_images: whether pictures are looked at.
        batch: passages a call.
    """

    name: str
    settings: dict[str, Any]
    reads_images: bool
    batch: int

    def embed(self, passages: Sequence[Passage], role: Role) -> np.ndarray:
        """(N, size) float32, in order."""
        ...

    def cut(self, passages: Sequence[Passage], role: Role) -> int:
        """How many of them are longer than the encoder reads, and so were cut off at their end."""
        ...


def pool(states: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """One vector a text.

    Args:
        states: (B, T, hidden).
        mask: (B, T) 1 at the tokens of the text; padding may stand on either side.
        how: mean over the tokens; "cls": the first of them; "last": the last of them.

    Returns:
        (B, hidden) float32.
    """
    states = states.float()
    rows = torch.arange(len(states), device=states.device)
    if how == "mean":
        kept = mask[..., None].float()
        return (states * kept).sum(1) / kept.sum(1)
    first = mask.int().argmax(1)
    return states[rows, first if how == "cls" else first + mask.sum(1) - 1]


def weights_of(path: str) -> dict[str, str]:
    """SHA-256 of the weights in a folder: another training under the same name is another model. Empty for a hub id."""
    folder = Path(path)
    files = sorted(file for end in ("safetensors", "bin") for file in folder.glob(f"*.{end}"))
    return {file.name: sha256_of(file) for file in files}


class TransformersEncoder:
    """A text encoder of transformers, from a folder or the hub.

    Args:
        pooling: how its last hidden states become one vector; stated by the user, because no file says it reliably.
        query_prefix, document_prefix: put before texts, as the model's card asks for ("query: ").
        max_length: tokens, the rest is cut off; see ``cut``.

    Raises:
        ValueError: it cannot be loaded.
    """

    reads_images = False

    def __init__(
        self,
        path: str,
        *,
        pooling: Pooling,
        query_prefix: str = "",
        document_prefix: str = "",
        max_length: int = 512,
        batch: int = 32,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
            model = AutoModel.from_pretrained(path, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise ValueError(f"no text encoder can be loaded from {path}: {error}") from error
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)
        self._pooling: Pooling = pooling
        self._prefix = {"queries": query_prefix, "corpus": document_prefix}
        self._max_length, self.batch = max_length, batch
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.name = f"transformers:{path}"
        self.settings = {
            "pooling": pooling, "query_prefix": query_prefix, "document_prefix": document_prefix,
            "max_length": max_length, "revision": getattr(model.config, "_commit_hash", None),
            "weights": weights_of(path),
        }  # fmt: skip

    @torch.inference_mode()
    def embed(self, passages: Sequence[Passage], role: Role) -> np.ndarray:
        texts = [self._prefix[role] + passage.text for passage in passages]
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt",
            return_overflowing_tokens=False,
        )  # fmt: skip
        inputs = {key: value.to(self._device) for key, value in tokens.items()}
        states = self._model(**inputs).last_hidden_state
        return pool(states, inputs["attention_mask"], self._pooling).cpu().numpy()

    def cut(self, passages: Sequence[Passage], role: Role) -> int:
        texts = [self._prefix[role] + passage.text for passage in passages]
        return sum(len(row) > self._max_length for row in self._tokenizer(texts, verbose=False)["input_ids"])


def prepared(folder: Path, role: Role, names: Sequence[str]) -> np.ndarray:
    """Vectors that somebody else has made.

    ``role``.npz holds "ids" (text) and "vectors" (N, size); or ``role``.npy holds the vectors and ``role``.ids.json the
    list of ids. More than is needed may be there.

    Raises:
        BadSample: no such file, ids and vectors of another number, an id that stands twice or is not there.
    """
    archive, plain = folder / f"{role}.npz", folder / f"{role}.npy"
    try:
        if archive.is_file():
            with np.load(archive, allow_pickle=False) as held:
                ids, vectors = [str(name) for name in held["ids"]], np.asarray(held["vectors"], np.float32)
        elif plain.is_file():
            ids = [str(name) for name in json.loads((folder / f"{role}.ids.json").read_text(encoding="utf-8"))]
            vectors = np.asarray(np.load(plain, allow_pickle=False), np.float32)
        else:
            raise BadSample(
                f"neither {role}.npz nor {role}.npy is here", where=str(folder), mend="save ids and vectors of each"
            )
    except (OSError, ValueError, KeyError) as error:
        raise BadSample(
            f"{role} cannot be read ({error})", where=str(folder), mend='save arrays "ids" and "vectors", no objects'
        ) from error
    if vectors.ndim != 2 or len(ids) != len(vectors) or len(set(ids)) < len(ids):
        reason = f"{role}: {len(ids)} ids, {len(set(ids))} different ones, vectors of shape {vectors.shape}"
        raise BadSample(reason, where=str(folder), mend="one row per id")
    places = {name: place for place, name in enumerate(ids)}
    lost = [name for name in names if name not in places]
    if lost:
        raise BadSample(
            f"{role}: {len(lost)} of {len(names)} are not embedded ({lost[0]!r} is one)",
            where=str(folder),
            mend="embed them too",
        )
    return vectors[[places[name] for name in names]]
