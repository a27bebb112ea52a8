"""What a plan looks at before it costs money: freezing, files, and what the loss is taken over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Joined, ManifestRows
from medvlm.data_recipes.sample import Sample
from medvlm.model.processing import Rendered
from medvlm.train.config import Curriculum, Stage
from medvlm.train.objectives.auxiliary_labels import labelled_names

GENTLE = 2e-5
"""Rate from which on a pretrained decoder that learns beside an untrained projector is disturbed by it: LLaVA-1.5 (Liu
et al. 2023, arXiv:2310.03744) trains both at this rate, after the projector was aligned alone."""
HIGH = {"vision": 1e-4, "text": 1e-4}
"""Rates from which on what a pretrained part knows is soon overwritten."""
RENDERED = 32
"""Samples of a stage of which the tokens are looked at."""
LOOKED_FOR = 1000
"""Files of a stage that are looked for."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a stage, or the whole ("" as stage).

    Attributes:
        level: "warning": trains, but perhaps not what was meant; "refusal": would fail, or teach the wrong thing.
    """

    level: Literal["warning", "refusal"]
    stage: str
    reason: str
    mend: str

    def __str__(self) -> str:
        where = f"stage {self.stage!r}: " if self.stage else ""
        return f"{where}{self.reason}. Mend: {self.mend}"


def check_freezing(curriculum: Curriculum) -> list[Finding]:
    """Stages that train or freeze what they should not, told from the configuration alone."""
    source = curriculum.model
    found: list[Finding] = []
    random = set()
    if source.pretrained is None:
        random = {"projector"} | ({"text"} if "config" in source.text else set())
        random |= set() if "pretrained" in source.vision else {"vision"}
    pretrained = {"vision", "projector", "text"} - random
    learnt: set[str] = set()
    for number, stage in enumerate(curriculum.stages):
        found += _of_stage(stage, random - learnt, pretrained, first=number == 0)
        learnt |= set(stage.learning_rate.of_components())
    return found


def _of_stage(stage: Stage, random: set[str], pretrained: set[str], *, first: bool) -> Iterator[Finding]:
    rates = stage.learning_rate.of_components()
    adapted = set(stage.lora.components) if stage.lora else set()

    def warn(reason: str, mend: str) -> Finding:
        return Finding(level="warning", stage=stage.name, reason=reason, mend=mend)

    used = ("vision", "text") if stage.objective == "contrastive" else ("vision", "projector", "text")
    for component in used:
        if component not in random or component in rates:
            continue
        if component in adapted:
            yield warn(
                f"adapters are put on {component!r}, whose weights are random and were never trained",
                f"train it in full (learning_rate.{component}), or start from a pretrained one",
            )
        elif component != "vision" or not first or "projector" not in rates:
            yield warn(
                f"{component!r} is random, was not trained by a stage before, and is frozen here: what it passes on is "
                "noise",
                f"set learning_rate.{component}, or start from a pretrained one",
            )
        else:
            yield warn(
                "the vision tower is random and frozen: the projector would learn to read noise",
                "set learning_rate.vision, or model.vision.pretrained",
            )
    text = rates.get("text", 0.0)
    beside = "text" in pretrained and (text > GENTLE or "text" in adapted)
    if "projector" in random and "projector" in rates and beside and stage.objective != "contrastive":
        rate = f"at {text:g}" if text else f"by adapters at {stage.lora.learning_rate:g}" if stage.lora else ""
        yield warn(
            f"a random projector is trained together with a pretrained decoder {rate}: until it is aligned, its noise "
            "changes the decoder",
            "put a stage before it that trains the projector alone (learning_rate: {projector: 1e-3})",
        )
    for component, limit in HIGH.items():
        if component in pretrained and rates.get(component, 0.0) > limit:
            yield warn(
                f"the pretrained {component!r} is trained in full at {rates[component]:g}, over {limit:g}",
                f"lower learning_rate.{component}, or adapt it (lora)",
            )
    if stage.auxiliary and "heads" not in rates:
        yield warn(
            "auxiliary losses stand on heads, and the heads have no learning rate, so that they stay random",
            "set learning_rate.heads",
        )


def check_evaluation(curriculum: Curriculum) -> list[Finding]:
    """Evaluation manifests that are not there: found out after days otherwise."""
    if curriculum.evaluation is None:
        return []
    root = Path(curriculum.data.root)
    return [
        Finding(
            level="warning", stage="", reason=f"the evaluation manifest {root / name} is not there",
            mend="check evaluation.manifests and data.root",
        )
        for name in curriculum.evaluation.manifests
        if "://" not in name and not (root / name).exists()
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Files:
    """Visuals of manifests that were looked for on disk; those of shards lie in the shards."""

    looked_for: int
    missing: tuple[str, ...]


def check_files(rows: Joined, samples: Sequence[int], root: Path) -> Files:
    """Whether the visuals of at most LOOKED_FOR rows, spread over ``samples``, are files."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_FOR)).round().astype(int))
    paths: dict[str, None] = {}
    for place in chosen.tolist() if len(samples) else []:
        source, _ = rows.place(samples[place])
        if not isinstance(rows.sources[source], ManifestRows):
            continue
        row = rows.row(samples[place])
        if isinstance(row, Sample):
            paths |= dict.fromkeys(ref.path for ref in row.visuals() if "://" not in ref.path)
    return Files(looked_for=len(paths), missing=tuple(path for path in paths if not (root / path).exists()))


