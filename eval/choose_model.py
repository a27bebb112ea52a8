"""Which model a name on the command line means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medvlm.eval.endpoint import EndpointModel, EndpointOptions, endpoint_from
from medvlm.eval.models import Answerer, ConstantModel, OracleModel, RandomModel, ReplayModel
from medvlm.eval.predictions import PredictionsModel
from medvlm.eval.slice_sets import SlicePolicy

NAMES = """a checkpoint folder or hub id; transformers:ID_OR_FOLDER (any vision-language model of transformers);
endpoint:URL#MODEL_ID (an OpenAI-compatible server); predictions:FILE; replay:RUN (the answers of an earlier run);
oracle (writes the reference); constant:TEXT; random:SEED"""

DTYPES = ("float32", "bfloat16", "float16")
AnswerBy = Literal["text", "likelihood"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model answers, as far as that is not the model's own.

    Attributes:
        device: "cuda", "cpu", ...; None: the GPU when there is one.
        batch_size: requests that a model here answers at once.
        dtype: of its weights, one of DTYPES; None: float32.
        confidence, answer_by: as in loaded_model.LoadedModel.
        slices: how volumes and clips become pictures; None: a checkpoint shows them as it was trained to, a model
            without 3D by the default policy.
        endpoint: how a server is asked; None: as EndpointOptions says.
        trust_remote_code: run code that comes with the weights of a transformers: model.
    """

    device: str | None = None
    batch_size: int = 8
    dtype: str | None = None
    confidence: bool = False
    answer_by: AnswerBy = "text"
    slices: SlicePolicy | None = None
    trust_remote_code: bool = False
    endpoint: EndpointOptions | None = None

    def only(self, *read: str, name: str) -> None:
        """Raise ValueError when an option is set that a model does not read: it would change nothing."""
        flags = {
            "dtype": "--dtype", "confidence": "--confidence", "answer_by": "--answer-by", "slices": "--slices",
            "trust_remote_code": "--trust-remote-code",
        }  # fmt: skip
        for field, flag in flags.items():
            if field not in read and getattr(self, field) != getattr(ModelOptions(), field):
                raise ValueError(f"{flag} means nothing to the model {name!r}; leave it out")

    def of_local(self) -> dict[str, Any]:
        """Arguments of a model that runs here."""
        return {
            "device": self.device,
            "batch_size": self.batch_size,
            "dtype": self.dtype or "float32",
            "confidence": self.confidence,
            "answer_by": self.answer_by,
            "slices": self.slices,
        }


def choose_model(name: str, options: ModelOptions | None = None) -> Answerer:
    """The answerer called ``name``, see NAMES.

    Raises:
        ValueError: nothing is called so, it cannot be loaded, or an option means nothing to it.
    """
    options = options or ModelOptions()
    kind, _, rest = name.partition(":")
    match kind:
        case "oracle":
            options.only(name=name)
            return OracleModel()
        case "constant":
            options.only(name=name)
            return ConstantModel(rest)
        case "replay":
            options.only(name=name)
            return ReplayModel(Path(rest))
        case "random":
            options.only(name=name)
            if not (rest or "0").isdigit():
                raise ValueError(f"random:{rest} needs a seed: random:0")
            return RandomModel(int(rest or 0))
        case "predictions":
            options.only(name=name)
            return PredictionsModel(Path(rest))
        case "endpoint":
            options.only("confidence", "slices", name=name)
            url, model = endpoint_from(rest)
            return EndpointModel(url, model, options.endpoint, policy=options.slices, confidence=options.confidence)
        case "transformers":
            from medvlm.eval.foreign import transformers_model

            return transformers_model(rest, options)
    if kind in ("http", "https"):
        raise ValueError(f"{name} is an address; a server is asked by --model 'endpoint:{name}#MODEL_ID'")
    from medvlm.eval.loaded_model import CheckpointModel

    options.only("dtype", "confidence", "answer_by", "slices", name=name)
    try:
        return CheckpointModel(name, **options.of_local())
    except OSError as error:  # no such folder, or a hub id that is not there, gated or out of reach
        raise ValueError(f"the model {name!r} cannot be loaded: {error}") from error
