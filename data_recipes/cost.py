"""What a sample costs to train on: a*tokens + b*tokens^2 + c*patches + d*patches^2 + e*supervised tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from medvlm.data_recipes.typed_yaml import BadConfig

if TYPE_CHECKING:
    from medvlm.model.flops import ModelFlops


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Weights of the sizes of one sample. The default counts tokens.

    Attributes:
        token: of a token of the decoder.
        token_squared: of the square of a sample's tokens: attention is inside of a sample.
        patch: of a patch of the encoder.
        patch_squared: of the square of a visual's patches: attention is inside of a visual.
        supervised: of a token whose logits are made.
    """

    token: float = 1.0
    token_squared: float = 0.0
    patch: float = 0.0
    patch_squared: float = 0.0
    supervised: float = 0.0

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        wrong = [f"{name} {value}" for name, value in values.items() if not 0 <= value < float("inf")]
        if wrong or not any(values.values()):
            raise BadConfig(
                f"{', '.join(wrong) or 'every weight is 0'}", where="cost",
                mend="use numbers of at least 0, not all of them 0",
            )  # fmt: skip

    def of(self, sizes: Mapping[str, np.ndarray]) -> np.ndarray:
        """float64 costs (n,) of samples with ``sizes``: name of a field of Length -> (n,)."""
        # One product after the other, each rounded alike on all machines: ranks must plan the same packs.
        tokens = sizes["tokens"].astype(np.float64)
        cost = self.token * tokens
        cost += self.token_squared * tokens * tokens
        cost += self.patch * sizes["patches"]
        cost += self.patch_squared * sizes["patches_squared"]
        cost += self.supervised * sizes["supervised"]
        return cost


COUNT_TOKENS = Cost()


def cost_of_model(flops: ModelFlops, trained: Collection[str], adapted: Collection[str] = ()) -> Cost:
    """The weights that FLOPs give, forward and backward, in units of a token that attends to nothing.

    What FLOPs do not say is left out: memory, and windows of the encoder's attention (``depth_window``), which make
    ``patch_squared`` 0, as existing vision-language models do, whose pictures are small.

    Args:
        trained, adapted: components, as in ``training_flops``.
    """
    # Imported here: settings are weights without a model, and are read before torch and transformers are imported.
    from medvlm.model.config import MedVLMConfig, VisionConfig
    from medvlm.model.flops import PARTS, Flops, training_flops

    def worth(part: str, linear: float = 0.0, attention: float = 0.0) -> float:
        passes = dict.fromkeys(PARTS, Flops()) | {part: Flops(linear=linear, attention=attention)}
        return training_flops(passes, trained, adapted) / token

    token = 1.0
    token = worth("text", flops.token)
    config, row = flops.config, flops.patches_per_row
    own = isinstance(config, MedVLMConfig)
    whole = own and isinstance(config.vision_config, VisionConfig) and config.vision_config.depth_window is None
    merged = int(np.prod(config.projector_config.merge)) if own else 1
    patch = worth("vision", flops.patch * row, flops.pair * row * row if row > 1 else 0.0)
    patch += worth("projector", flops.visual_token / merged * own + flops.visual_patch)
    return Cost(
        token=1.0,
        token_squared=worth("text", attention=flops.causal_pair / 2),
        patch=patch,
        patch_squared=worth("vision", attention=flops.pair) if whole else 0.0,
        supervised=worth("head", flops.logits),
    )
