"""Which objective a stage has."""

from __future__ import annotations

from medvlm.train.config import Stage
from medvlm.train.engine import Engine
from medvlm.train.lora import adapters_off
from medvlm.train.objectives.objective import Objective
from medvlm.train.objectives.preference import Preference
from medvlm.train.objectives.supervised import Supervised


def make_objective(stage: Stage, engine: Engine) -> Objective:
    """The objective that ``stage`` names."""
    if stage.objective == "preference":
        assert stage.preference is not None
        return Preference(stage.preference, lambda: adapters_off(engine.module))
    return Supervised()
