"""The one place where secrets are taken out of what is shown or kept: a terminal, a log, an error, MLflow.

Three things are secret: the value of an environment variable whose name says so, the name and password that a URI
carries, and the signature of a signed link.
"""

import functools
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import quote

SECRET_NAME = re.compile("SECRET|PASSW(?:OR)?D|TOKEN|KEY|CREDENTIAL|_PAT$", re.IGNORECASE)
MIN_SECRET_CHARS = 8
"""A shorter value is a word or a number that logs are full of; masking it would ruin them and hide little."""
MIN_PASSWORD_CHARS = 4
"""People choose passwords shorter than that; those of the variables that Telecine itself reads are masked from here."""

_PASSWORDS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_USERINFO = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)"
    r"(?:[^\s/?#'\"]*|[^\s/@:'\"]+:(?!\d+/)[^\s@'\"]*)@"  # a key may hold slashes, which no port before a path does
)
_NAMED = re.compile(
    r"(?P<name>\b(?:aws_secret_access_key|aws_session_token|x-amz-security-token|password))(?P<equals>\s*[=:]\s*)[^\s\[,;&'\"]+",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(
    r"(?P<name>\b(?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig))"
    r"(?P<equals>=|%3D)[^\s&'\",;]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<scheme>\b(?:Bearer|Basic) )[A-Za-z0-9._~+/=-]{8,}")


def mask(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without secrets; a masked value of the environment leaves the name of its variable."""
    for value, name in _secrets(tuple(sorted(item for item in environment.items() if SECRET_NAME.search(item[0])))):
        text = text.replace(value, f"[{name}]")
    text = _USERINFO.sub(r"\g<scheme>[userinfo]@", text)
    text = _SIGNATURE.sub(r"\g<name>\g<equals>[signature]", text)
    text = _NAMED.sub(r"\g<name>\g<equals>[secret]", text)
    return _BEARER.sub(r"\g<scheme>[token]", text)


@functools.lru_cache(maxsize=8)
def _secrets(variables: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Values to mask with the names of their variables, the longest first, as they are and as a URL quotes them."""
    limits = {name: MIN_PASSWORD_CHARS if name in _PASSWORDS else MIN_SECRET_CHARS for name, _ in variables}
    long_enough = [(value, name) for name, value in variables if len(value) >= limits[name]]
    forms = {(form, name) for value, name in long_enough for form in (value, quote(value, safe=""))}
    return tuple(sorted(forms, key=lambda form: (-len(form[0]), form)))


class Redaction(logging.Filter):
    """Masks every record that passes, its arguments and its traceback included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; it always passes.

        A record whose arguments do not fit its text is left to its handler, which reports it without raising.
        """
        try:
            record.msg, record.args = mask(record.getMessage()), None
        except (TypeError, ValueError, KeyError):
            record.args = None
        if record.exc_info:
            record.exc_text = mask("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return True


def protect_terminal() -> None:
    """Mask what this process logs to its terminal, and the traceback of what ends it or one of its threads."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Redaction())
    sys.excepthook = _show_masked
    threading.excepthook = _show_thread_masked


def _show_masked(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    sys.stderr.write(mask("".join(traceback.format_exception(kind, error, trace))))


def _show_thread_masked(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit:  # by which a thread may end itself
        sys.stderr.write(f"Exception in thread {ended.thread.name if ended.thread else 'that is gone'}:\n")
        _show_masked(ended.exc_type, ended.exc_value, ended.exc_traceback)
