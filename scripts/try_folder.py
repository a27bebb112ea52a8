"""Any folder of mixed clinical files -> samples, a few steps of every stage, an evaluation, report.html.

    python -m medvlm.scripts.try_folder FOLDER OUT --steps 5

OUT gets report.html, summary.json, quarantine.jsonl, the manifests of the whole folder, and in trial/ those of the
part that is trained and asked. Exit codes: 0 done, 1 the trial failed, 2 nothing to try: the message says why.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic, write_manifest
from medvlm.data_recipes.pairs.rules import rule_pairs
from medvlm.data_recipes.sample import Question, Sample
from medvlm.data_recipes.stratify import dimension, spread
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.data_recipes.walk import UNSTATED, WalkResult, read_walk, walk_into
from medvlm.eval.controls import BLIND
from medvlm.eval.found import Found, describe_found
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.eval.run import Settings, evaluate
from medvlm.model.config import own_projector_config
from medvlm.train.config import Curriculum, Stage, load_curriculum
from medvlm.train.distributed import connect, disconnect
from medvlm.train.run_stages import run_curriculum
from medvlm.train.stage import stage_folder

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "try_folder.yaml"
TEXT_MANIFEST = "train_text.jsonl"
OWN_FOLDERS = ("trial", "stages", "evaluation")
"""What an earlier trial left in OUT and a new one makes anew; the cache is named by content and stays."""

TURN_TOKENS = 16
"""More than the template writes around one turn."""

console = Console(stderr=True)


def say(text: str, style: str | None = None) -> None:
    """One line on standard error, as it is: paths are neither wrapped nor read as markup."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The part of a folder that is trained and asked.

    Attributes:
        train: manifest name -> samples.
        asked: manifest name -> samples with a question.
        notes: what was left out or done otherwise, in sentences for the report.
    """

    train: dict[str, list[Sample]]
    asked: dict[str, list[Sample]]
    notes: tuple[str, ...]


def most_tokens(sample: Sample, curriculum: Curriculum) -> int:
    """An upper bound of the tokens of ``sample`` before there is a tokenizer: a byte is at least one token's worth."""
    projector = own_projector_config(curriculum.model.projector)
    merge = math.prod(projector.merge)
    patches = curriculum.model.processor["max_patches"]
    total = 0
    for side in sample.sides():
        for turn in side:
            total += TURN_TOKENS + len(turn.text.encode())
            for ref in turn.visuals:
                fixed = projector.queries
                total += math.ceil(patches[ref.kind] / merge) if fixed is None else fixed[ref.kind]
    return total


def fits(sample: Sample, curriculum: Curriculum) -> bool:
    """Whether ``sample`` surely fits into one pack."""
    patches = sum(curriculum.model.processor["max_patches"][ref.kind] for ref in sample.visuals())
    data = curriculum.data
    return most_tokens(sample, curriculum) <= data.tokens_per_pack and patches <= data.patches_per_pack


def as_question(sample: Sample) -> Sample:
    """A training sample as an open question, for folders without test patients."""
    answer = sample.turns[-1].text
    question = Question(kind="open", answers=(answer,), topic=str(sample.metadata.get("topic", "other")))
    return replace(sample, turns=sample.turns[:-1], question=question)


