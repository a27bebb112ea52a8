"""Processes that read packs: they end with the training, whatever ends it, and their own end is told."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import launch_environment
from text_loader import loader_of

SCRIPT = """
import multiprocessing, sys, time
sys.path.insert(0, sys.argv[1])
from conftest import TEXTS
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer
from text_loader import loader_of
if __name__ == "__main__":
    processor = MedVLMProcessor(train_tokenizer(TEXTS, 400), patch_size=(2, 8, 8), max_patches={"image": 64})
    steps = loader_of(processor, 0, 1, workers=2).steps()
    for _ in range(4):
        next(steps)
    try:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        steps.close()
        print("closed", flush=True)
"""


def started(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with a loader that has read, and its workers."""
    tests = Path(__file__).parents[1]
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tests)], env=launch_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert workers, process.communicate()[1]
    return process, workers


def gone(pids: list[int], within_s: float = 10) -> bool:
    stop = time.monotonic() + within_s
    while time.monotonic() < stop:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_workers_end_with_their_training_and_say_nothing(tmp_path, ending):
    process, workers = started(tmp_path)
    try:
        if ending == signal.SIGKILL:
            os.kill(process.pid, ending)
        else:
            os.killpg(process.pid, ending)  # what a terminal does
        out, said = process.communicate(timeout=30)
        assert gone(workers)
        if ending == signal.SIGINT:
            assert (out, said, process.returncode) == ("closed\n", "", 0)
    finally:
        for pid in workers:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)


def test_a_worker_that_is_killed_stops_the_loader_with_what_to_do(processor):
    steps = loader_of(processor, 0, 1, workers=2).steps()
    next(steps)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"memory of the machine.*--shm-size.*fewer data.workers"):
        for _ in range(1000):
            next(steps)
    assert multiprocessing.active_children() == []
