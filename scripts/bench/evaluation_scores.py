"""How long extract, score and aggregate take over 100,000 answers to made-up closed, choice and open questions.

Usage:
    python -m medvlm.scripts.bench.evaluation_scores                      # 100,000 answers of 20,000 patients
    python -m medvlm.scripts.bench.evaluation_scores --answers 20000 --patients 4000

Nothing is asked of a model: the answers are drawn, in the forms that models write (a bare letter, "The answer is B",
prose, thinking, "I cannot tell", nothing at all). Visuals are named and never read. The three stages then run as
``medvlm eval extract``, ``score`` and ``aggregate`` run them, each reading the run folder for itself.

Predicted before the first measurement (two cores, 100,000 answers, 20,000 patients, 2,000 resamples): each stage reads
samples.jsonl and requests.jsonl anew, at 50 microseconds a row about 10 s a stage; extraction 60 microseconds an
answer, 6 s; marks 5 s; the table (24 groups, 4 metrics each, 20,000 x 2,000 Poisson draws made once in 2 s) 10 s;
subgroups 10 s. Together about 65 s, so reading would have to be mended to stay below the goal of 60 s.

That was too good: 217 s by the clock of a busy machine, and still 87 s of the processor after reading was mended. What
the prediction had left out: Python's search for reference cycles (40 %), a matrix library whose two threads waited for
each other over products of two columns (25 s), and metrics that do not apply, asked of every row. docs/statistics.md
has the figures after that.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef
from medvlm.eval.models import ConstantModel
from medvlm.eval.plan import Ask, Item, Plan, make_plan
from medvlm.eval.rows import write_rows
from medvlm.eval.run import Settings, run_row
from medvlm.eval.run_folder import RESPONSES, claim, write_plan
from medvlm.eval.stages import aggregate_stage, extract_stage, score_stage
from medvlm.scripts.bench.hardware import hardware, held

FINDINGS = (
    "pleural effusion",
    "pneumothorax",
    "consolidation",
    "cardiomegaly",
    "fracture",
    "nodule",
    "atelectasis",
    "oedema",
)
PLACES = ("left upper lobe", "left lower lobe", "right upper lobe", "right lower lobe", "right middle lobe")
ORGANS = ("liver", "spleen", "left kidney", "right kidney", "pancreas", "aorta")
MODALITIES = {"image": ("DX", "US"), "volume": ("CT", "MR")}


def _sample(number: int, patient: int, draw: random.Random) -> Sample:
    kind = draw.choice(("image", "image", "volume"))
    text, question = draw.choice((_closed, _closed, _choice, _open))(draw)
    suffix = ".png" if kind == "image" else ".nii.gz"
    of = random.Random(patient)  # facts of a patient, the same in all of their questions
    return Sample(
        sample_id=f"made-up/{number}",
        patient_id=str(patient),
        study_id=f"{patient}/{draw.randrange(2)}",
        source="made-up",
        licence="CC0-1.0",
        split="test",
        turns=(Turn(role="user", content=(VisualRef(kind=kind, path=f"{patient}{suffix}"), text)),),  # type: ignore[arg-type]
        question=question,
        metadata={
            "modality": draw.choice(MODALITIES[kind]),
            "sex": of.choice("MF"),
            "age": str(of.randrange(1, 95)),
            "site": f"site {of.randrange(6)}",
            "view": draw.choice(("PA", "AP", "lateral", "unknown")),
        },
    )


def _closed(draw: random.Random) -> tuple[str, Question]:
    finding = draw.choice(FINDINGS)
    answer = draw.choice(("yes", "no", "no"))
    question = Question(
        kind="closed", answers=(answer,), choices=("yes", "no"), topic=draw.choice(("presence", "change"))
    )
    return f"Is there a {finding}?\nAnswer yes or no.", question


def _choice(draw: random.Random) -> tuple[str, Question]:
    options = draw.sample(PLACES, 4)
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    text = f"Where is the {draw.choice(FINDINGS)}?\n{lines}\nAnswer with the letter of the right option."
    topic = draw.choice(("zone", "severity", "diagnosis"))
    return text, Question(kind="choice", answers=(draw.choice("ABCD"),), choices=tuple("ABCD"), topic=topic)


def _open(draw: random.Random) -> tuple[str, Question]:
    return "Which organ is enlarged?", Question(
        kind="open", answers=(draw.choice(ORGANS),), topic=draw.choice(("organ", "size"))
    )  # fmt: skip


def _written(ask: Ask, draw: random.Random) -> str:
    """What a model that is right two times of three would write."""
    question = ask.question
    if draw.random() < 0.02:
        return draw.choice(("", "I cannot determine this from the image.", "<think>It may be A, or B.", "unclear"))
    if question.kind == "open":
        return draw.choice((question.answers[0], draw.choice(ORGANS), f"The {draw.choice(ORGANS)} is enlarged."))
    right = question.answers[0]
    said = right if draw.random() < 0.66 else draw.choice(question.choices)
    if question.kind == "choice":
        forms = (
            "{}",
            "{}.",
            "The answer is {}.",
            "({})",
            "<think>Not obvious.</think>{}",
            "**Answer:** {}",
            "{}. as shown",
        )
        return draw.choice(forms).format(said)
    finding = ask.prompt.partition("a ")[2].partition("?")[0]
    prose = f"There is {'no' if said == 'no' else 'a'} {finding}."
    return draw.choice(
        (said, said.title() + ".", f"{said.title()}, {prose.lower()}", prose, f"<answer>{said}</answer>")
    )


def make(out: Path, answers: int, patients: int, seed: int = 0) -> None:
    """Write the run folder."""
    draw = random.Random(seed)
    owners = [*range(patients), *(draw.randrange(patients) for _ in range(answers - patients))]
    items = [Item(sample=_sample(number, owner, draw), manifest=out / "made-up") for number, owner in enumerate(owners)]
    settings = Settings(conditions=("image",))
    plan: Plan = make_plan(items, conditions=settings.conditions)
    about = {"task": None, "manifests": ["made-up"], "cluster": "patient"}
    claim(out, run_row(ConstantModel("drawn"), items, settings, plan, about))
    write_plan(out, plan)
    write_rows(out / RESPONSES.format(rank=0), (_response(ask, draw) for ask in plan.asks))


def _response(ask: Ask, draw: random.Random) -> dict[str, Any]:
    return {
        "request_id": ask.request_id,
        "sample_id": ask.item.sample.sample_id,
        "patient_id": ask.item.sample.patient_id,
        "condition": ask.condition,
        "text": _written(ask, draw),
        "finish_reason": "stop",
        "confidence": round(draw.betavariate(5, 2), 6),
    }


def measure(out: Path) -> Iterator[tuple[str, float, float]]:
    """(stage, seconds, seconds of processor time), in their order."""
    stages: dict[str, Callable[[Path], Any]] = {
        "extract": extract_stage,
        "score": score_stage,
        "aggregate": aggregate_stage,
    }
    for name, stage in stages.items():
        start, used = time.perf_counter(), time.process_time()
        stage(out)
        yield name, time.perf_counter() - start, time.process_time() - used


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m medvlm.scripts.bench.evaluation_scores", description=__doc__)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--patients", type=int, default=20_000, help="every one of them is asked at least once")
    parser.add_argument("--keep", type=Path, help="write the run folder here and leave it")
    given = parser.parse_args(arguments)
    if not 0 < given.patients <= given.answers:
        parser.error("as many answers as patients are needed, or more")
    with tempfile.TemporaryDirectory() as name:
        out = given.keep or Path(name)
        out.mkdir(parents=True, exist_ok=True)
        make(out, given.answers, given.patients)
        print(f"{given.answers:,} answers of {given.patients:,} patients; {hardware(torch.device('cpu'))}\n")
        print("| stage | seconds | processor seconds | microseconds an answer |\n|---|---|---|---|")
        total = processor = 0.0
        for stage, seconds, used in measure(out):
            total, processor = total + seconds, processor + used
            print(f"| {stage} | {seconds:.1f} | {used:.1f} | {1e6 * seconds / given.answers:.0f} |", flush=True)
        print(f"| together | {total:.1f} | {processor:.1f} | {1e6 * total / given.answers:.0f} |")
        print(f"\nmemory at most: {held('VmHWM') / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
