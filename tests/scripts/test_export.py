"""medvlm export: a folder that others load, its card, a merge that is proved, and an upload to a hub of our own."""

import base64
import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from conftest import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.sample import Sample, Turn
from medvlm.model import load_checkpoint, save_checkpoint
from medvlm.scripts import export
from medvlm.scripts.cli import main as cli
from medvlm.train.adapter import save_adapter
from medvlm.train.lora import add_lora
from medvlm.train.settings.lora import Lora

REPOSITORY = "my-hospital/ct-report"


@pytest.fixture
def checkpoint(processor, tmp_path) -> Path:
    model = tiny_model(processor)
    model.generation_config.eos_token_id = sorted(processor.end_ids)
    return save_checkpoint(tmp_path / "base", model, processor)


def logits(model, processor):
    with torch.no_grad():
        return model(**export.probe_pack(processor).model_inputs()).logits


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_folder_loads_and_its_card_says_what_matters(checkpoint, processor, tmp_path, capsys):
    out = tmp_path / "release" / "model"
    assert cli(["export", str(checkpoint), "--out", str(out), "--licence", "apache-2.0"]) == 0
    assert f"written: {out}" in capsys.readouterr().out
    model, again = load_checkpoint(out)
    assert torch.equal(logits(model, again), logits(load_checkpoint(checkpoint)[0], processor))
    card = (out / "README.md").read_text(encoding="utf-8")
    front = front_matter(card)
    assert front["license"] == "apache-2.0" and front["pipeline_tag"] == "image-text-to-text"
    assert "base_model" not in front, "a local folder is no id of a hub"
    assert "**Not for clinical use.**" in card and "AutoModelForImageTextToText.from_pretrained(" in card
    assert "- base (a local folder)" in card and str(tmp_path) not in card, "no path of this machine"
    assert not list(out.rglob("*.py")) and not list(out.parent.glob("*unfinished*"))
    assert cli(["export", str(checkpoint), "--out", str(out)]) == 2
    assert "exists; name a folder that does not" in capsys.readouterr().err


def test_half_the_size_when_asked(checkpoint, tmp_path):
    assert cli(["export", str(checkpoint), "--out", str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (checkpoint, tmp_path / "half")]
    assert sizes[1] < 0.55 * sizes[0]
    model, processor = load_checkpoint(tmp_path / "half", dtype=torch.float32)
    whole = logits(load_checkpoint(checkpoint)[0], processor)
    assert 0 < (logits(model, processor) - whole).abs().max() < 0.1 * whole.abs().max()


def an_adapter(processor, folder: Path) -> torch.Tensor:
    model = tiny_model(processor)
    add_lora(model, Lora(rank=4, targets=("text.all", "projector.all")))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    save_adapter(folder, model, base="base")
    return logits(model, processor)


def test_an_adapter_is_merged_into_its_base(checkpoint, processor, tmp_path, capsys):
    expected = an_adapter(processor, tmp_path / "adapter")
    merged = tmp_path / "merged"
    assert cli(["export", str(checkpoint), "--merge", str(tmp_path / "adapter"), "--out", str(merged)]) == 0
    assert "merged: the logits moved by" in capsys.readouterr().out
    model, again = load_checkpoint(merged)
    torch.testing.assert_close(logits(model, again), expected, atol=1e-4, rtol=1e-4)
    assert "The adapter was merged into the weights" in (merged / "README.md").read_text()
    assert cli(["export", str(merged), "--merge", str(checkpoint), "--out", str(tmp_path / "no")]) == 2
    assert "holds no adapter_config.json" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_a_merge_that_moves_the_logits_writes_nothing(checkpoint, processor, tmp_path, monkeypatch, capsys):
    an_adapter(processor, tmp_path / "adapter")
    whole = export.merge_lora

    def faulty(model, probe):
        layer = model.get_submodule("projector.up")
        merge = layer.merge

        def damaging(**options):
            merge(**options)
            with torch.no_grad():
                layer.get_base_layer().weight[0, 0] += 10

        layer.merge = damaging  # a fault planted into the real model
        return whole(model, probe)

    monkeypatch.setattr(export, "merge_lora", faulty)
    out = tmp_path / "merged"
    assert cli(["export", str(checkpoint), "--merge", str(tmp_path / "adapter"), "--out", str(out)]) == 2
    assert "merging the adapters moved the output of projector.up" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob("*unfinished*"))


