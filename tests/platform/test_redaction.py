"""Secrets leave no trace: what is masked, what is not, and that logging masks through one filter."""

import logging
import os
import subprocess
import sys

import pytest

from telecine.redaction import Redaction, mask

ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPx",
    "MLFLOW_TRACKING_PASSWORD": "correct horse",
    "some_token": "tok-12345678",
    "SHORT_KEY": "1234567",
    "HOSTNAME": "a-long-machine-name",
}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key wJalrXUtnFEMI/K7MDENG+bPx!", "key [AWS_SECRET_ACCESS_KEY]!"),
        ("?k=wJalrXUtnFEMI%2FK7MDENG%2BbPx", "?k=[AWS_SECRET_ACCESS_KEY]"),
        ("'correct horse' or tok-12345678", "'[MLFLOW_TRACKING_PASSWORD]' or [some_token]"),
        ("http://me:pw@host:9000/bucket", "http://[userinfo]@host:9000/bucket"),
        ("s3://key@host/x and me@example.org", "s3://[userinfo]@host/x and me@example.org"),
        (
            "https://s3/a.mp4?X-Amz-Credential=AK%2F2026&X-Amz-Date=2026&X-Amz-Signature=abc123&x=1",
            "https://s3/a.mp4?X-Amz-Credential=[signature]&X-Amz-Date=2026&X-Amz-Signature=[signature]&x=1",
        ),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer [token]"),
        ("s3://AK:se/cret@b/x", "s3://[userinfo]@b/x"),
        ("http://me:pa@ss@host/x", "http://[userinfo]@host/x"),
        ("x-amz-security-token: abc/def", "x-amz-security-token: [secret]"),
        ("aws_secret_access_key=abc", "aws_secret_access_key=[secret]"),
    ],
)
def test_a_secret_is_replaced_by_its_name_or_kind(text: str, masked: str) -> None:
    assert mask(text, ENVIRONMENT) == masked


@pytest.mark.parametrize(
    "text", ["1234567 is short", "a-long-machine-name", "telecine-flywheel@champion", "design=x", "http://h:80/a@b"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text, ENVIRONMENT) == text


def test_the_longer_of_two_secrets_goes_first() -> None:
    nested = {"A_KEY": "abcdefgh", "B_KEY": "abcdefgh-and-more"}
    assert mask("abcdefgh-and-more", nested) == "[B_KEY]"


def test_a_log_record_is_masked_with_its_arguments_and_its_traceback() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "at %s", ("http://me:pw@host/",), None)
    try:
        raise ValueError("no http://me:pw@host/ today")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    assert Redaction().filter(record)
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("at http://[userinfo]@host/\nTraceback") and "pw" not in text


def test_short_passwords_of_known_variables_and_other_names_of_secrets_are_masked() -> None:
    environment = {"MLFLOW_TRACKING_PASSWORD": "pony", "DB_PASSWD": "longenough", "GIT_PAT": "ghp_abcdefg"}
    assert mask("pony longenough ghp_abcdefg", environment) == "[MLFLOW_TRACKING_PASSWORD] [DB_PASSWD] [GIT_PAT]"


def test_a_log_call_that_does_not_fit_does_not_raise_in_its_caller() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%d", ("x",), None)
    assert Redaction().filter(record)


def test_the_traceback_of_a_thread_is_masked_as_well() -> None:
    program = """
import os, threading
from telecine.redaction import protect_terminal
protect_terminal()
def fail(error):
    raise error
for error in (ValueError(os.environ["TOY_PASSWORD"]), SystemExit(1)):
    threading.Thread(target=fail, args=[error], name="loader").start()
"""
    environment = os.environ | {"TOY_PASSWORD": "hunter2-hunter2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stderr.startswith("Exception in thread loader:\nTraceback")
    assert done.stderr.endswith("ValueError: [TOY_PASSWORD]\n"), done.stderr
