"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, and many others.

A request that is not answered (429, 5xx, a timeout, a broken connection) is made again, after as long as ``Retry-After`` says
or with growing pauses. An answer that cannot be used (broken JSON, a refusal, one that was cut off) is asked for again, at most
``ASKED`` times in all. What the server does not know of a request is left out from then on, and said once: the JSON schema
becomes JSON mode and then nothing, ``max_tokens`` becomes ``max_completion_tokens``, the temperature is the model's own.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from stapes.annotate import prompt
from stapes.annotate.backends.base import Answer, Backend, Question, Usage
from stapes.annotate.prompt import BadAnswer, Task
from stapes.errors import AnnotationError, MissingDependency

MAX_TOKENS = 1024
ASKED = 3
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
RETRIED = frozenset({408, 409, 425, 429})
HOPELESS = {401: "the key is refused", 403: "no permission", 404: "no such model or address", 405: "not a chat endpoint"}


class EndpointBackend(Backend):
    """A chat-completions endpoint, asked by the ``openai`` client with the key in ``OPENAI_API_KEY``.

    Args:
        model: its name, as the server knows it.
        task: what it is asked for.
        base_url: where the server is ("http://localhost:8000/v1"); None for OpenAI's own.
        concurrency: questions at once.
        timeout_seconds: a request without its whole answer after that long is given up.
        retries: how often a request that was not answered is made again.
        warn: told what the server does not know.

    Raises:
        MissingDependency: ``openai`` or ``tenacity`` is not installed.
        AnnotationError: OpenAI's own endpoint without a key.
    """

    name = "endpoint"

    def __init__(
        self,
        model: str,
        task: Task,
        base_url: str | None = None,
        concurrency: int = 8,
        timeout_seconds: float = 120.0,
        retries: int = 6,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        if find_spec("openai") is None or find_spec("tenacity") is None:
            raise MissingDependency("--model", "annotate")
        from openai import AsyncOpenAI

        key = os.environ.get("OPENAI_API_KEY")
        where = base_url or os.environ.get("OPENAI_BASE_URL")
        if where is None and not key:
            fix = "set it to your key, or name another server (--base-url)"
            raise AnnotationError("OPENAI_API_KEY", "not set", "a key for OpenAI's endpoint", fix)
        # A local server wants no key, but the client wants one to send. Retries are ours, to be counted and to be patient.
        self._client = AsyncOpenAI(api_key=key or "none", base_url=where, timeout=timeout_seconds, max_retries=0)
        self._model, self._task, self.concurrency = model, task, concurrency
        self._timeout_seconds, self._retries, self._warn = timeout_seconds, retries, warn
        form = {"name": task, "strict": True, "schema": prompt.schema(task)}
        self._options: dict[str, Any] = {
            "temperature": 0.0,
            "max_tokens": MAX_TOKENS,
            "response_format": {"type": "json_schema", "json_schema": form},
        }

    @property
    def settings(self) -> dict[str, Any]:
        """The model's name; where the server is does not matter."""
        return {"backend": self.name, "model": self._model}

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()

    async def ask(self, question: Question) -> Answer:
        """Ask until there are labels, or ``ASKED`` answers that cannot be used, or no answer in spite of all retries."""
        import openai

        answer = Answer()
        for _ in range(ASKED):
            try:
                completion = await self._request(question, answer)
            except openai.APIStatusError as error:
                if error.status_code in HOPELESS or _is_out_of_money(error):
                    found = HOPELESS.get(error.status_code, "no credit left")
                    raise AnnotationError(self._client.base_url, f"{found} ({_said(error)})") from error
                answer.failure = f"{error.status_code}: {_said(error)}"
                answer.final = not _is_transient(error)
                return answer
            except (openai.APIConnectionError, TimeoutError) as error:
                answer.failure, answer.final = f"no answer ({_kind(error)})", False
                return answer
            except BadAnswer as error:
                answer.failure = str(error)
            else:
                try:
                    answer.labels = prompt.read(self._task, _content(completion))
                except BadAnswer as error:
                    answer.failure = str(error)
                else:
                    answer.failure = ""
                    return answer
            answer.trouble[answer.failure] += 1
        return answer

    async def _request(self, question: Question, answer: Answer) -> Any:
        """One completion, made again while it is not answered; tokens and troubles are counted in ``answer``."""
        import tenacity

        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=_pause,
            retry=tenacity.retry_if_exception(_is_transient),
            before_sleep=lambda state: _count(state, answer.trouble),
            reraise=True,
        )
        completion: Any = await attempts(self._complete, question)
        answer.usage.add(_usage(completion))
        return completion

    async def _complete(self, question: Question) -> Any:
        """One completion; where the server does not know a part of the request, without that part."""
        import openai

        while True:
            options = dict(self._options)
            try:
                # The client's timeout is for each read; a server that trickles would never end.
                async with asyncio.timeout(self._timeout_seconds):
                    messages: Any = list(question.messages)
                    return await self._client.chat.completions.create(model=self._model, messages=messages, **options)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                # Another question may have made the concession meanwhile; then this one is only asked again.
                if options == self._options and not self._concede(_said(error)):
                    raise
            except ValueError as error:
                raise BadAnswer("a response that is not JSON") from error

    def _concede(self, complaint: str) -> bool:
        """Change what the server complains of; false where that is nothing that can be changed."""
        options, complaint = self._options, complaint.lower()
        if "max_completion_tokens" in complaint and "max_tokens" in options:
            options["max_completion_tokens"] = options.pop("max_tokens")
            said = "max_tokens: max_completion_tokens is sent instead"
        elif "temperature" in complaint and options.pop("temperature", None) is not None:
            said = "temperature: the model's own is used"
        elif "response_format" in options and any(word in complaint for word in ("response_format", "json", "grammar")):
            if options["response_format"]["type"] == "json_schema":
                options["response_format"] = {"type": "json_object"}
                said = "JSON schemas: JSON mode is used, and the form of answers is checked here only"
            else:
                del options["response_format"]
                said = "JSON mode: JSON is asked for in words only"
        else:
            return False
        self._warn(f"{self._client.base_url} does not take {said}")
        return True