def test_the_decoder_alone_is_a_plain_language_model(checkpoint, tmp_path):
    out = tmp_path / "decoder"
    assert cli(["export", str(checkpoint), "--out", str(out), "--decoder-only"]) == 0
    code = (
        "import sys; sys.modules['medvlm'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"m = AutoModelForCausalLM.from_pretrained({str(out)!r}); t = AutoTokenizer.from_pretrained({str(out)!r})\n"
        "print(m.config.model_type, m.generate(**t('left', return_tensors='pt'), max_new_tokens=2).shape[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["qwen3", "1"], done.stderr
    text = load_checkpoint(checkpoint)[0].text
    alone = AutoModelForCausalLM.from_pretrained(out)
    for name, tensor in text.state_dict().items():
        assert torch.equal(alone.state_dict()[name], tensor), name
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert alone.generation_config.eos_token_id == [tokenizer.eos_token_id] and tokenizer.chat_template
    card = (out / "README.md").read_text()
    assert front_matter(card)["pipeline_tag"] == "text-generation" and "it sees no image" in card


RUN = """\
name: ct-report
output_dir: {run}
model:
  pretrained: some-lab/base-model
data: {{root: {data}}}
stages:
  - name: tune
    mixture: [{{manifest: train.jsonl}}, {{manifest: gone.jsonl}}]
    learning_rate: {{projector: 1e-3}}
    steps: 5
"""


def test_the_card_of_a_run(checkpoint, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    stage = run / "stages" / "01-tune"
    stage.mkdir(parents=True)
    data.mkdir()
    (run / "curriculum.yaml").write_text(RUN.format(run=run, data=data))
    (stage / "done.json").write_text(json.dumps({"trained": {"projector": 1234}, "steps": 5}))
    checkpoint.rename(stage / "checkpoint")
    turns = (Turn(role="user", content=("Side?",)), Turn(role="assistant", content=("left",)))
    rows = [
        Sample(
            sample_id=f"s{n}",
            patient_id=f"p{n}",
            study_id=f"t{n}",
            source="phantoms",
            licence="CC0-1.0",
            split="train",
            turns=turns,
        )
        for n in range(3)
    ]
    write_manifest(data / "train.jsonl", rows)
    table = [
        {"condition": "image", "dimension": "3d", "topic": "all", "metric": "closed_accuracy", "value": 0.75,
         "low": 0.5, "high": 0.9, "n": 40, "n_clusters": 20},
        {"condition": "image", "dimension": "3d", "topic": "side", "metric": "closed_accuracy", "value": 0.1,
         "low": None, "high": None, "n": 4, "n_clusters": 2},
    ]  # fmt: skip
    (run / "evaluation").mkdir()
    (run / "evaluation" / "metrics.json").write_text(
        json.dumps({"run": {"manifests": ["/x/test.jsonl"]}, "table": table})
    )
    out = tmp_path / "out"
    arguments = ["export", str(stage / "checkpoint"), "--out", str(out), "--evaluation", str(run / "evaluation")]
    assert cli(arguments) == 0
    card = (out / "README.md").read_text()
    front = front_matter(card)
    assert front["base_model"] == ["some-lab/base-model"] and "license" not in front
    assert "| tune | supervised | projector 1,234 | 5 |" in card
    assert "| phantoms | CC0-1.0 | train | 3 |" in card and "Not found when this card was written: gone.jsonl" in card
    assert "| closed_accuracy | image | 3d | 0.750 | 0.500 to 0.900 | 40 | 20 |" in card and "0.100" not in card
    assert "Not stated by the exporter" in card and "medvlm " in card
    start = run / "stages" / "00-start"
    start.mkdir()
    (stage / "checkpoint").rename(start / "checkpoint")
    assert cli(["export", str(start / "checkpoint"), "--out", str(tmp_path / "start")]) == 0
    card = (tmp_path / "start" / "README.md").read_text()
    assert "tune" not in card and "phantoms" not in card, "a checkpoint says nothing of stages that came after it"


def test_wrong_use_is_said_before_anything_is_written(checkpoint, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    for arguments, said in (
        ([str(checkpoint), *out, "--push-to-hub", "no-organisation"], "write ORG/NAME"),
        ([str(checkpoint), *out, "--private"], "add --push-to-hub ORG/NAME"),
        ([str(tmp_path / "absent" / "x"), *out], "holds no config.json"),
        ([str(checkpoint), *out, "--run", str(tmp_path)], "holds no curriculum.yaml"),
        ([str(checkpoint), *out, "--evaluation", str(tmp_path)], "holds no metrics.json"),
    ):
        assert cli(["export", *arguments]) == 2
        assert said in capsys.readouterr().err, arguments
        assert not (tmp_path / "out").exists()


class Hub(ThreadingHTTPServer):
    """The part of the Hugging Face hub's HTTP API that an upload speaks, with a repository in memory."""

    daemon_threads = True

    def __init__(self, refuses: bool = False, public: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.refuses, self.public = refuses, public
        self.created: list[dict] = []
        self.objects: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.tokens: set[str] = set()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._body()
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{REPOSITORY}"):
            self._answer(
                {"id": REPOSITORY, "sha": "0" * 40, "private": not self.server.public, "siblings": [], "tags": []}
            )
        else:
            self.server.unknown.append(f"GET {path}")
            self._answer({"error": "not found"}, 404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.objects[self.path.rpartition("/")[2]] = body
        self._answer({})

    def do_POST(self) -> None:
        hub, path, body = self.server, self.path.split("?")[0], self._body()
        hub.tokens.add(self.headers.get("Authorization", ""))
        if hub.refuses:
            self._answer({"error": "You don't have the rights to create a model under this namespace"}, 403)
        elif path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer({"url": f"{hub.address}/{REPOSITORY}", "id": REPOSITORY, "name": REPOSITORY})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path == f"/api/models/{REPOSITORY}/preupload/main":
            large = (".safetensors", ".json")
            self._answer({"files": [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(large) else "regular",
                 "shouldIgnore": False} for f in json.loads(body)["files"]
            ]})  # fmt: skip
        elif path == f"/{REPOSITORY}.git/info/lfs/objects/batch":
            self._answer({"transfer": "basic", "objects": [
                {**o, "authenticated": True, "actions": {"upload": {"href": f"{hub.address}/objects/{o['oid']}",
                                                                    "header": {}}}}
                for o in json.loads(body)["objects"]
            ]})  # fmt: skip
        elif path == f"/api/models/{REPOSITORY}/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            hub.unknown.append(f"POST {path}")
            self._answer({"error": "not found"}, 404)

    def _commit(self, lines: list[dict]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
        url = f"{self.server.address}/{REPOSITORY}/commit/{'1' * 40}"
        self._answer({"commitUrl": url, "commitOid": "1" * 40, "success": True})


@pytest.fixture
def online(monkeypatch):
    """A function that makes a hub and turns the library to it, as HF_ENDPOINT and HF_TOKEN do."""
    hubs = []

    def turn(hub: Hub) -> Hub:
        hubs.append(hub)
        monkeypatch.setenv("HF_TOKEN", "hf_ours")
        # HF_ENDPOINT and the others are read once, when the library is imported.
        for name, value in {"ENDPOINT": hub.address, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        return hub

    yield turn
    for hub in hubs:
        hub.shutdown()
        hub.server_close()


def test_the_folder_is_uploaded_whole(checkpoint, tmp_path, online, capsys):
    hub, out = online(Hub()), tmp_path / "out"
    assert cli(["export", str(checkpoint), "--out", str(out), "--push-to-hub", REPOSITORY, "--private"]) == 0
    said = capsys.readouterr()
    assert f"uploaded: {hub.address}/{REPOSITORY}" in said.out and "hf_ours" not in said.out + said.err
    created = hub.created[0]
    assert f"{created['organization']}/{created['name']}" == REPOSITORY and created["visibility"] == "private"
    assert hub.tokens == {"Bearer hf_ours"}
    assert not [call for call in hub.unknown if call.startswith("POST")], "no step of the upload was left out here"
    assert set(hub.files) == {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    for name, content in hub.files.items():
        assert hashlib.sha256(content).digest() == hashlib.sha256((out / name).read_bytes()).digest(), name


def test_a_hub_that_refuses_is_quoted_and_the_folder_stays(checkpoint, tmp_path, online, capsys):
    online(Hub(refuses=True))
    out = tmp_path / "out"
    assert cli(["export", str(checkpoint), "--out", str(out), "--push-to-hub", REPOSITORY]) == 2
    said = capsys.readouterr().err
    assert "403" in said and f"upload it later with `hf upload {REPOSITORY}" in said and (out / "config.json").is_file()


def test_a_hub_that_is_not_there_is_said(tmp_path, online, monkeypatch):
    hub = online(Hub())
    hub.shutdown()
    hub.server_close()
    with pytest.raises(OSError, match=r"cannot be reached .*; .* is whole: upload it later with `hf upload"):
        export.push_to_hub(tmp_path, REPOSITORY)


def test_nothing_goes_into_a_public_repository_when_private_is_asked_for(tmp_path, online):
    hub = online(Hub(public=True))
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="is public, so nothing was uploaded"):
        export.push_to_hub(tmp_path, REPOSITORY, private=True)
    assert not hub.files and not hub.objects
