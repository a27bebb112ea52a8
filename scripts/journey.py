"""Phantoms -> checks -> five stages -> evaluation -> report.html and summary.json: the main job, in one command.

python -m medvlm.scripts.journey configs/quickstart.yaml --patients 1000 --processes 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from medvlm.data_recipes.checks import check
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.eval.controls import BLIND
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.eval.pairs import pair_accuracy, score_pairs
from medvlm.eval.run import Settings, evaluate
from medvlm.train.config import Curriculum, load_curriculum
from medvlm.train.stage import stage_folder

SUMMARY = (
    "closed_accuracy_2d", "closed_accuracy_3d", "closed_accuracy_video", "side_accuracy_2d", "side_accuracy_3d",
    "majority_accuracy", "majority_accuracy_2d", "majority_accuracy_3d",
    "no_image_accuracy", "no_image_accuracy_2d", "no_image_accuracy_3d",
    "swapped_image_accuracy", "swapped_image_accuracy_2d", "swapped_image_accuracy_3d",
    "choice_accuracy", "finding_f1", "finding_f1_2d", "finding_f1_3d", "open_exact_match", "bleu_4", "rouge_l",
)  # fmt: skip


def say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


def make_data(curriculum: Curriculum, patients: int) -> None:
    """Write the phantoms unless they are there."""
    root = Path(curriculum.data.root)
    if (root / "phantoms.json").is_file():
        say(f"phantoms are in {root}")
        return
    say(f"writing {patients} virtual patients to {root}")
    write_phantoms(root, patients=patients, seed=curriculum.seed, workers=os.cpu_count() or 1, progress=True)


def check_data(curriculum: Curriculum) -> None:
    """Check the manifests before anything is trained on them; the page is ``check/index.html``.

    Raises:
        RuntimeError: something is wrong with them.
    """
    out = Path(curriculum.output_dir) / "check"
    say(f"checking {curriculum.data.root}")
    # Drawn from few numbers, some patients of different splits are as alike (6 bits of 256 and more) as a picture and
    # its brighter copy; real radiographs are not.
    alike = ["--near-bits", "4"]
    code = check.main([curriculum.data.root, "--out", str(out), *alike, "--workers", str(os.cpu_count() or 1)])
    if code:
        raise RuntimeError(f"the data did not pass: see {out / 'index.html'}")


def train(config: str, overrides: list[str], processes: int) -> None:
    """Run the curriculum under torchrun; a stage that is done is passed over.

    Raises:
        RuntimeError: the training did not end well; what it printed says why.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
        "-m", "medvlm.train.run", config, *overrides,
    ]  # fmt: skip
    say(" ".join(command[1:]))
    code = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, check=False).returncode
    if code:
        raise RuntimeError(f"the training ended with exit code {code}; its message stands above")


def pairs_before_and_after(curriculum: Curriculum) -> dict[str, dict[str, Any]]:
    """Accuracy on held-out pairs of the checkpoints before and after the last preference stage."""
    names = [stage.name for stage in curriculum.stages]
    last = max(i for i, stage in enumerate(curriculum.stages) if stage.objective == "preference")
    manifest = Path(curriculum.data.root) / "test_pairs.jsonl"
    limit = curriculum.evaluation.samples_per_manifest if curriculum.evaluation else None
    results: dict[str, dict[str, Any]] = {}
    for when, name in (("before", names[last - 1]), ("after", names[last])):
        say(f"pairs {when} {names[last]}")
        scores, _ = score_pairs(stage_folder(curriculum, name) / "checkpoint", manifest, limit=limit)
        results[when] = pair_accuracy(scores)
    return results


def flat(pairs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pair accuracies as a table of the report."""
    return {
        when: {
            "all": result["value"],
            "95 % interval": "{:.3f} to {:.3f}".format(*result["interval"]),
            **{kind: row["value"] for kind, row in result["by"].items()},
        }
        for when, result in pairs.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of the config")
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--began", type=float, default=time.time(), help="when the job began, in seconds since 1970")
    options = parser.parse_intermixed_args(arguments)
    disable_progress_bar()
    curriculum = load_curriculum(options.config, options.overrides)
    assert curriculum.evaluation is not None, "the config needs 'evaluation'"
    output = Path(curriculum.output_dir)
    make_data(curriculum, options.patients)
    check_data(curriculum)
    train(options.config, options.overrides, options.processes)
    pairs = pairs_before_and_after(curriculum)
    last = stage_folder(curriculum, curriculum.stages[-1].name) / "checkpoint"
    say(f"evaluating {last}")
    metrics = evaluate(
        CheckpointModel(str(last), batch_size=curriculum.evaluation.batch_size),
        [Path(curriculum.data.root) / name for name in curriculum.evaluation.manifests],
        output / "evaluation",
        Settings(
            conditions=("image", *BLIND),
            control_limit=None,
            limit=curriculum.evaluation.samples_per_manifest,
            control_report_limit=curriculum.evaluation.control_reports,
            max_new_tokens=curriculum.evaluation.max_new_tokens,
        ),
        train_metrics=[stage_folder(curriculum, stage.name) / "metrics.jsonl" for stage in curriculum.stages],
        extra={f"Chosen over rejected, {when} DPO": row for when, row in flat(pairs).items()},
    )
    (output / "evaluation" / "report.html").replace(output / "report.html")
    headline = metrics["headline"]
    summary = {name: headline.get(name) for name in SUMMARY}
    summary |= {
        "pair_accuracy_before_dpo": pairs["before"]["value"],
        "pair_accuracy_after_dpo": pairs["after"]["value"],
        "looks_at_the_image": metrics["looks_at_the_image"],
        "minutes": round((time.time() - options.began) / 60, 1),
    }
    write_atomic(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    say(f"report: {output / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
