"""Looking at a training changes nothing of it: the largest packs that run first, questions on the way, the report."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import a_volume, an_image
from launching import torchrun
from PIL import Image as Pil
from tiny_curriculum import YAML, write_config

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.train import run, run_report
from medvlm.train.line_plot import lines_svg, shares_svg
from medvlm.train.shown_samples import uncut

WORKER = Path(__file__).parent / "seen_worker.py"
STAGE = """\
  - name: all
    mixture: [{manifest: train_2d.jsonl}, {manifest: train_3d.jsonl}, {manifest: train_text.jsonl}]
    learning_rate: {vision: 1e-3, projector: 1e-3}
    lora: {rank: 2, targets: [text.attention], dropout: 0.1}
    steps: 4
    packs_per_step: 2
    save_every: 2
evaluation: {manifests: [test_questions.jsonl, test_reports.jsonl], samples_per_manifest: 3, max_new_tokens: 6}
"""
LOOKS = ["stages.all.evaluate_every=1"]
BLIND = ["engine.preflight=false"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    write_phantoms(folder / "data", patients=8, seed=3)
    return write_config(folder / "c.yaml", folder / "data", YAML[YAML.index("  - name: align") :], STAGE)


@pytest.fixture(scope="module")
def looking(config):
    """The run folder of a training that is looked at, and the one beside it that is not."""
    folder = Path(config).parent
    assert run.main([config, f"output_dir={folder / 'looks'}", *LOOKS]) == 0
    assert run.main([config, f"output_dir={folder / 'blind'}", *BLIND]) == 0
    return folder / "looks"


def weights(output: Path) -> str:
    return hashlib.sha256((output / "stages/01-all/checkpoint/model.safetensors").read_bytes()).hexdigest()


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "stages/01-all/metrics.jsonl").read_text().splitlines()]


def test_questions_and_the_first_packs_change_no_weight(looking):
    assert weights(looking) == weights(looking.with_name("blind"))
    assert [r["loss"] for r in rows(looking)] == [r["loss"] for r in rows(looking.with_name("blind"))]


def test_scores_stand_in_their_steps_and_their_time_apart(looking):
    found = rows(looking)
    assert all(set(row["scores"]) >= {"closed_accuracy", "finding_f1"} for row in found)
    assert "scores" not in rows(looking.with_name("blind"))[0]
    assert all(row["phases"]["evaluate"] > 0.01 for row in found)
    for row in found:
        inside = sum(time for name, time in row["phases"].items() if name not in ("save", "evaluate"))
        assert inside == pytest.approx(row["seconds"], rel=0.02, abs=0.005)
        assert 0 < row["mfu"] < 1 and 0 <= row["padding"] < 1 and row["memory_gib"] > 0.1
    answers = looking / "stages/01-all/evaluation/step-00000004/rank-0/responses.rank0.jsonl"
    assert len(answers.read_text().splitlines()) == 6


def test_a_resumed_training_with_questions_is_the_same_to_the_bit(config, looking):
    """It goes on from step 2 of 4, with questions and first packs again."""
    resumed = looking.with_name("resumed")
    shutil.copytree(looking, resumed)
    stage = resumed / "stages/01-all"
    shutil.rmtree(stage / "checkpoint")
    shutil.rmtree(stage / "state/step-00000004")
    (stage / "done.json").unlink()
    assert run.main([config, f"output_dir={resumed}", *LOOKS]) == 0
    assert weights(resumed) == weights(looking)
    assert [r["loss"] for r in rows(resumed)] == [r["loss"] for r in rows(looking)]
    assert [r["scores"] for r in rows(resumed)] == [r["scores"] for r in rows(looking)]


@pytest.mark.slow
def test_two_ranks_look_without_a_change_under_zero(config):
    folder = Path(config).parent
    runs = []
    for zero in (2, 3):
        engine = [
            f"engine={{kind: deepspeed, zero_stage: {zero}, device: cpu}}",
            "stages.all.steps=2",
            "evaluation.samples_per_manifest=2",
        ]
        runs += [
            [*engine, f"output_dir={folder / f'looks-{zero}'}", *LOOKS],
            [*engine, f"output_dir={folder / f'blind-{zero}'}", *BLIND],
        ]
    # Packs of one sample, whose answer stands in the second half: a process that shares them has nothing to supervise.
    runs.append(
        [
            "engine={kind: accelerate, device: cpu, sequence_parallel: 2}", "stages.all.steps=1",
            "data.tokens_per_pack=306", "stages.all.mixture=[{manifest: train_3d.jsonl}]",
            f"output_dir={folder / 'shared'}",
        ]
    )  # fmt: skip
    done = torchrun(WORKER, [config, json.dumps(runs)])
    assert done.returncode == 0, done.stderr[-4000:]
    assert "the largest packs of the first window fit (305 tokens" in done.stderr
    assert "OVERFLOW" not in done.stderr + done.stdout, "DeepSpeed warns of the gradient that is infinite on purpose"
    for zero in (2, 3):
        assert weights(folder / f"looks-{zero}") == weights(folder / f"blind-{zero}"), zero
        assert rows(folder / f"looks-{zero}")[-1]["scores"]
        assert (folder / f"looks-{zero}/report.html").is_file()
    ranks = folder / "looks-2/stages/01-all/evaluation/step-00000002"
    assert [len((ranks / f"rank-{n}/responses.rank0.jsonl").read_text().splitlines()) for n in (0, 1)] == [2, 2]


def test_what_does_not_fit_shows_before_the_first_step(config, tmp_path, monkeypatch, capsys):
    """A real allocation that no machine can make, in the place of a forward pass that is too large."""
    from medvlm.train.objectives import supervised

    def too_large(self, model, batch):
        return torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(supervised.Supervised, "__call__", too_large)
    output = tmp_path / "oom"
    assert run.main([config, f"output_dir={output}"]) == 2
    said = capsys.readouterr().err
    assert "the largest pack of the first window does not fit in memory" in said
    assert "lower data.tokens_per_pack (512)" in said and "medvlm plan --gpu NAME" in said
    assert not (output / "stages/01-all/metrics.jsonl").exists()
    page = (output / "report.html").read_text()
    assert "The training stopped." in page and "does not fit in memory" in page


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_report_shows_stages_plots_samples_and_versions(looking, capsys):
    page = (looking / "report.html").read_text()
    for words in (
        "Task scores", "Loss", "Learning rate", "Gradient norm", "Tokens per second", "Where the time went",
        "vision 58,976", "torch", "Samples as the model sees them", "measured matrix product", "polyline",
    ):  # fmt: skip
        assert words in page, words
    overview = json.loads((looking / "stages/01-all/overview.json").read_text())
    shown = overview["samples"][0]
    marked = [text for text, supervised, _ in shown["sides"][0] if supervised]
    assert marked and all(text.endswith("<|im_end|>") for text in marked), "the end of the turn carries loss"
    assert f"<b>{escape(marked[0])}</b>" in page and "<|im_end|>" not in page, "text of samples is escaped"
    again = (looking / "report.html").read_bytes()
    assert run_report.main([str(looking)]) == 0
    capsys.readouterr()
    same = re.compile(rb"Written [^.]*\.")
    assert same.sub(b"", (looking / "report.html").read_bytes()) == same.sub(b"", again)
    assert run_report.main([str(looking / "stages")]) == 2
    assert "give the output_dir of a training" in capsys.readouterr().err


def test_the_report_asks_for_nothing_outside_of_itself(looking):
    page = (looking / "report.html").read_text()
    assert "<script" not in page
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert not re.findall(r"url\(|@import", page)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, which is not installed here")
def test_a_browser_opens_it_without_an_error(looking, tmp_path):
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
            f"--user-data-dir={tmp_path}", f"--screenshot={tmp_path / 'page.png'}",
            (looking / "report.html").resolve().as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert np.asarray(Pil.open(tmp_path / "page.png").convert("L")).std() > 5, "something is drawn"


def test_pictures_are_made_of_the_patches(looking, processor):
    for visual in (an_image(1), a_volume(2)):
        patched = processor.patch(visual)
        pixels = uncut(patched, processor)
        t, h, w = processor.rule.patch
        assert pixels.shape == (3, *(g * p for g, p in zip(patched.grid, (t, h, w), strict=True)))
        assert pixels.min() >= 0 and pixels.max() <= 1 and pixels.std() > 0.01
        # The first patch of the stream is the first corner.
        corner = (patched.patches[0].reshape(3, t, h, w) + 1) / 2
        assert np.allclose(pixels[:, :t, :h, :w], corner, atol=1e-6)
    overview = json.loads((looking / "stages/01-all/overview.json").read_text())
    pictures = [picture for sample in overview["samples"] for picture in sample["pictures"]]
    assert pictures and all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


def test_lines_leave_out_what_is_no_number_and_stay_small():
    steps = list(range(10_000))
    values = [None if step % 7 == 0 else float(step) for step in steps]
    svg = lines_svg("A & B", [("<one>", steps, values), ("nothing", steps, [None] * 10_000)])
    assert "A &amp; B" in svg and "&lt;one&gt;" in svg and "nothing" not in svg and len(svg) < 20_000
    assert lines_svg("none", [("x", [1], [float("nan")])]) == ""
    assert "circle" in lines_svg("one", [("x", [1], [2.0])])
    assert "data 25.0%" in shares_svg("t", {"data": 1.0, "compute": 3.0}) and shares_svg("t", {"data": 0.0}) == ""
