"""A small server that speaks the chat completions protocol over real HTTP on loopback, and fails as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """Answers "yes" or "no" by a hash of the conversation, so that the same question always has the same answer.

    Attributes:
        faults: what the next requests meet: a status, "slow", or "cut" (the connection is closed).
        seen: conversations -> how often they came.
        answered: conversations -> how often they were answered with 200.
        down: every request is cut off while set.
        down_after: the server goes down by itself when it has answered so many.
    """

    def __init__(self) -> None:
        self.faults: list[int | str] = []
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.down = False
        self.down_after: int | None = None
        self.refuse = ""
        self.bodies: list[dict[str, Any]] = []
        self.most_at_once = 0
        self.pause_s = 0.0
        self._now = 0
        self._lock = threading.Lock()

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        name = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
        with self._lock:
            self.seen[name] += 1
            self.bodies.append(body)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            fault = self.faults.pop(0) if self.faults else None
            if self.down_after is not None and self.answered.total() >= self.down_after:
                self.down = True
        try:
            self._answer(handler, body, name, "cut" if self.down else fault)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict, name: str, fault: int | str | None) -> None:
        time.sleep(self.pause_s)
        if fault == "cut":
            handler.close_connection = True
            handler.connection.close()
            return
        if fault == "slow":
            time.sleep(1.5)
            handler.close_connection = True
            return
        if isinstance(fault, int):
            _send(handler, fault, {"error": {"message": f"told to say {fault}"}}, {"Retry-After": "0.05"})
            return
        text = json.dumps(body["messages"])
        if self.refuse and self.refuse in text:
            _send(handler, 400, {"error": {"message": "the prompt is longer than the context"}})
            return
        with self._lock:
            self.answered[name] += 1
        word = ("yes", "no")[int(name, 16) % 2]
        message = {"role": "assistant", "content": word}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            tokens = [{"token": word, "logprob": -0.25, "bytes": None, "top_logprobs": []}]
            choice["logprobs"] = {
                "content": [*tokens, {"token": "", "logprob": -0.25, "bytes": None, "top_logprobs": []}]
            }
        usage = {"prompt_tokens": 1000, "completion_tokens": 1, "total_tokens": 1001}
        _send(handler, 200, {
            "id": "chat-1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice],
            "usage": usage,
        })  # fmt: skip


def _send(handler: BaseHTTPRequestHandler, status: int, body: dict, headers: dict[str, str] | None = None) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


@contextmanager
def serving() -> Iterator[tuple[ChatServer, str]]:
    """(server, its base URL)."""
    chat = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            chat.reply(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield chat, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
