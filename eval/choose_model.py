"""Which model a name on the command line means."""

from __future__ import annotations

from pathlib import Path

from medvlm.eval.models import Answerer, CheckpointModel, ConstantModel, OracleModel, ReplayModel

NAMES = """a checkpoint folder or hub id; oracle (writes the reference); constant:TEXT; replay:RUN (the answers of an earlier
run)"""


def choose_model(name: str, *, device: str | None = None, batch_size: int = 8) -> Answerer:
    """The answerer called ``name``, see NAMES.

    Args:
        device, batch_size: of a model that runs here.

    Raises:
        ValueError: nothing is called so, or it cannot be loaded.
    """
    kind, _, rest = name.partition(":")
    match kind:
        case "oracle":
            return OracleModel()
        case "constant":
            return ConstantModel(rest)
        case "replay":
            return ReplayModel(Path(rest))
    return CheckpointModel(name, device=device, batch_size=batch_size)
