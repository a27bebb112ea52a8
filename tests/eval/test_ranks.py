"""Several processes share one evaluation: the same bytes, killed and resumed, and an end for all when one dies."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import tiny_model
from evaluation_fixtures import samples_of, write_manifest, write_visuals
from launching import FULL, run_group

from medvlm.data_recipes.sample import Turn, VisualRef
from medvlm.eval import run
from medvlm.eval.ranks import ALONE, OtherRankEnded, Ranks, launched
from medvlm.eval.rows import read_rows
from medvlm.model import save_checkpoint

NAMES = ("scores.jsonl", "metrics.json", "extractions.jsonl", "run.json", "requests.jsonl", "quarantine.jsonl")


@pytest.fixture(scope="module")
def case(processor, tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint, and a manifest of which two samples show files that are not there."""
    folder = tmp_path_factory.mktemp("ranks")
    save_checkpoint(folder / "tiny", tiny_model(processor), processor)
    write_visuals(folder, 4)
    samples = [sample for patient in range(4) for sample in samples_of(patient, ("image", "volume"))]
    absent = VisualRef(kind="image", path="absent.png")
    lost = [
        replace(samples[n], sample_id=f"lost-{n}", turns=(Turn(role="user", content=(absent, "Is there?")),))
        for n in range(2)
    ]
    return folder / "tiny", write_manifest(folder / "test.jsonl", [*samples, *lost])


