"""report.html of 5,000 made-up cases: how large it is, and how soon a person can use it in Chromium.

    python -m medvlm.scripts.bench.report_page --write docs/report.md

Writes pictures, noisy scans and clips of no patient, asks a stand-in for a model about them with and without the image,
and opens the page in the browser that is installed. "Usable" is when the list of cases stands and answers to filters.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvlm.data_recipes.asking import ask
from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.sample import QuestionKind, Sample, VisualRef
from medvlm.eval.models import Request, Response, reference_of
from medvlm.eval.run import Settings, evaluate
from medvlm.eval.stages import report_stage
from medvlm.scripts.bench.chromium import Chromium, find_chromium
from medvlm.scripts.bench.hardware import processor_name
from medvlm.scripts.marked_page import write_block

BEGIN, END = "<!-- report-page:begin -->", "<!-- report-page:end -->"
PICTURES, SCANS = 600, 40
MOST_MEGABYTES, MOST_SECONDS = 60.0, 3.0
KINDS: tuple[QuestionKind, ...] = ("closed", "choice", "open", "report", "closed")
FINDINGS = ("nodule", "effusion", "mass", "fracture", "consolidation", "oedema", "cyst", "calcification")
REPORT = (
    "Findings: There is a {size} mm {finding} in the {side} {zone} zone. The heart is normal in size. The mediastinum "
    "is not widened. No pneumothorax. No pleural effusion on the other side. The bones show no acute fracture. Lines "
    "and tubes: none. Impression: {finding} in the {side} {zone} zone, to be followed up in three months."
)


def write_visuals(folder: Path) -> None:
    """Textured pictures of 512 by 512, and scans of 64 slices of 256 by 256 with the noise of a CT."""
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).resize(
            (512, 512), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse, dtype=np.float32) + rng.normal(0, 6, (512, 512))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"picture{number}.png")
    z, y, x = np.mgrid[0:64, 0:256, 0:256].astype(np.float32)
    body = ((x - 128) / 110) ** 2 + ((y - 128) / 88) ** 2 < 1
    lungs = ((np.abs(x - 128) - 52) / 38) ** 2 + ((y - 128) / 60) ** 2 < 1
    plain = np.where(body, np.where(lungs, -850.0, 40.0), -1000.0).astype(np.float32)
    for number in range(SCANS):
        spot = ((x - 76) / 8) ** 2 + ((y - 90 - number) / 8) ** 2 + ((z - 30) / 4) ** 2 < 1
        scan = np.where(spot, 60.0, plain) + rng.normal(0, 25, plain.shape).astype(np.float32)
        np.save(folder / f"scan{number}.npy", scan.round().astype(np.int16))


def samples(cases: int, folder: Path) -> Iterator[Sample]:
    """Of ten cases six show a picture, three a scan, and one is text alone."""
    options = {"unit": "HU", "spacing_mm": [4.0, 1.4, 1.4], "orientation": "SPL", "modality": "CT"}
    for number in range(cases):
        kind: QuestionKind = KINDS[number % len(KINDS)]
        finding = FINDINGS[number % len(FINDINGS)]
        told = {"size": 5 + number % 40, "finding": finding, "side": ("left", "right")[number % 2], "zone": "upper"}
        visuals: list[VisualRef] = []
        if number % 10 < 6:
            visuals = [VisualRef(kind="image", path=f"picture{number % PICTURES}.png")]
        elif number % 10 < 9:
            visuals = [VisualRef(kind="volume", path=f"scan{number % SCANS}.npy", options=options)]
        form: dict[str, Any] = {
            "closed": {"prompt": f"Is there a {finding}?", "answers": ["yes"], "choices": ["yes", "no"]},
            "choice": {"prompt": "What is seen?", "answers": ["ABCD"[number % 4]], "choices": FINDINGS[:4]},
            "open": {"prompt": f"Where is the {finding}?", "answers": [f"{told['side']} {told['zone']} zone"]},
            "report": {"prompt": "Write the report.", "answers": [REPORT.format(**told)]},
        }[kind]
        yield ask(
            sample_id=f"case-{number}", patient_id=f"p{number // 5}", source="made-up", licence="CC0-1.0", split="test",
            where=str(folder), visuals=visuals, kind=kind, topic=finding, metadata={"sex": "FM"[number % 2]}, **form,
        )  # fmt: skip


@dataclass(frozen=True)
class StandIn:
    """Right in about two of three, else a report of something else; the same each time."""

    name: str = "stand-in"

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        return [Response(text=self._text(request), confidence=0.5) for request in requests]

    def _text(self, request: Request) -> str:
        draw = hashlib.sha256(f"{request.sample_id}{len(request.visuals)}".encode()).digest()[0]
        if draw < 170:
            return reference_of(request.question)
        told = {"size": draw, "finding": FINDINGS[draw % 8], "side": "right", "zone": "lower"}
        return "no" if request.question.kind == "closed" else REPORT.format(**told)


def measure(page: Path, program: str, repeats: int = 3) -> dict[str, float]:
    """Milliseconds, medians over ``repeats`` fresh browsers."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        with Chromium(program) as browser:
            began = time.perf_counter()
            browser.open(page)
            usable = float(browser.until("document.documentElement?.dataset.usable", 60))
            found.setdefault("usable, by the page's clock", []).append(usable)
            found.setdefault("usable, from outside", []).append(1000 * (time.perf_counter() - began))
            for name, action in (
                ("a filter", "document.querySelector('[data-tag=wrong]').click()"),
                (
                    "the first search",
                    "(() => {const s = document.querySelector('[data-part=search]'); s.value = 'effusion upper';"
                    "s.dispatchEvent(new Event('input'))})()",
                ),
            ):
                took = f"(() => {{const began = performance.now(); {action}; return performance.now() - began}})()"
                found.setdefault(name, []).append(float(browser.ask(took)))
            scan = (
                "(async () => {document.querySelector('[data-part=clear]').click();"
                "const s = document.querySelector('[data-facet=dimension]'); s.value = '3d';"
                "const began = performance.now(); s.dispatchEvent(new Event('change'));"
                "const drawn = () => document.querySelector('.detail .viewer[data-drawn]');"
                "while (!drawn()) await new Promise(f => setTimeout(f, 2));"
                "return performance.now() - began})()"
            )
            found.setdefault("a scan unpacked and drawn", []).append(float(browser.ask(scan)))
            if browser.complaints:
                raise RuntimeError(f"the page complained: {browser.complaints}")
    return {name: statistics.median(values) for name, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a goal is missed, 2 when there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--gallery", type=int, default=2000, help="cases that show their picture")
    parser.add_argument("--out", type=Path, help="keep the run here")
    parser.add_argument("--write", type=Path, help="put the table into this page, between its marks")
    options = parser.parse_args(arguments)
    program = find_chromium()
    if program is None:
        print("error: no chromium or chrome is installed", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = options.out or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_visuals(folder)
        write_manifest(folder / "cases.jsonl", list(samples(options.cases, folder)))
        settings = Settings(conditions=("image", "no_image"))
        evaluate(StandIn(), [folder / "cases.jsonl"], folder / "run", settings, gallery_size=0)
        began = time.perf_counter()
        report_stage(folder / "run", gallery_size=options.gallery)
        written_s = time.perf_counter() - began
        page = folder / "run" / "report.html"
        megabytes = page.stat().st_size / 1e6
        times = measure(page, program)
    table = _table(options, megabytes, written_s, times)
    print(table)
    if options.write is not None:
        write_block(options.write, BEGIN, END, table)
    return int(megabytes >= MOST_MEGABYTES or times["usable, from outside"] >= 1000 * MOST_SECONDS)


def _table(options: argparse.Namespace, megabytes: float, written_s: float, times: dict[str, float]) -> str:
    rows = [
        ("size of the page", f"{megabytes:.1f} MB", f"{MOST_MEGABYTES:.0f} MB"),
        ("writing it", f"{written_s:.0f} s", ""),
        *(
            (name, f"{value:.0f} ms", f"{1000 * MOST_SECONDS:.0f} ms" if name.startswith("usable") else "")
            for name, value in times.items()
        ),
    ]
    head = (
        f"{options.cases:,} made-up cases under two conditions, {PICTURES} pictures and {SCANS} scans of 64 × 256 × "
        f"256; the first {options.gallery:,} cases show theirs. Median of three fresh headless Chromiums. "
        f"{datetime.now(UTC):%Y-%m-%d}, {processor_name()}, {platform.system()}.\n\n"
        "| | measured | goal |\n|---|---|---|\n"
    )
    return head + "".join(f"| {name} | {value} | {goal} |\n" for name, value, goal in rows)


if __name__ == "__main__":
    sys.exit(main())
