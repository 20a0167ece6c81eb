"""One OpenAI-compatible endpoint (vLLM and the like), and which of its failures mean what.

A failure of the clip, which is told apart by asking the server something plain, is a :class:`BadAnswer`. One of the
server may pass, slowness among them: RetryLater. One of what a person gave (URL, key, model, quota) will not:
InputError. The client itself tries again after 408, 409, 429, 5xx, timeouts and broken connections, with exponential
back-off or as long as Retry-After says.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion

from telecine.errors import InputError, RetryLater
from telecine.redaction import mask
from telecine_components.caption.write.prompt import FORMAT, BadAnswer

log = logging.getLogger(__name__)

KEY = "OPENAI_API_KEY"
_PROBE = [{"role": "user", "content": "Say yes."}]
_PROBE_TOKENS = 16
_PASSING = (408, 409, 429, 502, 503, 504)
"""What a busy server answers, or a gateway before one that is away or slow: the request is not to blame."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model wrote, and how many tokens that took."""

    text: str
    num_tokens: int


class Endpoint:
    """Asks one model; usable from several threads.

    Raises:
        InputError: no usable URL.
    """

    def __init__(self, *, url: str, model: str, max_answer_tokens: int, max_tries: int, timeout_s: float) -> None:
        _check(url)
        self._url, self._model, self._max_tokens = url, model, max_answer_tokens
        self._max_tries, self._timeout_s = max_tries, timeout_s
        self._client = openai.OpenAI(
            base_url=url,
            api_key=os.environ.get(KEY) or "none",  # a local server asks for none
            timeout=timeout_s,
            max_retries=max_tries - 1,
            http_client=_Client(timeout_s),
        )
        self._is_plain = False
        for name in ("httpx", "httpx2", "openai"):
            logging.getLogger(name).setLevel(logging.WARNING)  # a line for each request and for each retry

    def ask(self, messages: Sequence[dict[str, Any]], temperature: float) -> Answer:
        """What the model answers.

        Raises:
            BadAnswer: the server works, but does not answer this.
            RetryLater: the server is away, busy, slow or broken.
            InputError: it refuses the key, the model or every request.
        """
        try:
            completion = self._complete(messages, temperature)
        except openai.APIError as error:
            raise self._meaning(error) from error
        except (ValueError, RecursionError) as error:  # the client does not translate what is no JSON
            raise BadAnswer(f"no chat completion: {_plain(error)}"[:200]) from error
        return _read(completion)

    def _complete(self, messages: Sequence[dict[str, Any]], temperature: float) -> ChatCompletion:
        """Held to the schema where the server can do that; the first request that shows that it cannot goes twice."""
        if not self._is_plain:
            try:
                return self._send(
                    messages, response_format=FORMAT, temperature=temperature, max_tokens=self._max_tokens
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if error.code == "content_filter":
                    raise
        completion = self._send(messages, max_completion_tokens=self._max_tokens)
        if not self._is_plain:
            self._is_plain = True
            log.warning("event=endpoint_plain reason='it refuses response_format, temperature or max_tokens'")
        return completion

    def _send(self, messages: Sequence[dict[str, Any]], **options: Any) -> ChatCompletion:
        completion: ChatCompletion = self._client.chat.completions.create(
            model=self._model,
            messages=messages,  # type: ignore[arg-type]  # plain dictionaries of the form that it wants
            **options,
        )
        return completion

    def _meaning(self, error: openai.APIError) -> Exception:
        wrong = self._what_is_wrong(error)
        if wrong:
            return InputError(f"caption.write: {wrong}")
        if isinstance(error, openai.APITimeoutError):
            return RetryLater(
                f"caption.write: {self._url} gave no whole answer within timeout_s={self._timeout_s:g}, "
                f"{self._max_tries} times in turn; raise it, or lower max_in_flight; the same call goes on"
            )
        if isinstance(error, openai.APIConnectionError):
            return RetryLater(f"caption.write: {self._url} cannot be reached: {error.__cause__ or error}")
        if isinstance(error, openai.APIStatusError) and error.status_code in _PASSING:
            return RetryLater(f"caption.write: {self._url} is busy or away: {_told(error)}")
        if getattr(error, "code", None) == "content_filter":
            return BadAnswer("refused: content_filter")
        return self._whose_fault(error)

    def _what_is_wrong(self, error: openai.APIError) -> str:
        """What a person has to mend, or nothing."""
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return f"{self._url} refuses the key in {KEY} ({error.status_code}); set the right one, or unset it"
        if isinstance(error, openai.NotFoundError):
            return (
                f"{self._url} has no model {self._model!r}, or is no base URL (which often ends in /v1): {_told(error)}"
            )
        if isinstance(error, openai.RateLimitError) and error.code == "insufficient_quota":
            return f"{self._url}: the quota of the key in {KEY} is used up; raise it"
        return ""

    def _whose_fault(self, error: openai.APIError) -> Exception:
        """Ask something plain: a server that answers that has nothing but this clip against it."""
        told = _told(error)
        try:
            self._send(_PROBE, max_completion_tokens=_PROBE_TOKENS)
        except openai.APIStatusError as refused:
            if refused.status_code in _PASSING or refused.status_code >= 500:
                return RetryLater(f"caption.write: {self._url} is broken: {told}")
            return InputError(f"caption.write: {self._url} refuses every request: {_told(refused)}")
        except (openai.APIError, ValueError, RecursionError):  # also an answer that is no JSON
            return RetryLater(f"caption.write: {self._url} is broken: {told}")
        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
            return BadAnswer(f"the server refuses it: {told}", is_final=True)
        return BadAnswer(f"the server fails on it: {told}", is_final=True)


class _Client(openai.DefaultHttpxClient):
    """Gives up an answer that has not come whole in time; by itself a client counts only the silence between parts."""

    def __init__(self, answer_s: float) -> None:
        super().__init__(timeout=answer_s)
        self._answer_s = answer_s

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """See :meth:`httpx2.Client.send`; raises :class:`httpx2.ReadTimeout` where the answer is late."""
        ends_s = time.monotonic() + self._answer_s
        response = super().send(request, stream=True, **options)
        response.stream = _Until(response.stream, ends_s, request)
        if not stream:
            response.read()
        return response


class _Until(httpx2.SyncByteStream):
    """A body that ends in an error once it is late."""

    def __init__(self, stream: Any, ends_s: float, request: httpx2.Request) -> None:
        self._stream, self._ends_s, self._request = stream, ends_s, request

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            if time.monotonic() > self._ends_s:
                raise httpx2.ReadTimeout("the answer did not come whole in time", request=self._request)
            yield part

    def close(self) -> None:
        self._stream.close()


def _read(completion: object) -> Answer:
    """The text of a completion, read with care: the client builds one of whatever JSON a server sends."""
    choices = getattr(completion, "choices", None)
    choice: Any = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    content = getattr(message, "content", None)
    if message is None or not isinstance(content, str | None):
        raise BadAnswer(f"no chat completion but {_plain(completion)[:60]!r}")
    num_tokens = getattr(getattr(completion, "usage", None), "completion_tokens", None)
    num_tokens = num_tokens if isinstance(num_tokens, int) else 0
    finish, refusal = getattr(choice, "finish_reason", None), getattr(message, "refusal", None)
    if refusal or finish == "content_filter":
        raise BadAnswer(f"refused: {_plain(refusal or finish)[:200]}", num_tokens)
    if finish == "length":
        raise BadAnswer(f"cut off after {num_tokens} tokens", num_tokens)
    return Answer(_plain(content or ""), num_tokens)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        fits = False
    if not fits:
        raise InputError(f"caption.write: endpoint_url must be http(s)://host/v1 for captioner openai, got {url!r}")
    if parts.username or parts.password or parts.query:
        raise InputError(f"caption.write: endpoint_url must not hold credentials; set {KEY}")


def _told(error: openai.APIError) -> str:
    return _plain(" ".join(str(error.message or error).split()))[:200]


def _plain(said: object) -> str:
    """What a server said, without secrets and without halves of surrogate pairs, which no file takes."""
    return mask(str(said)).encode(errors="replace").decode()
