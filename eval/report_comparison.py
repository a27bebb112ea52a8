"""Two runs side by side in one file: what differs in the figures, and every case with both answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvlm.eval.case_tags import TAGS, comparison_tags
from medvlm.eval.cases import MOST_CASES, AnsweredRun, browse
from medvlm.eval.generate import Reader
from medvlm.eval.page_options import MEDIA_MEGABYTES
from medvlm.eval.plots import COLOURS
from medvlm.eval.report import before_sharing, known
from medvlm.eval.report_page import write_page
from medvlm.eval.run_folder import read_plan, read_run, responses_of
from medvlm.eval.stages import scores_of


def write_comparison(
    out: Path,
    run_a: Path,
    run_b: Path,
    compared: Mapping[str, Any] | None = None,
    *,
    read: Reader | None = None,
    pictured: int = 60,
    megabytes: float = MEDIA_MEGABYTES,
    most: int = MOST_CASES,
    seed: int = 0,
) -> None:
    """Write the page of two run folders.

    Args:
        out: the HTML file.
        run_a, run_b: run folders; the questions that both answered are shown.
        compared: what compare.compare returned (compare.json); its tests of this task make the table of differences.
        read: of visuals; the readers of data_recipes by default.
        pictured, megabytes, most, seed: as cases.browse takes them.

    Raises:
        ValueError: a folder is no run folder, or they have no question in common.
    """
    if read is None:
        from medvlm.data_recipes.readers import read
    assert read is not None
    settings = [read_run(run) for run in (run_a, run_b)]
    names = [str(one["model"]) for one in settings]
    if names[0] == names[1]:
        names = [f"{name} ({run.resolve().name})" for name, run in zip(names, (run_a, run_b), strict=True)]
    runs = [
        AnsweredRun(name=name, asks=read_plan(run), scores=scores_of(run), responses=responses_of(run))
        for name, run in zip(names, (run_a, run_b), strict=True)
    ]
    browser = browse(runs, read, pictured=pictured, megabytes=megabytes, most=most, seed=seed)
    task = settings[0].get("task")
    tests = [row for row in (compared or {}).get("tests", ()) if row["task"] in (task, None, "")]
    about = [row for row in (compared or {}).get("runs", ()) if row["task"] in (task, None, "")]
    write_page(
        out,
        "report_comparison.html",
        names=names,
        run=known({"title": None} | dict(settings[0])),
        private=before_sharing(settings[0]) or before_sharing(settings[1]),
        differing=_differing(settings[0], settings[1]),
        tests=tests,
        notes=[note for row in about for note in row["notes"]],
        level=(compared or {}).get("level", 0.05),
        counts=_counts(runs),
        browser=browser,
        colours=COLOURS,
    )


_ABOUT = ("task", "fingerprint", "ids_sha256", "style", "conditions", "limit", "seed", "cluster", "versions")


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Settings in which the runs differ, other than the model: what else the difference may come from."""
    return [
        (key.replace("_", " "), str(a.get(key)), str(b.get(key))) for key in _ABOUT if a.get(key) != b.get(key)
    ]  # fmt: skip


def _counts(runs: list[AnsweredRun]) -> list[tuple[str, int]]:
    """How many questions, asked with their image, both have right, only one has, and neither."""
    a, b = ({row["sample_id"]: row for row in run.scores if row["condition"] == "image"} for run in runs)
    found: Counter[str] = Counter(tag for name, row in a.items() if name in b for tag in comparison_tags(row, b[name]))
    return [(TAGS[tag], found[tag]) for tag in ("both", "a_only", "b_only", "neither", "differ")]
