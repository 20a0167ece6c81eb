"""AWS Signature Version 4 as a server checks it: who signed a request, and whether with the right key.

Source of the algorithm: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference.
"""

import dataclasses
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

MAX_SKEW = timedelta(minutes=15)
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclasses.dataclass(frozen=True)
class Keys:
    """One key pair that may do everything, with the session token that must come along where there is one."""

    access: str
    secret: str
    token: str = ""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is signed: the path as sent (percent-encoded), the raw query and lower-case headers."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class Refusal(Exception):
    """The request is not let in; ``code`` is the error code of S3."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def check(request: Request, keys: Keys, now: datetime) -> None:
    """Raise :class:`Refusal` unless the request was signed with ``keys`` within 15 minutes of ``now`` (UTC)."""
    claim = _claim_of(request)
    access, day, region, service, _ = claim["credential"].split("/")
    if access != keys.access:
        raise Refusal("InvalidAccessKeyId")
    if claim["token"] != keys.token:
        raise Refusal("InvalidToken")
    stamp = datetime.strptime(claim["date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if claim["expires"] and now > stamp + timedelta(seconds=int(claim["expires"])):
        raise Refusal("AccessDenied")
    if not claim["expires"] and abs(now - stamp) > MAX_SKEW:
        raise Refusal("RequestTimeTooSkewed")
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(_canonical(request, claim).encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{claim['date']}\n{scope}\n{digest}"
    key = f"AWS4{keys.secret}".encode()
    for part in (day, region, service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(key.hex(), claim["signature"]):
        raise Refusal("SignatureDoesNotMatch")


def check_payload(request: Request, body: bytes) -> None:
    """Raise :class:`Refusal` if the body is not the one whose digest was signed."""
    claimed = request.headers.get("x-amz-content-sha256", UNSIGNED)
    if claimed != UNSIGNED and claimed != hashlib.sha256(body).hexdigest():
        raise Refusal("XAmzContentSHA256Mismatch")


def _claim_of(request: Request) -> dict[str, str]:
    """The signature's parts, from the header or, for a signed link, from the query."""
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    if "X-Amz-Signature" in query:
        claim = {name.removeprefix("X-Amz-").lower(): value for name, value in query.items()}
        names = {"payload": UNSIGNED, "token": claim.get("security-token", "")}
        return claim | names
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if scheme != "AWS4-HMAC-SHA256" or not {"Credential", "SignedHeaders", "Signature"} <= set(parts):
        raise Refusal("AccessDenied")
    return {
        "credential": parts["Credential"],
        "signedheaders": parts["SignedHeaders"],
        "signature": parts["Signature"],
        "date": request.headers.get("x-amz-date", ""),
        "token": request.headers.get("x-amz-security-token", ""),
        "payload": request.headers.get("x-amz-content-sha256", UNSIGNED),
        "expires": "",
    }


def _canonical(request: Request, claim: Mapping[str, str]) -> str:
    pairs = parse_qsl(request.query, keep_blank_values=True)
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    query = "&".join(f"{name}={value}" for name, value in encoded if name != "X-Amz-Signature")
    names = claim["signedheaders"].split(";")
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    return "\n".join([request.method, request.path, query, headers, claim["signedheaders"], claim["payload"]])
