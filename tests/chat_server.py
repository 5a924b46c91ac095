"""A server that speaks OpenAI's chat completions on a local port: it labels by rules, and misbehaves by script."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PLACES = {"london": "GPE", "alps": "LOC", "monday": "DATE", "jane austen": "PERSON", "two": "CARDINAL"}


def entities(text: str) -> list[dict[str, str]]:
    """What the server finds in a text."""
    found = re.finditer("|".join(PLACES), text.lower())
    return [{"tag": PLACES[each[0]], "phrase": text[each.start() : each.end()]} for each in found]


@dataclass
class ChatServer:
    """The server's script and its memory.

    Attributes:
        script: transcript -> what to do instead of answering, once for each entry: a status ("429", "500", ...), "hang",
            "trickle", "reset", "refusal", "length", "nothing", or a text to answer.
        refuses: words that make a request a bad one if they occur as its keys or as the type of its response format.
        retry_after: the header that goes with 429 and 503.
        delay_seconds: before each answer.
        asked: (transcript, when), in the order in which they came.
        answered: transcripts whose answer was sent whole.
        bodies: the requests.
        most_at_once: how many requests there were at the same time.
    """

    address: str = ""
    script: dict[str, list[str]] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    retry_after: str | None = "0.05"
    delay_seconds: float = 0.0
    asked: list[tuple[str, float]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def times_asked(self) -> Counter[str]:
        """How often each transcript was asked for."""
        return Counter(transcript for transcript, _ in self.asked)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        transcript = body["messages"][-1]["content"].rpartition("Transcript: ")[2]
        with self._lock:
            self.asked.append((transcript, time.monotonic()))
            self.bodies.append(body)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            todo = self.script.get(transcript, [])
            action = todo.pop(0) if todo else ""
        try:
            time.sleep(self.delay_seconds)
            self._act(handler, body, transcript, action)
        finally:
            with self._lock:
                self._now -= 1

    def _act(self, handler: http.server.BaseHTTPRequestHandler, body: dict[str, Any], transcript: str, action: str) -> None:
        form = body.get("response_format", {}).get("type")
        if refused := self.refuses & {*body, form}:
            message = {"max_tokens": "use 'max_completion_tokens' instead"}.get(
                min(refused), f"'{min(refused)}' is not supported"
            )
            send(handler, 400, {"error": {"message": message, "type": "invalid_request_error"}})
        elif action.isdigit():
            header = {"Retry-After": self.retry_after} if self.retry_after and action in ("429", "503") else {}
            send(handler, int(action), {"error": {"message": f"scripted {action}", "code": None}}, header)
        elif action == "quota":
            send(handler, 429, {"error": {"message": "you exceeded your quota", "code": "insufficient_quota"}})
        elif action == "hang":
            self.over.wait(30)
        elif action == "trickle":
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not self.over.wait(0.05):
                handler.wfile.write(b" ")
                handler.wfile.flush()
        elif action == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(handler.connection.detach())  # close() would wait for the files that were made of it
        elif action == "nothing":
            send(handler, 200, completion("") | {"choices": []})
        elif action == "not json":
            send(handler, 200, b"<html>busy</html>", {"Content-Type": "application/json"})
        else:
            made = (
                json.dumps({"entities": entities(transcript)})
                if "named entities" in body["messages"][0]["content"]
                else (json.dumps({"sentiment": "Positive" if "good" in transcript else "Neutral"}))
            )
            refusal, reason = ("no", "stop") if action == "refusal" else (None, "length" if action == "length" else "stop")
            send(handler, 200, completion(made if action in ("", "refusal", "length") else action, refusal, reason))
            self.answered.append(transcript)


def completion(content: str, refusal: str | None = None, reason: str = "stop") -> dict[str, Any]:
    """A chat completion, which cost 100 tokens and 10."""
    message = {"role": "assistant", "content": None if refusal else content, "refusal": refusal}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "rules",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 110,
            "prompt_tokens_details": {"cached_tokens": 40},
        },
    }


def send(handler: http.server.BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    """Send a whole response."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)
    handler.wfile.flush()


@contextmanager
def running() -> Iterator[ChatServer]:
    """A server that runs while the context lasts."""
    chat = ChatServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                chat.answer(self)
            except (ConnectionError, ValueError, OSError):  # whoever asked is gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    chat.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        chat.over.set()
        server.shutdown()
        server.server_close()
