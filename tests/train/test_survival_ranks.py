"""Two processes under torchrun: killed at any moment, signalled, of another number, or one of them hanging.

MEDVLM_CRASHES=20 asks for so many kills, which are left out otherwise, and for all engines, for which a few stand else.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import launch_environment
from survival import WORKER, equal, launch, result, stage_of, write_config, write_data

from medvlm.train.checkpoint import Checkpoint, changed_file, read_state, state_folders

CRASHES = int(os.environ.get("MEDVLM_CRASHES", "2"))
STEPS = 12 + 8 * CRASHES
ZERO_2 = ["engine.kind=deepspeed", "engine.zero_stage=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("survival") / "data")


def start(config: str, overrides: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "-m", "medvlm.train.run", config, *overrides]
    environment = launch_environment() | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "20"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ranks_of(process: subprocess.Popen) -> list[int]:
    """Processes of the ranks, in the order in which they were started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        return sorted(map(int, path.read_text().split()))
    except FileNotFoundError:
        return []


def end(process: subprocess.Popen, victims: list[int]) -> str:
    """Kill ``victims`` with signal 9, and let what is left of the training end."""
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    ranks = ranks_of(process)
    try:
        return process.communicate(timeout=60)[1]
    finally:
        for left in [*ranks, process.pid]:
            try:
                os.kill(left, signal.SIGKILL)
            except ProcessLookupError:
                continue


def steps_done(output: Path) -> int:
    path = stage_of(output) / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def wait_for(process: subprocess.Popen, happened, timeout: float = 180) -> None:
    stop = time.monotonic() + timeout
    while not happened():
        assert process.poll() is None, process.communicate()[1][-5000:]
        assert time.monotonic() < stop, "it took too long"
        time.sleep(0.002)


def whole_states(output: Path) -> list[int]:
    """Steps of the states that can be read to the last bit."""
    found = [read_state(path) for path in state_folders(stage_of(output) / "state")]
    return [state.step for state in found if isinstance(state, Checkpoint) and changed_file(state) is None]


@pytest.mark.slow
@pytest.mark.skipif("MEDVLM_CRASHES" not in os.environ, reason="minutes of kills: MEDVLM_CRASHES=20 runs them")
def test_killed_and_signalled_at_any_moment_it_ends_as_if_nothing_had_happened(data, tmp_path):
    config = write_config(tmp_path / "run.yaml", data, steps=STEPS)
    codes, _ = launch(config, [{"overrides": [*ZERO_2, f"output_dir={tmp_path / 'straight'}"]}], processes=2)
    assert codes == [0]
    output, chance = tmp_path / "run", random.Random(7)
    state = stage_of(output) / "state"
    saving = 0
    for number in range(CRASHES):
        process, before = start(config, ZERO_2), steps_done(output)
        saved = max(whole_states(output), default=0)
        kind = number % 3
        # The rows of steps after the state that it goes on from are written again, so that the file grows from there.
        wanted = saved + chance.randint(3, 6)
        wait_for(process, lambda: len(ranks_of(process)) == 2)  # noqa: B023
        victims = [ranks_of(process), ranks_of(process)[:1], ranks_of(process)[1:]][chance.randrange(3)]
        if before > saved:
            wait_for(process, lambda: steps_done(output) <= saved)  # noqa: B023
        wait_for(process, lambda: steps_done(output) >= wanted)  # noqa: B023
        if kind:  # in the middle of a save
            wait_for(process, lambda: list(state.glob("*.unfinished")))
            time.sleep(chance.random() * 0.004)
        end(process, victims)
        assert process.returncode != 0
        saving += bool(list(state.glob("*.unfinished")))
        left, reached = whole_states(output), steps_done(output)
        assert left and left == [int(path.name[5:]) for path in state_folders(state)], (
            "every state that is seen is whole"
        )
        # The interval, and the step in which the state was written while training went on.
        assert reached - max(left) <= 2 + 2, (reached, left)
        print(f"kill {number}: ranks {len(victims)}, at step {reached}, states {left}, saving {saving}")
    assert saving, "no kill fell into a save"

    # A signal to one rank stops both at the same step; one to torchrun as well.
    for victim in ("last rank", "torchrun"):
        process, saved = start(config, ZERO_2), max(whole_states(output))
        wait_for(process, lambda: len(ranks_of(process)) == 2)  # noqa: B023
        time.sleep(2)
        wait_for(process, lambda: steps_done(output) == saved + 1 or steps_done(output) > saved + 3)  # noqa: B023
        if victim == "torchrun":
            process.terminate()
        else:
            os.kill(ranks_of(process)[-1], signal.SIGUSR1)
        said = process.communicate(timeout=120)[1]
        now = max(whole_states(output))
        assert now == steps_done(output) > saved, "saved after the step, not only when it is due"
        assert said.count(f"the state after step {now} of stage 'align' is saved: the same command goes on") == 2
        if victim == "last rank":
            assert "stopped by a signal to another rank" in said and "exitcode  : 75" in said
    process = start(config, ZERO_2)
    assert process.communicate(timeout=300)[1] is not None and process.returncode == 0
    assert equal(result(output), result(tmp_path / "straight"))


