"""medvlm: from clinical files to a scored checkpoint.

    medvlm doctor                                  what is installed, and what each missing piece would enable
    medvlm data phantoms --out data --patients 200 virtual patients: images, volumes, clips, reports, questions
    medvlm data walk FOLDER --out data             manifests from any folder of clinical files
    medvlm data init FOLDER                        look at your own table, JSON or DICOM folder; write its recipe
    medvlm data build RECIPE.yaml --out data       manifests as that recipe says
    medvlm data check data --out check             leaks, duplicates, names, sides, empty answers: a page and a verdict
    medvlm data deidentify FOLDER --out CLEAN      DICOM tags and texts without names, and what may have been missed
    medvlm data pairs MANIFEST --out PAIRS         preference pairs by named rules, other images, or the model itself
    medvlm data shard MANIFEST --out SHARDS        WebDataset shards for streaming, resumable and checksummed
    medvlm tiny configs/presets/m3d.yaml --out T   a tiny copy of any curriculum with virtual patients, to rehearse it
    medvlm plan configs/quickstart.yaml            what a training would do and cost, without training
    medvlm train configs/quickstart.yaml           all stages, resumed where they stopped
    medvlm report runs/quickstart                  one page: curves, where the time went, samples as the model saw them
    medvlm eval list                               the benchmarks, and what to know of each
    medvlm eval fetch TASK                         the files of an open one from the hub
    medvlm eval run --model M --task vqa-rad --out runs/eval   ask, read, mark, report; --data for your own questions
    medvlm eval rescore RUN                        all stages but the asking, as one or each for itself:
    medvlm eval extract | medvlm eval score | medvlm eval aggregate | medvlm eval report
    medvlm eval mark RUN --with bertscore          learned scores, each in its own process; or a judge
    medvlm eval compare A B                        two runs, question by question: differences with intervals
    medvlm eval export RUN --to latex --out T.tex  tables; ReXrank predictions, lm-eval results, inspect logs
    medvlm eval audit RUN                          a sheet for a person to mark: how often are answers misread?
    medvlm eval contamination RUN --train M.jsonl  was the test in the training? the score with and without the copies
    medvlm eval retrieve --model M --beir FOLDER   pictures by text and back; documents by query: nDCG, recall
    medvlm eval selftest                           is the ruler straight? every task, with answers of known score
    medvlm eval pairs --model CHECKPOINT --data data/test_pairs.jsonl
    medvlm chat --model CHECKPOINT scan.nii.gz     ask about a picture, a volume or a clip
    medvlm export CHECKPOINT --out FOLDER          a plain transformers folder with a model card; to a hub if asked

On several processes: torchrun --nproc_per_node=8 -m medvlm.train.run CONFIG (the same arguments as medvlm train).
Each command says more with --help. Exit codes: 0 done, 1 done but something is wrong, 2 refused: read the message;
of a training also 75: stopped by a signal and saved, 74: could not save, 70: a process hung.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version

# Modules are imported when they are called: torch alone takes seconds, and `medvlm --help` should not.
COMMANDS = {
    ("data", "phantoms"): "medvlm.data_recipes.phantoms.write",
    ("data", "walk"): "medvlm.data_recipes.walk",
    ("data", "init"): "medvlm.data_recipes.own.init",
    ("data", "build"): "medvlm.data_recipes.own.build",
    ("data", "check"): "medvlm.data_recipes.checks.check",
    ("data", "deidentify"): "medvlm.data_recipes.deidentification.deidentify",
    ("data", "pairs"): "medvlm.eval.make_pairs",
    ("data", "shard"): "medvlm.data_recipes.shards.shard",
    ("train",): "medvlm.train.run",
    ("plan",): "medvlm.train.plan_command",
    ("report",): "medvlm.train.run_report",
    ("tiny",): "medvlm.scripts.tiny_copy",
    ("eval", "list"): "medvlm.eval.list_tasks",
    ("eval", "fetch"): "medvlm.eval.fetch",
    ("eval", "run"): "medvlm.eval.run",
    ("eval", "extract"): "medvlm.eval.stages:extract_main",
    ("eval", "score"): "medvlm.eval.stages:score_main",
    ("eval", "aggregate"): "medvlm.eval.stages:aggregate_main",
    ("eval", "report"): "medvlm.eval.stages:report_main",
    ("eval", "rescore"): "medvlm.eval.stages:rescore_main",
    ("eval", "mark"): "medvlm.eval.mark",
    ("eval", "compare"): "medvlm.eval.compare",
    ("eval", "export"): "medvlm.eval.export",
    ("eval", "audit"): "medvlm.eval.audit",
    ("eval", "contamination"): "medvlm.eval.contamination",
    ("eval", "retrieve"): "medvlm.eval.retrieval.run",
    ("eval", "selftest"): "medvlm.eval.selftest",
    ("eval", "pairs"): "medvlm.eval.pairs",
    ("chat",): "medvlm.scripts.chat",
    ("export",): "medvlm.scripts.export",
    ("doctor",): "medvlm.scripts.doctor",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that ``arguments`` (default: the command line) begin with; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if given[0] in ("-V", "--version"):
        print(version("medvlm"))
        return 0
    for words, module in COMMANDS.items():
        if tuple(given[: len(words)]) == words:
            try:
                name, _, function = module.partition(":")
                run: Callable[[list[str]], int | None] = getattr(import_module(name), function or "main")
                return run(given[len(words) :]) or 0
            except KeyboardInterrupt:  # while libraries are imported, or in a command that says nothing better
                print(f"medvlm {' '.join(words)}: stopped", file=sys.stderr)
                return 1
    if tuple(given[1:2]) in (("-h",), ("--help",)) and any(words[0] == given[0] for words in COMMANDS):
        print(__doc__)
        return 0
    known = ", ".join(" ".join(words) for words in COMMANDS)
    print(f"medvlm: no command {' '.join(given[:2])!r}; the commands are {known}. See medvlm --help", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
