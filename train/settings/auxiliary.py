"""AuxiliaryLoss: a further loss of a stage, on a head beside the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from medvlm.train.settings.checks import check_range, later, refuse

AuxiliaryKind = Literal["findings", "progression", "triplets", "unpaired"]


@dataclass(frozen=True, kw_only=True)
class AuxiliaryLoss:
    """A loss that is added to that of the objective, over the same forward pass.

    Attributes:
        kind: "findings" (one yes or no for each finding), "progression" (better, same, worse for each finding),
            "triplets" (entity and position, MedKLIP), "unpaired" (findings of images and of reports that do not belong
            together, told by one classifier, MedRAT).
        weight: of this loss beside that of the objective.
        findings: names of the labels, as they stand in the metadata of samples; for triplets the entities.
        positions: only for triplets: where an entity may be.
        positive_weights: only for findings: name -> how much more a present one counts than an absent one (1).
        pooling: how the patches of a visual become one vector; triplets have queries of their own.
        size: only for triplets: width of the queries; for unpaired: of the space of images and reports.
        layers: only for triplets: how often the queries look at the patches.
        paired_texts: only for unpaired: read the texts of samples that show something, too.
    """

    kind: AuxiliaryKind
    weight: float = 1.0
    findings: tuple[str, ...] = later(())
    positions: tuple[str, ...] = later(())
    positive_weights: dict[str, float] = field(default_factory=dict, metadata={"later": True})
    pooling: Literal["mean", "attention"] = later("mean")
    size: int = later(256)
    layers: int = later(4)
    paired_texts: bool = later(False)

    def __post_init__(self) -> None:
        check_range("auxiliary weight", self.weight, 0)
        check_range("auxiliary size", self.size, 1)
        check_range("auxiliary layers", self.layers, 1)
        for name, values in (("findings", self.findings), ("positions", self.positions)):
            if len(set(values)) < len(values):
                refuse(f"the auxiliary loss {self.kind!r} names one of its {name} twice", f"name each of {name} once")
        if not self.findings:
            refuse(
                f"the auxiliary loss {self.kind!r} has no findings", "list the names of its labels: `findings: [...]`"
            )
        if (self.kind == "triplets") != bool(self.positions):
            refuse(
                f"the auxiliary loss {self.kind!r} has {'positions' if self.positions else 'no positions'}",
                "list them for kind: triplets, and for no other",
            )
        if self.positive_weights and self.kind != "findings":
            refuse(f"the auxiliary loss {self.kind!r} has positive_weights", "set them for kind: findings only")
        if self.paired_texts and self.kind != "unpaired":
            refuse(f"the auxiliary loss {self.kind!r} has paired_texts", "set them for kind: unpaired only")
        for name, weight in self.positive_weights.items():
            check_range(f"positive weight of {name!r}", weight, 1e-6)
            if name not in self.findings:
                refuse(f"positive_weights names {name!r}, which is not among the findings", "use a name of findings")


def check_heads(
    objective: str, rates: Mapping[str, float], lora: Sequence[str], auxiliary: Sequence[AuxiliaryLoss]
) -> None:
    """Refuse a stage whose heads are not trained, or that trains what its objective does not run.

    Args:
        rates: component -> learning rate.
        lora: components that are adapted.
    """
    kinds = [loss.kind for loss in auxiliary]
    for kind in kinds:
        if kinds.count(kind) > 1:
            refuse(f"the stage has {kinds.count(kind)} auxiliary losses of kind {kind!r}", "keep one of them")
    if auxiliary and objective not in ("supervised", "contrastive"):
        refuse(
            f"a {objective} stage has auxiliary losses, but it runs the model more than once on a pack",
            "train them in a supervised or a contrastive stage",
        )
    if objective == "contrastive" and "unpaired" in kinds:
        refuse(
            "a contrastive stage takes pairs only, and has the auxiliary loss 'unpaired'",
            "train it in a supervised stage, with texts that show nothing beside what shows something",
        )
    needs = objective == "contrastive" or bool(auxiliary)
    if needs and "heads" not in rates:
        what = "the contrastive objective" if objective == "contrastive" else f"the auxiliary loss {kinds[0]!r}"
        refuse(
            f"{what} reads a head that would stay at its random weights: learning_rate.heads is null",
            "set learning_rate.heads, such as 1e-3",
        )
    if "heads" in rates and not needs:
        refuse(
            "learning_rate.heads is set, but neither the objective nor an auxiliary loss has a head",
            "remove it, or use objective: contrastive, or add `auxiliary`",
        )
    if objective == "contrastive" and ("projector" in rates or "projector" in lora):
        refuse(
            "a contrastive stage does not run the projector, and is to train it",
            "set learning_rate.projector: null and adapt vision and text only; train the projector in the next stage",
        )