@dataclass(frozen=True, kw_only=True)
class Masks:
    """What carries loss in some samples of a stage.

    Attributes:
        samples: that were rendered.
        supervised: share of their tokens that carry loss.
        endless: names of samples in which the end of the last assistant turn carries none.
        unlike_prompt: names of samples whose tokens do not begin with those of the same conversation as a prompt.
    """

    samples: int
    supervised: float
    endless: tuple[str, ...]
    unlike_prompt: tuple[str, ...]
    doubled_start: bool = False


def check_masks(rows: Joined, samples: Iterable[int], renderer: Renderer) -> Masks:
    """Render some samples as the training does, and the same conversations as the evaluation asks them."""
    endless, unlike, doubled = [], [], False
    tokens = supervised = count = 0
    ends = renderer.processor.end_ids
    begin = renderer.processor.tokenizer.bos_token_id
    for index in list(samples)[:RENDERED]:
        row = rows.row(index)
        if isinstance(row, BadSample):
            continue
        try:
            sides = renderer.sides(row)
            prompts = [
                renderer.render(turns[:-1], add_generation_prompt=True) if turns[-1].role == "assistant" else None
                for turns in row.sides()
            ]
        except BadSample:
            continue
        count += 1
        for side, prompt in zip(sides, prompts, strict=True):
            tokens, supervised = tokens + len(side.tokens), supervised + int(side.supervised.sum())
            # A prompt that is to be answered (reinforcement) ends before the turn that will carry loss.
            if renderer.room is None and not _ends(side, ends):
                endless.append(row.sample_id)
            if prompt is not None and not np.array_equal(prompt.tokens, side.tokens[: len(prompt.tokens)]):
                unlike.append(row.sample_id)
            doubled |= begin is not None and side.tokens[:2].tolist() == [begin, begin]
    return Masks(
        samples=count, supervised=supervised / tokens if tokens else 0.0, endless=tuple(dict.fromkeys(endless)),
        unlike_prompt=tuple(dict.fromkeys(unlike)), doubled_start=doubled,
    )  # fmt: skip


