"""Two real processes: what one of them meets, both act on, at the same step, with a message that says what it was."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from launching import launch_environment
from PIL import Image as Picture
from tiny_curriculum import YAML

from medvlm.train import run

STAGE = """\
  - name: align
    mixture: [{manifest: rows.jsonl}]
    learning_rate: {projector: 1e-3, text: 1e-3}
    steps: 6
"""
PAIRS = """\
  - name: align
    objective: preference
    mixture: [{manifest: rows.jsonl}]
    lora: {rank: 2, targets: [text.attention], learning_rate: 1e-2}
    preference: {loss: ipo}
    steps: 6
"""


def write_rows(root: Path, count: int, *, pairs: bool = False) -> Path:
    """``count`` samples with an image each."""
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        Picture.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(root / f"{number}.png")
        image = {"type": "image", "path": f"{number}.png"}
        answer = [{"role": "assistant", "content": [{"type": "text", "text": f"nodule {number}"}]}]
        asked = {"role": "user", "content": [image, {"type": "text", "text": "What is seen?"}]}
        row = {
            "sample_id": f"s{number}", "patient_id": f"p{number}", "study_id": f"p{number}", "source": "t",
            "licence": "CC0-1.0", "split": "train", "messages": [asked] if pairs else [asked, *answer],
        }  # fmt: skip
        if pairs:
            wrong = [{"role": "assistant", "content": [{"type": "text", "text": "no nodule"}]}]
            row["preference"] = {"chosen": answer, "rejected": wrong, "made_by": "test"}
        rows.append(row)
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def damage(image: Path) -> None:
    """Its header stays good, its pixels end early."""
    image.write_bytes(image.read_bytes()[:1500])


def write_config(path: Path, root: Path, stage: str, tokens: int = 128, **data: object) -> str:
    text = YAML[: YAML.index("  - name: align")] + stage
    more = "".join(f", {name}: {value}" for name, value in data.items())
    text = text.replace(
        "tokens_per_pack: 512, patches_per_pack: 512}", f"tokens_per_pack: {tokens}, patches_per_pack: 512{more}}}"
    )
    path.write_text(text.replace("ROOT", str(root)).replace("OUTPUT", str(path.with_suffix(""))))
    return str(path)


def two_ranks(config: str, of_last: list[str] = [], timeout: float = 120) -> list[tuple[int, str]]:  # noqa: B006
    """(exit code, standard error) of each of two processes that no launcher ends; fails when one goes on waiting."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment = launch_environment() | {name: str(value) for name, value in place.items()}
        command = [sys.executable, "-m", "medvlm.train.run", config, *(of_last if rank else [])]
        ranks.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        )
    stop, found = time.monotonic() + timeout, []
    try:
        for process in ranks:
            said = process.communicate(timeout=stop - time.monotonic())[1]
            print(f"--- {process.returncode}\n{said}")
            found.append((process.returncode, said))
    finally:
        for process in ranks:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    return found


def quarantined(tmp_path: Path) -> list[dict]:
    lines = (tmp_path / "a" / "stages" / "01-align" / "quarantine.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_what_one_rank_cannot_read_is_left_out_of_the_stage_and_counted_by_all(tmp_path):
    """Preferences, one of them in a pack: nothing is left of the packs of the damaged ones."""
    root = write_rows(tmp_path / "data", 8, pairs=True)
    for number in (1, 2, 5):
        damage(root / f"{number}.png")
    config = write_config(tmp_path / "a.yaml", root, PAIRS, quarantine_limit=1)
    found = two_ranks(config)
    assert [code for code, _ in found] == [0, 0]
    assert sorted(row["sample_id"] for row in quarantined(tmp_path)) == ["s1", "s2", "s5"]
    done = json.loads((tmp_path / "a" / "stages" / "01-align" / "done.json").read_text())
    assert done["quarantined"] == 3, "those of both ranks"


def test_a_rank_that_cannot_go_on_stops_all_of_them_with_its_name(tmp_path):
    """The images of the last rank have grown since they were measured."""
    root = write_rows(tmp_path / "data", 8)
    config = write_config(tmp_path / "a.yaml", root, STAGE)
    other = shutil.copytree(root, tmp_path / "other")
    for place in (root, other):
        assert run.main([config, f"output_dir={tmp_path / 'one'}-{place.name}", f"data.root={place}"]) == 0
        shutil.copytree(tmp_path / f"one-{place.name}" / "lengths", tmp_path / "a" / "lengths", dirs_exist_ok=True)
    for image in other.glob("*.png"):
        Picture.fromarray(np.zeros((640, 640), np.uint8)).save(image)
    first, last = two_ranks(config, [f"data.root={other}"])
    assert first[0] == 2 and "medvlm train: stopped because rank 1 did; its message says why" in first[1]
    assert "over the 128 and 512 that it was planned for" in last[1] and last[0] not in (0, None)


@pytest.mark.slow
def test_what_all_ranks_leave_out_together_is_held_against_the_limit(tmp_path):
    """Each of two ranks leaves out a third of the samples, which alone is less than the half that is allowed."""
    root = write_rows(tmp_path / "data", 120)
    for number in range(120):
        if number % 3:
            damage(root / f"{number}.png")
    stage = STAGE.replace("steps: 6", "steps: 60")
    found = two_ranks(write_config(tmp_path / "a.yaml", root, stage, quarantine_limit=0.5))
    assert {code for code, _ in found} == {2}
    for _, said in found:
        assert "of 120 samples cannot be used, more than the share of 0.5" in said
    assert 61 <= len(quarantined(tmp_path)) <= 64, "written by one rank, in the step that went over the limit"


@pytest.mark.slow
def test_ranks_that_plan_different_packs_stop(tmp_path):
    """Half of the images are missing on the machine of the last rank."""
    root = write_rows(tmp_path / "data", 16)
    other = shutil.copytree(root, tmp_path / "other")
    for number in range(8, 16):
        (other / f"{number}.png").unlink()
    config = write_config(tmp_path / "a.yaml", root, STAGE, quarantine_limit=1)
    found = two_ranks(config, [f"data.root={other}"])
    assert {code for code, _ in found} == {2}
    for _, said in found:
        assert "the ranks have planned different packs" in said and "give every machine the same files" in said


def test_a_rank_that_cannot_even_begin_tells_the_others(tmp_path):
    """The data folder is not mounted on the machine of the last rank."""
    config = write_config(tmp_path / "a.yaml", write_rows(tmp_path / "data", 4), STAGE)
    found = two_ranks(config, [f"data.root={tmp_path / 'missing'}"])
    assert {code for code, _ in found} == {2}
    assert "stopped because rank 1 did" in found[0][1] and "there is no such folder" in found[1][1]


@pytest.mark.parametrize("stage", [STAGE, PAIRS], ids=["supervised", "preference"])
def test_a_step_of_which_nothing_can_be_read_moves_nothing_and_says_no_loss(tmp_path, stage):
    root = write_rows(tmp_path / "data", 4, pairs=stage is PAIRS)
    for number in range(4):
        damage(root / f"{number}.png")
    config = write_config(tmp_path / "a.yaml", root, stage, quarantine_limit=1)
    assert run.main([config]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a/stages/01-align/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and all(row["loss"] is None and row["supervised_tokens"] == 0 for row in rows)
    assert all(row["grad_norm"] == 0 for row in rows)
    assert len(quarantined(tmp_path)) == 4
