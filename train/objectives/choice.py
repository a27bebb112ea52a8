"""Which objective a stage has."""

from __future__ import annotations

from medvlm.model.loading import Processor
from medvlm.train.config import Stage
from medvlm.train.engine import Engine
from medvlm.train.objectives.auxiliary import WithAuxiliaries, make_auxiliary
from medvlm.train.objectives.contrastive import Contrastive
from medvlm.train.objectives.objective import Objective
from medvlm.train.objectives.preference import Preference
from medvlm.train.objectives.reinforcement import RolloutPlace, make_reinforcement
from medvlm.train.objectives.supervised import Supervised


def make_objective(stage: Stage, engine: Engine, processor: Processor, place: RolloutPlace | None = None) -> Objective:
    """The objective that ``stage`` names, with its auxiliary losses.

    Args:
        processor: of the stage; some objectives make tokens of their own.
        place: where and with which budgets answers are written; only a reinforcement stage needs it.
    """
    objective = _main(stage, engine, processor, place)
    if not stage.auxiliary:
        return objective
    made = [(make_auxiliary(loss, processor.tokenizer), loss.weight) for loss in stage.auxiliary]
    return WithAuxiliaries(objective, made)


def _main(stage: Stage, engine: Engine, processor: Processor, place: RolloutPlace | None) -> Objective:
    if stage.objective == "contrastive":
        assert stage.contrastive is not None
        return Contrastive(stage.contrastive, processor.tokenizer)
    if stage.objective == "reinforcement":
        assert stage.reinforcement is not None and place is not None
        return make_reinforcement(stage.reinforcement, engine, processor, place)
    if stage.objective == "preference":
        assert stage.preference is not None
        return Preference(stage.preference, engine.module)
    return Supervised()