def check_auxiliary(stage: Stage, rows: Joined, samples: Iterable[int]) -> list[Finding]:
    """Names of auxiliary losses for which none of some samples has a label: their heads would learn nothing of them;
    and an unpaired loss all of whose samples are of one modality."""
    looked = [row for row in map(rows.row, samples) if isinstance(row, Sample)]
    found = []
    for loss in stage.auxiliary if looked else ():
        try:
            labelled = {name for row in looked for name in labelled_names(row, loss.kind)}
        except BadSample:  # quarantined with its row, and counted there
            continue
        key = "findings" if loss.kind == "unpaired" else loss.kind
        unknown = [name for name in loss.findings if name not in labelled]
        if unknown:
            found.append(
                Finding(
                    level="warning", stage=stage.name,
                    reason=f"none of {len(looked)} samples that were looked at has a label of the auxiliary loss "
                    f"{loss.kind!r} for {', '.join(map(repr, unknown))}",
                    mend=f"name them as metadata.{key} of the rows does"
                    + (f" ({', '.join(sorted(labelled))})" if labelled else ", which is empty or missing"),
                )
            )  # fmt: skip
        if loss.kind != "unpaired":
            continue
        shows = [bool(row.visuals()) for row in looked if labelled_names(row, loss.kind) & set(loss.findings)]
        if shows and (not any(shows) or (all(shows) and not loss.paired_texts)):
            found.append(
                Finding(
                    level="warning", stage=stage.name,
                    reason=f"all {len(shows)} labelled samples that were looked at "
                    f"{'show' if shows[0] else 'only say'} something: the auxiliary loss 'unpaired' has nothing to "
                    "bring them together with",
                    mend="mix in labelled reports without a visual, or set paired_texts" if shows[0]
                    else "mix in labelled images, volumes or clips",
                )
            )  # fmt: skip
    return found


def _ends(side: Rendered, ends: frozenset[int]) -> bool:
    """Whether the last token that carries loss, or the one before it (a line break after the end), ends a turn."""
    last = side.tokens[side.supervised][-2:].tolist()
    return any(token in ends for token in last)


def findings_of(stage: Stage, masks: Masks, files: Files, quarantined: int, met: int, limit: float) -> list[Finding]:
    """What the checks of one stage come to."""
    found = []

    def add(level: Literal["warning", "refusal"], reason: str, mend: str) -> None:
        found.append(Finding(level=level, stage=stage.name, reason=reason, mend=mend))

    if masks.endless:
        add(
            "refusal",
            f"the end of the assistant's turn carries no loss in {len(masks.endless)} of {masks.samples} samples, such "
            f"as {masks.endless[0]}: the model would never learn to stop",
            "use a chat template that ends the assistant's turn with a token of its own (chat_template: chatml)",
        )
    if masks.unlike_prompt:
        add(
            "warning",
            f"{len(masks.unlike_prompt)} of {masks.samples} samples, such as {masks.unlike_prompt[0]}, do not begin "
            "with the tokens of their prompt: the model is asked in another way than it was trained",
            "mend the chat template: what add_generation_prompt writes must stand before an answer in training, too",
        )
    if masks.doubled_start:
        add("warning", "samples begin with two begin-of-text tokens", "leave one to the chat template or the tokenizer")
    if masks.samples and masks.supervised < 0.01 and stage.reinforcement is None:
        add(
            "warning", f"only {masks.supervised:.2%} of the tokens carry loss",
            "fewer visual tokens (max_patches, reduction) or longer answers teach more per GPU-hour",
        )  # fmt: skip
    if files.missing:
        share = len(files.missing) / files.looked_for
        add(
            "refusal" if share > limit else "warning",
            f"{len(files.missing)} of {files.looked_for} visuals that were looked for are missing, such as "
            f"{files.missing[0]}",
            "check data.root, or run `medvlm data check`",
        )
    if met and quarantined / met > limit:
        add(
            "refusal", f"{quarantined} of {met} samples cannot be used, over data.quarantine_limit ({limit:g})",
            "see the reasons; mend the data, or raise the limit",
        )  # fmt: skip
    return found
