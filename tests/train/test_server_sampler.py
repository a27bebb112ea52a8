"""The server as a sampler: real HTTP on the loopback, by the protocol of OpenAI's chat completions as vLLM has it."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import a_chat
from PIL import Image as Pil

import medvlm.train.objectives.server_sampler as server_sampler
from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef
from medvlm.train.config import ReinforcementConfig
from medvlm.train.objectives.rollouts import Prompt
from medvlm.train.objectives.server_sampler import ServerSampler
from medvlm.train.rewards import asked_of


class Server:
    """Answers with what ``replies`` holds for the n-th request, the last one again and again."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict, dict]] = []
        self.replies: list[tuple[int, object]] = []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.requests)
                    outer.requests.append((self.path, body, dict(self.headers)))
                code, reply = outer.replies[min(number, len(outer.replies) - 1)]
                if code == 0:
                    self.connection.close()  # as a server that dies
                    return
                content = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(server_sampler, "_WAIT_S", 0.01)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def prompt(processor, tmp_path) -> Prompt:
    Pil.fromarray(np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)).save(tmp_path / "a.png")
    picture = VisualRef(kind="image", path="a.png")
    turns = (Turn(role="system", content=("Be brief.",)), Turn(role="user", content=(picture, "Is there a nodule?")))
    sample = Sample(
        sample_id="s", patient_id="p", study_id="s", source="t", licence="CC0-1.0", split="train", turns=turns,
        question=Question(kind="closed", answers=("yes",), choices=("yes", "no")),
    )  # fmt: skip
    rendered = processor.render(a_chat([], "Is there a nodule?"), [], add_generation_prompt=True)
    return Prompt(sample=sample, asked=asked_of(sample), rendered=rendered)


def sampler(processor, server, tmp_path, **changes) -> ServerSampler:
    config = ReinforcementConfig(
        group_size=2,
        max_new_tokens=7,
        temperature=0.9,
        server=server.url,
        server_model="m",
        server_timeout_s=5,
        **changes,
    )
    return ServerSampler(config, processor, seed=3, root=tmp_path)


def choice(processor, text, *, end=True, ids=None, reason="stop"):
    sampled = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    sampled = [*sampled, processor.tokenizer.eos_token_id] if end else sampled
    return {"message": {"content": text}, "finish_reason": reason, "token_ids": sampled if ids is None else ids}


def test_what_is_asked_and_what_is_taken(processor, server, prompt, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVLM_SERVER_KEY", "secret")
    cut = choice(processor, "no, there is", end=False, reason="length")
    server.replies = [(200, {"choices": [choice(processor, "yes"), cut]})]
    groups = sampler(processor, server, tmp_path).write(None, [prompt], step=0)
    assert [(answer.text, answer.cut_off) for answer in groups[0]] == [("yes", False), ("no, there is", True)]
    assert groups[0][0].tokens.tolist()[-1] == processor.tokenizer.eos_token_id
    path, body, headers = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["n"], body["max_tokens"], body["temperature"]) == ("m", 2, 7, 0.9)
    assert body["return_token_ids"] is True
    assert body["messages"][0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    shown, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "Is there a nodule?"}
    head, _, encoded = shown["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = np.asarray(Pil.open(io.BytesIO(base64.b64decode(encoded))))
    assert np.array_equal(sent, np.asarray(Pil.open(tmp_path / "a.png"))), "pixels and sides as they are"


def test_seeds_are_those_of_the_step_and_the_sample(processor, server, prompt, tmp_path):
    server.replies = [(200, {"choices": [choice(processor, "yes")] * 2})]
    asking = sampler(processor, server, tmp_path)
    asking.write(None, [prompt, prompt], step=0)
    asking.write(None, [prompt], step=1)
    asking.write(None, [prompt], step=0)
    first, second, later, again = (request[1]["seed"] for request in server.requests)
    assert len({first, second, later}) == 3 and again in (first, second)


@pytest.mark.parametrize("fault", [(503, {"error": "busy"}), (429, {"error": "slow down"}), (0, "")])
def test_faults_that_pass_are_tried_again(processor, server, prompt, tmp_path, fault):
    server.replies = [fault, fault, (200, {"choices": [choice(processor, "yes")] * 2})]
    groups = sampler(processor, server, tmp_path).write(None, [prompt], step=0)
    assert [answer.text for answer in groups[0]] == ["yes", "yes"] and len(server.requests) == 3


def test_a_server_that_never_answers_is_given_up(processor, server, prompt, tmp_path):
    server.replies = [(503, {"error": "loading"})]
    with pytest.raises(ConnectionError, match=r"gave no answer in 3 tries \(503 .*start the server"):
        sampler(processor, server, tmp_path, server_retries=2).write(None, [prompt], step=0)
    assert len(server.requests) == 3


REFUSED = {
    "a request that it does not take": ((400, {"error": "context too long"}), "400 .*context too long"),
    "no JSON": ((200, "<html>"), "not JSON"),
    "another number of answers": ((200, {"choices": []}), "0 answers instead of 2"),
    "no ids": ((200, {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}] * 2}), "without token_ids"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_replies_that_cannot_be_learnt_from_are_refused(processor, server, prompt, tmp_path, case):
    reply, words = REFUSED[case]
    server.replies = [reply]
    with pytest.raises(ValueError, match=words):
        sampler(processor, server, tmp_path).write(None, [prompt], step=0)
    assert len(server.requests) == 1, "asking again would not help"


def test_ids_of_another_tokenizer_are_refused(processor, server, prompt, tmp_path):
    other = choice(processor, "yes", ids=[5, 6, processor.tokenizer.eos_token_id])
    server.replies = [(200, {"choices": [other, other]})]
    with pytest.raises(ValueError, match="its tokenizer is another"):
        sampler(processor, server, tmp_path).write(None, [prompt], step=0)
