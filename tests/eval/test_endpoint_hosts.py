"""Questions go to the host that was named: a redirect or a proxy takes them nowhere else."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from endpoint_server import serving

from medvlm.data_recipes.sample import Question, Turn
from medvlm.eval.endpoint import EndpointModel, EndpointOptions
from medvlm.eval.governance import is_local
from medvlm.eval.models import Request

pytest.importorskip("openai", reason="endpoints need the openai package: pip install 'medvlm[endpoint]'")

ONE = Request(
    request_id="1" * 24, sample_id="1", turns=(Turn(role="user", content=("Is it there?",)),),
    question=Question(kind="closed", answers=("yes",), choices=("yes", "no")), visuals=(), max_new_tokens=4,
)  # fmt: skip
QUICK = EndpointOptions(timeout_s=2, retries=0)


@pytest.fixture
def elsewhere():
    with serving() as both:
        yield both


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(elsewhere, status):
    chat, url = elsewhere

    class Redirects(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Location", f"{url}/chat/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirects)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        model = EndpointModel(f"http://127.0.0.1:{server.server_address[1]}/v1", "tiny", QUICK)
        with pytest.raises(ValueError, match="which nobody has approved"):
            model.answer([ONE])
    finally:
        server.shutdown()
        server.server_close()
    assert not chat.seen, "the question went to a host that nobody has approved"


def test_a_server_of_this_machine_is_not_asked_through_a_proxy(elsewhere, monkeypatch):
    with serving() as (proxy, proxy_url):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy_url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert EndpointModel(elsewhere[1], "tiny", QUICK).answer([ONE])[0].text in ("yes", "no")
    assert not proxy.seen and elsewhere[0].answered.total() == 1


def test_hosts_that_only_look_like_this_machine():
    for url in ("http://127.0.0.1.example.org/v1", "http://localhost.example.org", "http://localhost:80@example.org"):
        assert not is_local(url)
    assert not is_local("http://example.org\\@127.0.0.1/v1")
    assert is_local("http://[::1]:8000/v1") and is_local("http://127.0.0.1:8000/v1")
