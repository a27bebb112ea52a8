"""A real server of a real model: `transformers serve` answers as the model does when it is loaded here."""

import multiprocessing
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation_fixtures import samples_of, write_manifest, write_visuals
from external_families import make_checkpoint

from medvlm.eval.choose_model import ModelOptions, choose_model
from medvlm.eval.endpoint import EndpointModel, EndpointOptions
from medvlm.eval.run import Settings, evaluate
from medvlm.eval.run_folder import responses_of
from medvlm.eval.slice_sets import SlicePolicy

pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn: pip install -e '.[dev]'")
pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn: pip install -e '.[dev]'")

FEW = SlicePolicy(slices=2, frames=2, windows=("lung",), longest=32)


def _serve(command: list[str], log: Path) -> None:
    """The command, in a process of its own that prints to a file."""
    from transformers.cli.transformers import main

    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = command
    main()


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """(folder of a tiny Gemma 3, base URL of a server of it)."""
    folder = make_checkpoint("gemma3", tmp_path_factory.mktemp("gemma"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["transformers", "serve", str(folder), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    # Forked: importing transformers anew costs more than all the answers.
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(command, folder.parent / "serve.log"))
    server.start()
    try:
        for _ in range(300):
            if not server.is_alive():
                pytest.fail(f"transformers serve ended: {(folder.parent / 'serve.log').read_text()[-800:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.join(timeout=20)
        server.kill()


@pytest.mark.slow
def test_the_server_answers_as_the_model_does_here(served, tmp_path):
    checkpoint, url = served
    write_visuals(tmp_path, 2)
    samples = [s for p in range(2) for s in samples_of(p, ("image", "volume")) if s.question.kind != "report"]
    manifest = write_manifest(tmp_path / "m.jsonl", samples)
    settings = Settings(conditions=("image",), max_new_tokens=8)
    remote = EndpointModel(url, str(checkpoint), EndpointOptions(concurrency=2, timeout_s=60, retries=1), policy=FEW)
    evaluate(remote, [manifest], tmp_path / "remote", settings, gallery_size=1)
    local = choose_model(f"transformers:{checkpoint}", ModelOptions(device="cpu", batch_size=1, slices=FEW))
    evaluate(local, [manifest], tmp_path / "local", settings, gallery_size=1)
    here = {row["request_id"]: row["text"] for row in responses_of(tmp_path / "local")}
    there = {row["request_id"]: row["text"] for row in responses_of(tmp_path / "remote")}
    assert len(there) == 16 and len(set(there.values())) >= 3
    assert there == here