ENGINES = [
    ["engine.kind=accelerate"],
    ["engine.kind=deepspeed", "engine.zero_stage=0"],
    ["engine.kind=deepspeed", "engine.zero_stage=1"],
    ["engine.kind=deepspeed", "engine.zero_stage=2"],
    ["engine.kind=deepspeed", "engine.zero_stage=3"],
]
BF16 = [[*engine, "engine.precision=bf16"] for engine in ENGINES if "engine.zero_stage=0" not in engine]


@pytest.mark.slow
def test_what_is_no_number_moves_no_weight_under_any_engine(data, tmp_path):
    """The loss, then the gradient, of packs with one sample; two ranks, of which one has it."""
    config = write_config(tmp_path / "run.yaml", data, steps=6)
    runs = []
    for number, engine in enumerate([*ENGINES, *(BF16 if "MEDVLM_CRASHES" in os.environ else BF16[2:3])]):
        accident = ["nan", "s03"] if number % 2 else ["inf", "s03"]
        runs.append({"overrides": [*engine, f"output_dir={tmp_path / str(number)}"], "accident": accident})
    codes, _ = launch(config, runs, processes=2)
    assert codes == [0] * len(runs)
    skipped = []
    for number in range(len(runs)):
        folder = stage_of(tmp_path / str(number))
        rows = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
        skipped.append([row["step"] for row in rows])
        assert all("s03" in row["samples"] for row in rows)
        assert all(tensor.isfinite().all() for tensor in result(tmp_path / str(number))[1].values())
    assert skipped[0] and all(steps == skipped[0] for steps in skipped)
    for number in range(1, len(ENGINES)):
        losses = [result(tmp_path / str(n))[0] for n in (0, number)]
        known = [[loss for loss in row if loss is not None] for row in losses]
        shortest = min(len(row) for row in known)
        assert shortest >= 6 - len(skipped[0])
        finite = [[row[step] for step in range(6) if step + 1 not in skipped[0]] for row in losses]
        assert finite[0] == pytest.approx(finite[1], abs=1e-5), ENGINES[number]


@pytest.mark.slow
def test_two_processes_then_one_then_two(data, tmp_path):
    """Each sample is seen as often as before: the losses of the uninterrupted training, up to rounding."""
    config = write_config(tmp_path / "run.yaml", data, steps=9)
    engines = [ENGINES[0], ENGINES[4]]
    if "MEDVLM_CRASHES" in os.environ:
        engines += [ENGINES[3], ENGINES[2], BF16[2]]
    places = [[*engine, f"output_dir={tmp_path / str(number)}"] for number, engine in enumerate(engines)]
    straight = [[*engine, f"output_dir={tmp_path / f'straight-{n}'}"] for n, engine in enumerate(engines)]
    codes, _ = launch(
        config,
        [{"overrides": place} for place in straight] + [{"overrides": p, "accident": ["halt", "3"]} for p in places],
        processes=2,
    )
    assert codes == [0] * len(engines) + [75] * len(engines)
    alone = [[*place, "stages.align.packs_per_step=2"] for place in places]
    wrong = {"overrides": places[1]}
    codes, said = launch(config, [wrong] + [{"overrides": p, "accident": ["halt", "6"]} for p in alone])
    assert codes == [2] + [75] * len(engines)
    assert "was saved with 2 packs a step (2 processes x 1), now there are 1 (1 x 1)" in said
    assert "set stages.align.packs_per_step=2" in said and "is rewritten for another number of processes" in said
    codes, _ = launch(config, [{"overrides": place} for place in places], processes=2)
    assert codes == [0] * len(engines)
    for number, engine in enumerate(engines):
        losses, reference = (result(tmp_path / name)[0] for name in (str(number), f"straight-{number}"))
        assert len(losses) == 9
        assert losses == pytest.approx(reference, abs=2e-2 if "engine.precision=bf16" in engine else 2e-5), engine


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_and_the_others_end(data, tmp_path):
    config = write_config(tmp_path / "run.yaml", data)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    runs = json.dumps([{"overrides": ["engine.hang_minutes=0.08"], "accident": ["stop", "1", "3"]}])
    ranks = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment = launch_environment() | {name: str(value) for name, value in place.items()}
        command = [sys.executable, str(WORKER), config, runs]
        ranks.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        )
    try:
        said = ranks[0].communicate(timeout=120)[1]
        print(said)
        assert ranks[0].returncode == 70
        assert "rank 0 has been" in said and "at step 3" in said and "longer than engine.hang_minutes allows" in said
        assert f"Behind: rank 1 (process {ranks[1].pid} on " in said
        assert "is forward and backward at step 3" in said and "nothing has been heard of it since" in said
        assert ranks[1].poll() is None, "it was stopped, not ended"
    finally:
        for process in ranks:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
