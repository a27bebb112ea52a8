"""One process and its accidents: signals, full disks, damaged states, numbers that are none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from launching import launch_environment
from survival import equal, launch, result, stage_of, write_config, write_data

from medvlm.train import run
from medvlm.train.checkpoint import state_folders
from medvlm.train.config import load_curriculum
from medvlm.train.distributed import connect, disconnect
from medvlm.train.run_stages import run_curriculum
from medvlm.train.stopping import Stopped, Stopping


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("survival") / "data")


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """The run folder of the training that nothing happens to."""
    config = tmp_path_factory.mktemp("straight") / "run.yaml"
    assert run.main([write_config(config, data)]) == 0
    return config.with_suffix("")


def again(straight, folder):
    """A copy of ``straight`` whose stage is not done: its states at steps 4, 6 and 8 are there."""
    shutil.copytree(straight, folder)
    shutil.rmtree(stage_of(folder) / "checkpoint")
    (stage_of(folder) / "done.json").unlink()
    return str(straight.with_suffix(".yaml")), [f"output_dir={folder}"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": (lambda state: flip(state / "state.pt"), "state.pt has changed since it was written"),
    "a cut file": (lambda state: os.truncate(state / "state.pt", 1000), "state.pt has 1000 bytes"),
    "no manifest": (lambda state: (state / "manifest.json").unlink(), "has no manifest.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_said_and_the_one_before_it_is_taken(straight, tmp_path, capfd, damage):
    config, overrides = again(straight, tmp_path / "run")
    harm, words = DAMAGES[damage]
    newest, second, _ = state_folders(stage_of(tmp_path / "run") / "state")
    harm(newest)
    assert run.main([config, *overrides]) == 0
    said = capfd.readouterr().err
    assert words in said and f"set aside as {newest.name}.damaged; training goes on from {second.name}" in said
    assert equal(result(tmp_path / "run"), result(straight))
    assert newest.is_dir(), "it was trained and saved again"


def test_a_signal_that_came_after_the_last_step_of_a_stage_is_heard_before_the_next(data, tmp_path):
    """The loop that would have seen it was over: loading, measuring and a step of another stage may take an hour."""
    curriculum = load_curriculum(write_config(tmp_path / "run.yaml", data))
    with Stopping() as stopping:
        stopping.in_steps = True
        os.kill(os.getpid(), signal.SIGUSR1)
        while stopping.asked is None:
            time.sleep(0.01)
        stopping.in_steps = False
        with pytest.raises(Stopped, match="stopped by SIGUSR1 before stage"):
            run_curriculum(curriculum, connect("cpu"), stopping=stopping)
    disconnect()
    assert not stage_of(tmp_path / "run").exists()


def test_when_no_state_can_be_read_nothing_is_trained_anew(straight, tmp_path, capfd):
    config, overrides = again(straight, tmp_path / "run")
    states = state_folders(stage_of(tmp_path / "run") / "state")
    for state in states:
        flip(state / "rank-00000.pt")
    assert run.main([config, *overrides]) == 2
    said = capfd.readouterr().err
    assert all(f"{state / 'rank-00000.pt'} has changed" in said for state in states)
    assert "no saved state in" in said and "or remove the folder to train the stage from its start" in said
    assert state_folders(stage_of(tmp_path / "run") / "state") == states, "nothing is moved or removed"


def test_written_in_the_background_or_at_once_is_the_same(straight, data, tmp_path):
    config = write_config(tmp_path / "sync.yaml", data)
    assert run.main([config, "engine.save_async=false"]) == 0
    assert equal(result(tmp_path / "sync"), result(straight))
    folders = [state_folders(stage_of(folder) / "state") for folder in (straight, tmp_path / "sync")]
    assert [p.name for p in folders[0]] == [p.name for p in folders[1]]
    # Snapshots were not changed by the steps that followed them: the same hashes.
    for one, other in zip(*folders, strict=True):
        manifests = [json.loads((path / "manifest.json").read_text()) for path in (one, other)]
        assert manifests[0]["files"]["state.pt"] == manifests[1]["files"]["state.pt"]


@pytest.mark.parametrize("accident", ["nan", "inf"])
def test_a_step_that_is_no_number_is_left_out_and_named(straight, data, tmp_path, capfd, accident):
    import importlib.util

    from survival import WORKER

    spec = importlib.util.spec_from_file_location("survival_worker", WORKER)
    assert spec is not None and spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    config = write_config(tmp_path / "run.yaml", data)
    with worker.ACCIDENTS[accident]("s03"):
        assert run.main([config]) == 0
    skipped = [json.loads(line) for line in (stage_of(tmp_path / "run") / "skipped.jsonl").read_text().splitlines()]
    assert skipped and all("s03" in row["samples"] for row in skipped)
    assert all(("s03" in row["suspects"]) == (accident == "nan") for row in skipped)
    steps = {row["step"] for row in skipped}
    rows = [json.loads(line) for line in (stage_of(tmp_path / "run") / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if row.get("left_out")} == steps and len(rows) == 8
    assert all(tensor.isfinite().all() for tensor in result(tmp_path / "run")[1].values())
    assert not equal(result(tmp_path / "run"), result(straight))
    assert f"step {min(steps)} is left out" in capfd.readouterr().err
    # Not one is allowed: it stops before anything is changed by it.
    with worker.ACCIDENTS[accident]("s03"):
        assert run.main([config, f"output_dir={tmp_path / 'strict'}", "stages.align.nonfinite_limit=0"]) == 2
    said = capfd.readouterr().err
    assert "'s03'" in said and f"at step {min(steps) - 1} of stage 'align'" in said and "nonfinite_limit is 0" in said


def assert_goes_on_as_if_nothing_had_happened(config, tmp_path):
    """Both in a process of its own: in this one earlier tests may have changed how sums are rounded."""
    straight = tmp_path / "straight"
    codes, _ = launch(config, [{}, {"overrides": [f"output_dir={straight}"]}])
    assert codes == [0, 0]
    assert equal(result(tmp_path / "run"), result(straight))


@pytest.mark.slow
def test_a_full_disk_leaves_older_states_whole_and_is_said(data, tmp_path):
    """No file may grow over 50 kB once a state is there; three saves fail, the training stops, and goes on later."""
    config = write_config(tmp_path / "run.yaml", data)
    # Written at once: in the background the state after step 2 may not be there yet when the one after step 4 is due.
    accident = {"accident": ["limit", "50000", "1"], "overrides": ["engine.save_async=false"]}
    codes, said = launch(config, [accident])
    assert codes == [74]
    assert "could not save the state after step 4: [Errno 27] File too large" in said and "GiB free" in said
    assert "those before it are whole (step-00000002). Training goes on and saves again when it is due" in said
    assert "the state after step 8 could not be saved" in said and "Free space under" in said
    assert [p.name for p in (stage_of(tmp_path / "run") / "state").iterdir()] == ["step-00000002"]
    assert_goes_on_as_if_nothing_had_happened(config, tmp_path)


@pytest.mark.slow
def test_a_disk_that_is_really_full(data, tmp_path):
    """A file system of 1 MiB holds the state after step 2, not the one after it."""
    place = tmp_path / "run" / "stages" / "01-align" / "state"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        config = write_config(tmp_path / "run.yaml", data)
        codes, said = launch(config, [{}])
        assert codes == [74] and "[Errno 28] No space left on device" in said
        (state,) = state_folders(place)
        saved = shutil.copytree(state, tmp_path / state.name)
    finally:
        subprocess.run(["umount", place], check=True)
    shutil.move(saved, place / saved.name)
    assert_goes_on_as_if_nothing_had_happened(config, tmp_path)


@pytest.mark.slow
def test_ctrl_c_saves_after_the_step(data, tmp_path):
    """SIGTERM and SIGUSR1 do the same on two processes: test_survival_ranks.py."""
    config = write_config(tmp_path / "run.yaml", data, steps=5000)
    process = subprocess.Popen(
        [sys.executable, "-m", "medvlm.train.run", config, "stages.align.save_every=null"], env=launch_environment(),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics, stop = stage_of(tmp_path / "run") / "metrics.jsonl", time.monotonic() + 60
    while (not metrics.is_file() or metrics.read_text().count("\n") < 3) and time.monotonic() < stop:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    steps = metrics.read_text().count("\n")
    assert process.returncode == 75
    assert "SIGINT: finishes the step, saves and ends" in said
    assert f"the state after step {steps} of stage 'align' is saved: the same command goes on from there" in said
    (state,) = state_folders(stage_of(tmp_path / "run") / "state")
    assert int(state.name[5:]) == steps