def choose(result: WalkResult, curriculum: Curriculum, limit: int) -> Trial:
    """Spread at most ``limit`` training samples, and the questions, over all sources and kinds.

    Raises:
        BadSample: no sample can be trained on.
    """
    short = [sample for sample in result.samples if fits(sample, curriculum)]
    notes = _long_ones(result.samples, short)
    train = spread([s for s in short if s.split == "train"], limit)
    if not train:
        raise BadSample(
            f"{len(result.samples)} samples came out of the folder, and none of them can be trained on",
            where="the folder",
            mend="add files that are not test data of a published split; quarantine.jsonl names what is refused",
        )
    by_dimension = {d: [s for s in train if dimension(s) == d] for d in ("2d", "3d", "video", "text", "mixed")}
    # A mixed sample needs its 3D part or its clip to be trained, so that it goes where these are.
    manifests = {
        "train_visual.jsonl": [s for s in train if s.visuals()],
        "train_2d.jsonl": by_dimension["2d"],
        "train_3d.jsonl": by_dimension["3d"] + by_dimension["mixed"],
        "train_video.jsonl": by_dimension["video"],
        TEXT_MANIFEST: by_dimension["text"],
        "train_all.jsonl": train,
        "train_pairs.jsonl": _pairs(train, curriculum, limit),
    }
    assert curriculum.evaluation is not None
    most = curriculum.evaluation.samples_per_manifest or limit
    test = [s for s in short if s.split == "test" and s.question is not None]
    if not test:
        notes.append(
            "No patient of this folder is a test patient: the questions below are asked about TRAINING samples, and "
            "their scores say only that the chain works."
        )
        test = [as_question(s) for s in train]
    reports = [s for s in test if s.question is not None and s.question.kind == "report"]
    asked = {
        "test_questions.jsonl": spread([s for s in test if s not in reports], most),
        "test_reports.jsonl": spread(reports, max(1, most // 4)),
    }
    return Trial(
        train={name: rows for name, rows in manifests.items() if rows},
        asked={name: rows for name, rows in asked.items() if rows},
        notes=tuple(notes),
    )


def _long_ones(samples: Iterable[Sample], short: Sequence[Sample]) -> list[str]:
    kept = {sample.sample_id for sample in short}
    long = Counter(sample.source for sample in samples if sample.sample_id not in kept)
    if not long:
        return []
    listed = ", ".join(f"{source} {count}" for source, count in long.most_common())
    return [f"Too long for the packs of this trial, though not for a training: {listed} samples."]


def _pairs(train: Iterable[Sample], curriculum: Curriculum, limit: int) -> list[Sample]:
    pairs = [pair for sample in train for pair in rule_pairs(sample)]
    return spread([pair for pair in pairs if fits(pair, curriculum)], limit)


def plan_stages(curriculum: Curriculum, trial: Trial, steps: int | None) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """The stages that have data, without the manifests that came out empty; and why the others are skipped.

    A stage is there for the manifests that no stage before it saw (text goes along): when all of these are empty, it
    would only repeat an earlier one.
    """
    stages: list[Stage] = []
    skipped: dict[str, str] = {}
    seen = {TEXT_MANIFEST}
    for stage in curriculum.stages:
        own = [source.manifest for source in stage.mixture if source.manifest not in seen]
        seen.update(own)
        if not any(name in trial.train for name in own):
            listed = " and ".join(name.removesuffix(".jsonl").removeprefix("train_") for name in own)
            skipped[stage.name] = f"the folder gives nothing to train for {listed}"
            continue
        mixture = tuple(source for source in stage.mixture if source.manifest in trial.train)
        wanted = steps or stage.steps
        warmup = min(stage.warmup_steps, wanted) if wanted else stage.warmup_steps
        stages.append(replace(stage, mixture=mixture, steps=wanted, warmup_steps=warmup))
    return tuple(stages), skipped


def write_trial(trial: Trial, folder: Path) -> None:
    """One manifest for each name in ``folder``; paths of visuals are absolute."""
    for name, rows in (trial.train | trial.asked).items():
        write_manifest(folder / name, rows)


def train(curriculum: Curriculum) -> Path:
    """All stages in this process; the last checkpoint."""
    ranks = connect(curriculum.engine.device)
    try:
        return run_curriculum(curriculum, ranks)
    finally:
        disconnect()


def ask(curriculum: Curriculum, trial: Trial, checkpoint: Path, found: Found, out: Path) -> dict[str, Any]:
    """Evaluate ``checkpoint`` on the chosen questions, with the controls; leave report.html in ``out``."""
    settings = curriculum.evaluation
    assert settings is not None
    metrics = evaluate(
        CheckpointModel(checkpoint, batch_size=settings.batch_size),
        [Path(curriculum.data.root) / name for name in trial.asked],
        out / "evaluation",
        Settings(
            conditions=("image", *BLIND),
            control_limit=None,
            control_report_limit=settings.control_reports,
            max_new_tokens=settings.max_new_tokens,
        ),
        chunk_size=2 * settings.batch_size,
        train_metrics=[stage_folder(curriculum, stage.name) / "metrics.jsonl" for stage in curriculum.stages],
        found=found,
    )
    (out / "evaluation" / "report.html").replace(out / "report.html")
    return metrics


def show_walk(result: WalkResult) -> None:
    """The counts as a table on standard error."""
    names = ("train", "validation", "test", "quarantined")
    table = Table("source", *names)
    for source, row in result.counts["by_source"].items():
        table.add_row(source, *(str(row[name]) for name in names))
    console.print(table)
    totals = ("samples", "images", "volumes", "videos", "quarantined", "other_files")
    say(", ".join(f"{result.counts[name]} {name.replace('_', ' ')}" for name in totals))


def stage_notes(curriculum: Curriculum, skipped: dict[str, str], trial: Trial) -> list[str]:
    """What was trained and what was skipped, for the report and the terminal."""
    trained = ", ".join(f"{stage.name} ({stage.steps} steps)" for stage in curriculum.stages)
    notes = [f"Trained: {trained}, on {len(trial.train['train_all.jsonl'])} samples."]
    pairs = trial.train.get("train_pairs.jsonl", [])
    made = Counter(pair.preference.made_by for pair in pairs if pair.preference)
    if made:
        notes.append("Preference pairs, by rule: " + ", ".join(f"{rule} {n}" for rule, n in made.most_common()) + ".")
    return notes + [f"Stage {name} was skipped: {reason}." for name, reason in skipped.items()]


def run(folder: Path, out: Path, options: argparse.Namespace) -> int:
    """The whole trial; returns the exit code."""
    began = time.time()
    console.rule("1/4 reading the folder")
    walk_into(
        folder, out, progress=console.is_terminal, workers=options.workers, licence=options.licence, resample_gaps=True
    )
    result = read_walk(out)
    for name in OWN_FOLDERS:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
    show_walk(result)
    if not result.samples:
        first = f"; the first: {result.quarantine[0]}" if result.quarantine else ""
        console.print(
            f"{folder} holds nothing that can be used{first}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return 2
    curriculum = load_curriculum(options.config)
    curriculum = replace(curriculum, output_dir=str(out), data=replace(curriculum.data, root=str(out / "trial")))
    try:
        trial = choose(result, curriculum, options.samples)
    except BadSample as bad:
        say(f"{folder}: {bad.reason}. Mend: {bad.mend}", style="red")
        return 2
    write_trial(trial, out / "trial")
    stages, skipped = plan_stages(curriculum, trial, options.steps)
    curriculum = replace(curriculum, stages=stages)
    notes = [*stage_notes(curriculum, skipped, trial), *trial.notes]
    for text in notes:
        say(text)
    console.rule("2/4 a look at every source")
    found = describe_found(
        folder, result.samples, result.quarantine, result.counts, pictures=options.pictures, notes=notes
    )
    console.rule("3/4 training")
    checkpoint = train(curriculum)
    console.rule("4/4 evaluation")
    metrics = ask(curriculum, trial, checkpoint, found, out)
    summary = {
        **result.counts,
        "folder": str(folder),
        "trained": len(trial.train["train_all.jsonl"]),
        "pairs": len(trial.train.get("train_pairs.jsonl", [])),
        "stages": {stage.name: stage.steps for stage in stages},
        "skipped_stages": skipped,
        "asked": {name: len(rows) for name, rows in trial.asked.items()},
        "answers": metrics["counts"]["responses"],
        "scores": {name: value for name, value in metrics["headline"].items() if value is not None},
        "checkpoint": str(checkpoint),
        "minutes": round((time.time() - began) / 60, 2),
    }
    write_atomic(out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    say(f"report: {out / 'report.html'} ({summary['minutes']} minutes)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="try_folder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of clinical files; it is only read")
    parser.add_argument("out", type=Path, help="folder for what comes out")
    parser.add_argument("--steps", type=int, help="optimizer steps of every stage, instead of the configuration's")
    parser.add_argument("--samples", type=int, default=400, help="most samples trained on")
    parser.add_argument("--pictures", type=int, default=4, help="pictures shown of each source and kind")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes that read visuals")
    parser.add_argument("--licence", default=UNSTATED, help="licence of the files that belong to no dataset")
    parser.add_argument("--config", type=Path, default=CONFIG, help="curriculum of the trial")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    folder, out = options.folder.resolve(), options.out.resolve()
    if not folder.is_dir():
        parser.error(f"{folder} is not a folder; give the folder that holds the files")
    if out == folder or folder in out.parents:
        parser.error(f"{out} lies inside {folder}, which is only read; give another folder for what comes out")
    for name in ("steps", "samples", "pictures", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; give a whole number of at least 1")
    try:
        return run(folder, out, options)
    except (BadConfig, BadSample, ValueError, FloatingPointError) as error:
        say(f"the trial failed: {error}", style="red")
        return 1


if __name__ == "__main__":
    sys.exit(main())