def arguments(case: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return [
        "--model", str(case[0]), "--data", str(case[1]), "--out", str(out), "--conditions", "image", "no_image",
        "--max-new-tokens", "4", "--batch-size", "2", "--device", "cpu", "--gallery", "1", *more,
    ]  # fmt: skip


def _worker(folder: Path, given: list[str]) -> int:
    """What the launcher starts: the command, and what it prints."""
    said = (folder / f"said.{os.environ['RANK']}").open("w")
    with said, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        return run.main(given)


def _launcher(folder: Path, given: list[str], processes: int) -> None:
    """The launcher of torchrun itself. It forks, where the command imports everything anew in each process."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, start_method="fork", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0,
    )  # fmt: skip
    codes = elastic_launch(config, _worker)(folder, given)
    os._exit(max(codes.values()))


def launch(given: list[str], folder: Path, processes: int = 2) -> str:
    """Run the command on several processes; what they printed. The command torchrun itself with MEDVLM_FULL=1."""
    if FULL:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "medvlm.eval.run"]
        done = run_group([*command, *given], 120)
        assert done.returncode == 0, done.stderr
        return done.stdout
    process = multiprocessing.get_context("fork").Process(target=_launcher, args=(folder, given, processes))
    process.start()
    try:
        process.join(timeout=60)
        said = [(folder / f"said.{rank}").read_text() for rank in range(processes)]
        assert process.exitcode == 0, said
    finally:
        process.terminate()  # the launcher ends its workers
        process.join(timeout=20)
    return "".join(said)


def written(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in NAMES}


@pytest.fixture(scope="module")
def one(case, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("one") / "run"
    assert run.main(arguments(case, out)) == 1, "done, but one picture is broken"
    return out


def _rank(rank: int, ranks: int, port: int, work: Callable[[], int], said: Path) -> None:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with said.open("w") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
        code = work()
    os._exit(code)


@contextlib.contextmanager
def started(work: Callable[[], int], ranks: int, folder: Path) -> Iterator[list[multiprocessing.Process]]:
    """Processes without a launcher that watches over them, so that they must notice each other's end themselves."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=_rank, args=(rank, ranks, port, work, folder / f"said.{rank}"), daemon=True)
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def answers(out: Path) -> int:
    return sum(len(read_rows(path, allow_torn=True)) for path in out.glob("responses.rank*.jsonl"))


def test_two_processes_write_the_bytes_of_one(case, one, tmp_path):
    out = tmp_path / "two"
    printed = launch(arguments(case, out), tmp_path)
    assert written(out) == written(one)
    shares = [len(read_rows(out / f"responses.rank{rank}.jsonl")) for rank in range(2)]
    assert min(shares) > 0 and sum(shares) == len(read_rows(one / "responses.rank0.jsonl"))
    assert len(read_rows(out / "quarantine.jsonl")) == 2
    assert printed.count("report.html") == 1  # one process tells
    assert len(read_rows(out / "timings.rank1.jsonl")) == shares[1]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_another_number_goes_on(case, one, tmp_path, victim):
    out = tmp_path / "killed"
    with started(partial(run.main, arguments(case, out)), 2, tmp_path) as processes:
        until = time.monotonic() + 60
        while answers(out) < 6:
            assert all(process.is_alive() for process in processes), (tmp_path / "said.0").read_text()
            assert time.monotonic() < until, "nothing was answered"
            time.sleep(0.002)
        os.kill(processes[victim].pid, signal.SIGKILL)
        survivor = processes[1 - victim]
        survivor.join(timeout=60)
        assert survivor.exitcode == 1
        assert "another process is gone" in (tmp_path / f"said.{1 - victim}").read_text()
    before = answers(out)
    assert 6 <= before < answers(one) and not (out / "scores.jsonl").exists()
    if victim:
        assert run.main(arguments(case, out, "--batch-size", "3")) == 1
    else:
        with started(partial(run.main, arguments(case, out)), 3, tmp_path) as processes:
            for process in processes:
                process.join(timeout=60)
            assert [process.exitcode for process in processes] == [0, 0, 0], (tmp_path / "said.0").read_text()
    assert written(out) == written(one)
    assert answers(out) == answers(one)  # nothing is asked twice


def test_an_error_of_one_process_ends_all(case, one, tmp_path):
    """The first process finds that the run folder belongs to another way of answering."""
    with started(partial(run.main, arguments(case, one, "--answer-by", "likelihood")), 2, tmp_path) as processes:
        for process in processes:
            process.join(timeout=60)
        assert [process.exitcode for process in processes] == [2, 1], "refused, and ended with it"
    assert "holds the answers of answering" in (tmp_path / "said.0").read_text()
    assert "process 0 stopped; its own message says why" in (tmp_path / "said.1").read_text()


def test_alone_without_a_launcher(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with launched() as ranks:
        assert ranks is ALONE and ranks.first and ranks.asks("ff")
        assert ranks.together(lambda: 3) == 3 and ranks.by_first(lambda: 4) == 4
        ranks.same("requests", "text")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="but not RANK"), launched():
        pass


def test_every_request_is_asked_by_exactly_one():
    names = [f"{n * 7919:024x}" for n in range(1000)]
    for size in (1, 2, 3, 7):
        shares = [[n for n in names if Ranks(rank=r, world_size=size).asks(n)] for r in range(size)]
        assert sorted(n for share in shares for n in share) == sorted(names)
        assert min(map(len, shares)) > 0.8 * 1000 / size


def _meetings(out: Path) -> int:
    """What one process sees of four meetings: alike, unlike, a failure of process 1, a failure of process 0."""
    told: list[object] = []

    def fail() -> None:
        raise ValueError("mine")

    with launched() as ranks:
        told += [ranks.by_first(lambda: 7), ranks.together(lambda: ranks.rank)]
        for work in (
            lambda: ranks.same("plan", "same"),
            lambda: ranks.same("plan", str(ranks.rank)),
            lambda: ranks.together(fail if ranks.rank else int),
            lambda: ranks.by_first(fail),
        ):
            try:
                told.append(work())
            except (ValueError, OtherRankEnded) as error:
                told.append(str(error).split(";")[0])
        told.append(ranks.device("cuda"))
        (out / f"{ranks.rank}.json").write_text(json.dumps(told), encoding="utf-8")
    return 0


def test_two_processes_meet_differ_and_fail_together(tmp_path):
    with started(partial(_meetings, tmp_path), 2, tmp_path) as processes:
        for process in processes:
            process.join(timeout=60)
        assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "said.0").read_text()
    differs = "the plan of process 1 differs from that of process 0"
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == [7, 0, None, differs, "process 1 stopped", "mine", "cuda:0"]
    assert second == [None, 1, None, differs, "mine", "process 0 stopped", "cuda:1"]
