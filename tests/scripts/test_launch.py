"""Launch files: machines meet, a signal saves and asks to be run again, what Kubernetes reads agrees with itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from launching import launch_environment

from medvlm.train.config import load_curriculum
from medvlm.train.stopping import EXIT_STOPPED

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "scripts" / "launch"


def program(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return path


def wait_for(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def signalled(script: str, environment: dict[str, str], ready: Path, number: signal.Signals) -> tuple[int, str]:
    """Exit code and output of a launch script that gets a signal once ``ready`` is there."""
    process = subprocess.Popen(
        ["bash", str(LAUNCH / script), "a.yaml"], env=environment, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(ready)
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_torchrun_and_the_script_ends_with_the_code_of_a_saved_stop(tmp_path, number):
    ready = tmp_path / "ready"
    # As torchrun: it passes the signal on, waits for its processes, and ends with 1.
    body = f"trap 'echo saved; exit 1' TERM\ntouch {ready}\nfor i in $(seq 400); do sleep 0.05; done"
    environment = {**launch_environment(), "PYTHON": str(program(tmp_path, "python", body))}
    assert signalled("torchrun.sh", environment, ready, number) == (EXIT_STOPPED, "saved\n")


def test_without_a_signal_the_code_is_that_of_torchrun(tmp_path):
    for code in (0, 1):
        environment = {**launch_environment(), "PYTHON": str(program(tmp_path, "python", f"exit {code}"))}
        assert (
            subprocess.run(["bash", LAUNCH / "torchrun.sh", "a.yaml"], env=environment, check=False).returncode == code
        )


def test_slurm_is_asked_to_queue_a_job_again_whose_time_is_up(tmp_path):
    ready, asked = tmp_path / "ready", tmp_path / "asked"
    program(tmp_path, "srun", f"trap 'exit 1' USR1\ntouch {ready}\nfor i in $(seq 400); do sleep 0.05; done")
    program(tmp_path, "scontrol", f'if [ "$1" = requeue ]; then echo "$2" > {asked}; else echo node-a; fi')
    environment = {
        **launch_environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "node-a",
    }  # fmt: skip
    assert signalled("slurm.sh", environment, ready, signal.SIGUSR1)[0] == EXIT_STOPPED
    assert asked.read_text() == "77\n"


def test_two_machines_meet_at_the_rendezvous(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # The real torchrun; what each of its processes runs is not the training, which takes longer to import.
    body = 'import os, sys; print("rank", os.environ["RANK"], "of", os.environ["WORLD_SIZE"], sys.argv[1:])'
    (tmp_path / "stands_in.py").write_text(body)
    python = program(tmp_path, "python", f'exec {sys.executable} "${{@/medvlm.train.run/stands_in}}"')
    environment = {
        **launch_environment(), "NODES": "2", "RENDEZVOUS": f"localhost:{port}", "PROCESSES": "1", "RESTARTS": "0",
        "PYTHON": str(python), "PYTHONPATH": str(tmp_path),
    }  # fmt: skip
    command = ["bash", str(LAUNCH / "torchrun.sh"), "a.yaml", "seed=1"]
    machines = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = []
    for machine in machines:
        out, error = machine.communicate(timeout=120)
        assert machine.returncode == 0, error[-3000:]
        said.append(out)
    assert sorted(said) == [f"rank {rank} of 2 ['a.yaml', 'seed=1']\n" for rank in (0, 1)]


def test_several_machines_need_a_rendezvous():
    environment = {**launch_environment(), "NODES": "2"}
    done = subprocess.run(
        ["bash", LAUNCH / "torchrun.sh", "a.yaml"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "RENDEZVOUS must be HOST:PORT" in done.stderr


def test_the_kubernetes_file_agrees_with_itself():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(environment["NODES"])
    name = service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert pod["subdomain"] == name and service["spec"]["clusterIP"] == "None"
    port = service["spec"]["ports"][0]["port"]
    assert environment["RENDEZVOUS"] == f"{job['metadata']['name']}-0.{name}:{port}"
    assert int(environment["PROCESSES"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(environment["GRACE_SECONDS"]) < pod["terminationGracePeriodSeconds"]
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [EXIT_STOPPED]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert (ROOT / container["command"][1]).is_file()
    curriculum = load_curriculum(ROOT / container["args"][0], container["args"][1:])
    assert curriculum.data.root == "/data"


def test_every_script_is_bash():
    for script in LAUNCH.glob("*.sh"):
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