def _content(completion: Any) -> str:
    """The text of a completion.

    Raises:
        BadAnswer: it was refused or cut off, or there is none.
    """
    choices = getattr(completion, "choices", None)
    if not choices:
        raise BadAnswer("a response without an answer")
    message, reason = choices[0].message, choices[0].finish_reason
    if getattr(message, "refusal", None) or reason == "content_filter":
        raise BadAnswer("refused")
    if reason == "length":
        raise BadAnswer("cut off")
    return message.content or ""


def _usage(completion: Any) -> Usage:
    """What the server says that a completion cost; servers that do not count cost nothing."""
    counted = getattr(completion, "usage", None)
    details = getattr(counted, "prompt_tokens_details", None)
    return Usage(
        1,
        getattr(counted, "prompt_tokens", None) or 0,
        getattr(details, "cached_tokens", None) or 0,
        getattr(counted, "completion_tokens", None) or 0,
    )


def _is_transient(error: BaseException) -> bool:
    """Whether the same request may well be answered later."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return (error.status_code in RETRIED or error.status_code >= 500) and not _is_out_of_money(error)
    return isinstance(error, (openai.APIConnectionError, TimeoutError))


def _is_out_of_money(error: Any) -> bool:
    return getattr(error, "code", None) == "insufficient_quota"


def _kind(error: BaseException | None) -> str:
    """A trouble in a word, to be counted."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return str(error.status_code)
    return "timeout" if isinstance(error, (openai.APITimeoutError, TimeoutError)) else "connection"


def _said(error: Any) -> str:
    """A server's complaint in one line."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error).split())[:300]


def _count(state: Any, trouble: Counter[str]) -> None:
    trouble[_kind(state.outcome.exception())] += 1


def _pause(state: Any) -> float:
    """Seconds before the next attempt: what the server asks for, or 1, 2, 4, ... with up to half as much by chance."""
    import tenacity

    response = getattr(state.outcome.exception(), "response", None)
    asked = None if response is None else retry_after_seconds(response.headers.get("retry-after"), time.time())
    if asked is not None:
        return min(asked, LONGEST_RETRY_AFTER_SECONDS)
    return tenacity.wait_exponential(max=LONGEST_PAUSE_SECONDS)(state) * (1 + 0.5 * tenacity.wait_random()(state))


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """What a ``Retry-After`` header asks for, in seconds or as a date; None where it says nothing that can be read."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return None
