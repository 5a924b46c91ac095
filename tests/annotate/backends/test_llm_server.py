"""The real client against a real LLM behind a real server: SmolLM2, served by `transformers serve`."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stapes.annotate import prompt
from stapes.annotate.backends import endpoint
from stapes.annotate.backends.base import Answer, Question
from stapes.annotate.backends.endpoint import EndpointBackend

pytestmark = pytest.mark.weights
pytest.importorskip("fastapi", reason="`transformers serve` needs fastapi, which is in the extra dev")

SHOTS = [
    ("we met in rome", {"entities": [{"tag": "GPE", "phrase": "rome"}]}),
    ("let us begin", {"entities": []}),
    ("it was on friday", {"entities": [{"tag": "DATE", "phrase": "friday"}]}),
]
TEXTS = ("mister smith went to london on monday", "thank you very much")
START_SECONDS = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has just been started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [Path(sys.executable).with_name("transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def test_an_llm_answers_and_its_tokens_are_counted(server: str, pack: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoint, "MAX_TOKENS", 64)  # the server goes on writing when nobody listens any more
    folder = str(pack("smollm2-135m-instruct"))

    async def ask() -> list[Answer]:
        backend = EndpointBackend(folder, "ner", server, retries=0)
        try:
            questions = [Question(text, text, tuple(prompt.messages("ner", SHOTS, text))) for text in TEXTS]
            return await asyncio.gather(*map(backend.ask, questions))
        finally:
            await backend.close()

    for answer in asyncio.run(ask()):
        assert answer.labels is not None, answer.failure
        assert answer.usage.requests >= 1
        assert answer.usage.prompt_tokens > 50 * answer.usage.requests
        assert 0 < answer.usage.completion_tokens <= 64 * answer.usage.requests
