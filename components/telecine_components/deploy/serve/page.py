"""The page at ``/``: one HTML file, and the headers that let it run its own script and nothing else."""

import base64
import hashlib
import re
from importlib.resources import files

HTML = files("telecine_components.deploy.serve").joinpath("page.html").read_text(encoding="utf-8")


def _hash_of(element: str) -> str:
    """Content-Security-Policy source of the one inline script or style of the page."""
    found = re.search(rf"<{element}>(.*?)</{element}>", HTML, re.DOTALL)
    assert found is not None, f"page.html holds no <{element}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash_of('script')}",
        f"style-src {_hash_of('style')}",
        "connect-src 'self'",
        "media-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
