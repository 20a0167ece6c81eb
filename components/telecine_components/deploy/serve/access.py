"""Who may ask: one token, as a bearer or through a session cookie that the page's login sets.

A browser sends the cookie whichever page made it ask, so what it asks has to come from the service's own page, under a
name that the service has: neither another site, nor another port of this machine, nor a name that was pointed at it.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import Request

COOKIE = "telecine_session"
MIN_TOKEN_CHARS = 16
OPEN_PATHS = ("/", "/login", "/healthz", "/readyz")
"""What anybody may read: the page without data, and whether the service lives."""
NONCE = "telecine-nonce"
"""Header of a request that wants to know whether it is this service that answers."""
_READING = ("GET", "HEAD")
_OWN_SITES = ("", "same-origin", "none")
"""What Sec-Fetch-Site says of our page, of a person's own doing, and of no browser at all."""


class Access:
    """Checks requests against the token, in time that does not depend on how much of a guess is right.

    Args:
        host: the address that the service listens on.
        allowed_hosts: other names that it may be asked by.
    """

    def __init__(self, token: str, host: str = "127.0.0.1", allowed_hosts: Sequence[str] = ()) -> None:
        self._token, self._host = token.encode(), host
        self._names = {name.lower() for name in ("localhost", host, *allowed_hosts)}
        # Derived, so that a cookie does not give the token away; stateless, so that a login survives a restart.
        self.session = hmac.new(self._token, b"telecine session", hashlib.sha256).hexdigest()

    def is_token(self, text: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(text.encode(errors="replace"), self._token)

    def proof(self, nonce: str) -> str:
        """What only a holder of the token can answer to a nonce."""
        return hmac.new(self._token, b"telecine proof " + nonce.encode(errors="replace"), hashlib.sha256).hexdigest()

    def serves(self, request: Request) -> bool:
        """Whether a request names this service: by a loopback name, a host that was given, or any address of it."""
        try:
            name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
            if name in self._names:
                return True
            return ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(self._host).is_unspecified
        except ValueError:  # another name: anybody can point one at this machine
            return False

    def is_foreign(self, request: Request) -> bool:
        """Whether a browser asks for a change on behalf of a page that is not the service's own."""
        if request.method in _READING or self._bears_token(request):
            return False
        origin = request.headers.get("origin")
        elsewhere = origin is not None and origin.partition("://")[2] != request.headers.get("host", "")
        return elsewhere or request.headers.get("sec-fetch-site", "") not in _OWN_SITES

    def allows(self, request: Request) -> bool:
        """Whether a request may go on."""
        if request.url.path in OPEN_PATHS:
            return True
        return self.knows(request)

    def knows(self, request: Request) -> bool:
        """Whether a request carries the token, or, with no other claim, the cookie of somebody who has shown it."""
        if "authorization" in request.headers:
            return self._bears_token(request)
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(errors="replace"), self.session.encode())

    def _bears_token(self, request: Request) -> bool:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(text.strip())
