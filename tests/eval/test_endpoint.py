"""An evaluation over real HTTP: retries, timeouts, refusals, an outage in the middle; nothing lost, nothing twice."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import a_video, a_volume, an_image
from endpoint_server import serving
from evaluation_fixtures import a_sample, samples_of, visual_of, write_manifest, write_visuals

from medvlm.data_recipes.sample import Question, Turn
from medvlm.eval.choose_model import ModelOptions, choose_model
from medvlm.eval.endpoint import EndpointModel, EndpointOptions, messages_of
from medvlm.eval.governance import check_may_leave, is_local
from medvlm.eval.models import Request
from medvlm.eval.rows import read_rows
from medvlm.eval.run import Settings, evaluate, main
from medvlm.eval.run_folder import responses_of
from medvlm.eval.slice_sets import SlicePolicy

pytest.importorskip("openai", reason="endpoints need the openai package: pip install 'medvlm[endpoint]'")

IMAGE = Settings(conditions=("image",))
TWELVE = Settings(conditions=("image",), limit=12)
QUICK = EndpointOptions(concurrency=4, timeout_s=0.8, retries=3, longest_pause_s=0.05)
FEW = SlicePolicy(slices=2, frames=2, windows=("lung",))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_visuals(folder, 6)
    samples = [s for p in range(6) for s in samples_of(p) if s.question.kind != "report"]
    return write_manifest(folder / "m.jsonl", samples)


@pytest.fixture
def server():
    with serving() as both:
        yield both


def asked(manifest: Path, url: str, out: Path, options: EndpointOptions = QUICK) -> dict:
    return evaluate(
        EndpointModel(url, "tiny", options, policy=FEW), [manifest], out, IMAGE, chunk_size=8, gallery_size=1
    )


@pytest.fixture(scope="module")
def calm(manifest, tmp_path_factory) -> tuple[Path, dict]:
    """A run without any fault, and its metrics: every question was answered once."""
    out = tmp_path_factory.mktemp("calm") / "run"
    with serving() as (chat, url):
        metrics = asked(manifest, url, out)
        assert set(chat.answered.values()) == {1} and len(chat.answered) == 72
    return out, metrics


def test_faults_that_pass_are_asked_again_and_change_nothing(manifest, calm, server, tmp_path):
    chat, url = server
    chat.faults = [429, 503, "cut", "slow", 500, 408]
    stormy = asked(manifest, url, tmp_path / "stormy")
    assert chat.faults == []
    assert stormy["table"] == calm[1]["table"] and stormy["counts"] == calm[1]["counts"]
    assert (calm[0] / "scores.jsonl").read_bytes() == (tmp_path / "stormy" / "scores.jsonl").read_bytes()
    timings = read_rows(tmp_path / "stormy" / "timings.rank0.jsonl")
    assert sum(row["attempts"] for row in timings) == len(timings) + 6, "every attempt is counted"
    assert {row["prompt_tokens"] for row in timings} == {1000.0}


def test_an_outage_in_the_middle_loses_nothing_and_counts_nothing_twice(manifest, calm, server, tmp_path):
    chat, url = server
    count = len(responses_of(calm[0]))
    chat.down_after = count // 3
    with pytest.raises(ValueError, match=r"does not answer \(no connection, 4 times\); what was answered is kept"):
        asked(manifest, url, tmp_path / "out")
    kept = responses_of(tmp_path / "out")
    assert len(kept) == chat.answered.total() >= count // 3, "what was answered before the outage is on disk"
    chat.down, chat.down_after = False, None
    again = asked(manifest, url, tmp_path / "out")
    assert again["table"] == calm[1]["table"] and again["counts"] == calm[1]["counts"]
    assert set(chat.answered.values()) == {1} and len(chat.answered) == count, "no question was answered twice"
    assert (tmp_path / "out" / "scores.jsonl").read_bytes() == (calm[0] / "scores.jsonl").read_bytes()


def test_what_the_server_refuses_is_quarantined_with_its_reason(manifest, server, tmp_path):
    chat, url = server
    chat.refuse = "On which side?"
    metrics = asked(manifest, url, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "quarantine.jsonl")
    assert len(rows) == 18 == metrics["run"]["quarantined"]
    assert all("status 400): the prompt is longer than the context" in row["reason"] for row in rows)
    assert metrics["counts"]["responses"] == 72 - 18


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses the key in OPENAI_API_KEY"), (404, "knows no model 'tiny'")]
)
def test_what_no_retry_mends_stops_the_run_at_once(manifest, server, tmp_path, status, said):
    chat, url = server
    chat.faults = [status] * 200
    with pytest.raises(ValueError, match=said):
        asked(manifest, url, tmp_path / "run")
    assert chat.seen.total() <= 8, "one chunk at most was tried"


def test_several_are_on_their_way_and_no_more_than_allowed(manifest, server, tmp_path):
    chat, url = server
    chat.pause_s = 0.05
    asked(manifest, url, tmp_path / "run", EndpointOptions(concurrency=3, timeout_s=5, retries=0))
    assert chat.most_at_once == 3


def test_confidence_cost_and_further_fields(manifest, server, tmp_path):
    chat, url = server
    options = EndpointOptions(
        input_price=2.0, output_price=10.0, extra={"chat_template_kwargs": {"enable_thinking": False}}
    )
    model = EndpointModel(url, "tiny", options, confidence=True, policy=FEW)
    evaluate(model, [manifest], tmp_path / "run", TWELVE, gallery_size=1)
    confidences = [row["confidence"] for row in responses_of(tmp_path / "run")]
    assert confidences == pytest.approx([np.exp(-0.5)] * 12, abs=1e-4)
    assert read_rows(tmp_path / "run" / "timings.rank0.jsonl")[0]["cost"] == pytest.approx((1000 * 2 + 1 * 10) / 1e6)
    assert chat.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat.bodies[0]["temperature"] == 0 and chat.bodies[0]["max_tokens"] > 0


@pytest.mark.parametrize(("kind", "visual"), [("image", an_image()), ("volume", a_volume()), ("video", a_video())])
def test_pictures_stand_in_their_places(kind, visual, server):
    model = EndpointModel(server[1], "tiny", policy=FEW)
    turn = Turn(role="user", content=("Before", visual_of(0, kind), "after?"))
    request = Request(
        request_id="00", sample_id="0", turns=(turn,), question=Question(kind="open", answers=("x",)),
        visuals=(model.prepare(visual),), max_new_tokens=4,
    )  # fmt: skip
    parts = messages_of(request)[0]["content"]
    assert parts[0] == {"type": "text", "text": "Before"} and parts[-1] == {"type": "text", "text": "after?"}
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert len(urls) == {"image": 1, "volume": 2, "video": 2}[kind]
    assert all(url.startswith("data:image/png;base64,") for url in urls)


def test_a_policy_of_slices_belongs_to_the_run(manifest, server, tmp_path):
    out = tmp_path / "run"
    evaluate(EndpointModel(server[1], "tiny", QUICK, policy=FEW), [manifest], out, TWELVE, gallery_size=1)
    with pytest.raises(ValueError, match="give another folder"):
        evaluate(EndpointModel(server[1], "tiny", QUICK, policy=SlicePolicy(slices=3)), [manifest], out, TWELVE)


def test_data_that_are_not_open_stay_here_unless_approved(manifest, tmp_path):
    assert is_local("http://127.0.0.1:1/v1") and is_local("http://localhost/v1") and is_local("http://[::1]:80/v1")
    assert not is_local("http://10.0.0.7/v1") and not is_local("https://localhost.example.org/v1")
    check_may_leave("open", "https://api.example.org/v1")
    check_may_leave("credentialed", "http://127.0.0.1:8000/v1")
    check_may_leave("credentialed", "https://api.example.org/v1", ["api.example.org"])
    with pytest.raises(ValueError, match=r"credentialed data would be sent to api.example.org.*--approved-endpoint"):
        check_may_leave("credentialed", "https://api.example.org/v1", ["example.org"])
    remote = EndpointModel("https://api.example.org/v1", "big", QUICK)
    with pytest.raises(ValueError, match="your own data would be sent to api"):
        evaluate(remote, [manifest], tmp_path / "run", IMAGE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("endpoint:http://127.0.0.1/v1", "which model"),
        ("endpoint:127.0.0.1:80#m", "is no URL"),
        ("endpoint:http://me:secret@127.0.0.1/v1#m", "holds a password"),
    ],
)
def test_names_that_say_too_little_or_too_much(name, said):
    with pytest.raises(ValueError, match=said):
        choose_model(name)
    with pytest.raises(ValueError, match="--dtype means nothing"):
        choose_model("endpoint:http://127.0.0.1/v1#m", ModelOptions(dtype="float16"))


def test_the_command_line_asks_an_endpoint_and_keeps_the_key_to_itself(manifest, server, tmp_path, monkeypatch, capsys):
    _, url = server
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    arguments = ["--model", f"endpoint:{url}#tiny", "--data", str(manifest), "--out", str(tmp_path / "run")]
    arguments += ["--limit", "6", "--conditions", "image", "--key-variable", "MY_KEY", "--concurrency", "2"]
    assert main([*arguments, "--slices", "slices=2,frames=2", "--price", "1", "1"]) == 0
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "run").glob("*.json*"))
    assert "sk-very-secret" not in written + capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["model"] == f"endpoint:{url}#tiny"
    text_only = Question(kind="closed", answers=("yes",), choices=("yes", "no"))
    rows = write_manifest(tmp_path / "t.jsonl", [a_sample(0, "text", "q", "Is it?", text_only, False)])
    assert evaluate(EndpointModel(url, "tiny"), [rows], tmp_path / "text", IMAGE)["counts"]["responses"] == 1
