"""An S3 server that keeps its data over kill -9 and a restart: ``object_server.py --folder F --port P``.

Test gear for one machine: the requests that object stores are used with here, each as S3 answers it, and signatures
checked against AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Everything else is answered with 501 NotImplemented.
"""

import argparse
import contextlib
import os
import re
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import signatures
from objects import Bucket, Found

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
STATUS = {
    "AccessDenied": 403,
    "BucketAlreadyOwnedByYou": 409,
    "IncompleteBody": 400,
    "InvalidAccessKeyId": 403,
    "InvalidPart": 400,
    "InvalidRange": 416,
    "InvalidToken": 400,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchLifecycleConfiguration": 404,
    "NoSuchUpload": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "SignatureDoesNotMatch": 403,
    "XAmzContentSHA256Mismatch": 400,
}


class Failure(Exception):
    """A request that is answered with an error; ``code`` is S3's."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Server(ThreadingHTTPServer):
    """The server; ``keys`` are asked of every request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, port: int, keys: signatures.Keys) -> None:
        self.folder, self.keys = folder, keys
        super().__init__(("127.0.0.1", port), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def parse_request(self) -> bool:
        """Send every method to one place."""
        done = super().parse_request()
        if done and self.command in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(self, f"do_{self.command}", self._serve)
        return done

    def handle(self) -> None:
        """Serve a connection; one that its client resets is over."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what matters is in the folder."""

    def _serve(self) -> None:
        try:
            self._dispatch(self._admitted())
        except (Failure, signatures.Refusal) as failure:
            with contextlib.suppress(ConnectionError):  # nobody may be left to hear it
                self._fail(failure.code)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _admitted(self) -> bytes:
        """The body of a request that is signed as it must be."""
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = signatures.Request(self.command, path, query, headers)
        length = int(headers.get("content-length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the client, or what lies between, went away: a real store keeps nothing of it
            self.close_connection = True
            raise Failure("IncompleteBody")
        signatures.check(request, self.server.keys, datetime.now(UTC))
        signatures.check_payload(request, body)
        return body

    def _dispatch(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        name, _, self.key = unquote(path).lstrip("/").partition("/")
        self.bucket = Bucket(self.server.folder / quote(name, safe=""))
        if not name:
            raise Failure("NotImplemented")
        if self.command == "PUT" and not self.key and not self.query:
            return self._make_bucket()
        if not self.bucket.exists():
            raise Failure("NoSuchBucket")
        return self._on_object(body) if self.key else self._on_bucket(body)

    def _make_bucket(self) -> None:
        if self.bucket.exists():
            raise Failure("BucketAlreadyOwnedByYou")
        self.bucket.make()
        self._reply(200)

    def _on_bucket(self, body: bytes) -> None:
        if self.command == "HEAD" and not self.query:
            self._reply(200)
        elif self.command == "GET" and self.query.get("list-type") == "2":
            self._list()
        elif self.command == "GET" and "location" in self.query:
            self._xml(f'<LocationConstraint xmlns="{NAMESPACE}"/>')
        elif "lifecycle" in self.query:
            self._lifecycle(body)
        elif self.command == "POST" and "delete" in self.query:
            self._delete_many(body)
        else:
            raise Failure("NotImplemented")

    def _lifecycle(self, body: bytes) -> None:
        """Keep the rules and give them back; nothing here is old enough for them to matter."""
        path = self.bucket.folder / "lifecycle.xml"
        if self.command == "PUT":
            path.write_bytes(body)
            self._reply(200)
        elif not path.exists():
            raise Failure("NoSuchLifecycleConfiguration")
        else:
            self._reply(200, path.read_bytes(), {"Content-Type": "application/xml"})

    def _on_object(self, body: bytes) -> None:
        wanted = (self.command, *sorted(set(self.query) & {"uploads", "uploadId", "partNumber"}))
        actions = {
            ("GET",): self._get,
            ("HEAD",): self._get,
            ("PUT",): lambda: self._put(body),
            ("DELETE",): self._delete,
            ("POST", "uploads"): self._start_upload,
            ("PUT", "partNumber", "uploadId"): lambda: self._put_part(body),
            ("POST", "uploadId"): lambda: self._complete(body),
            ("DELETE", "uploadId"): self._abort,
        }
        if wanted not in actions or "x-amz-copy-source" in self.headers or "If-Match" in self.headers:
            raise Failure("NotImplemented")
        actions[wanted]()

    def _get(self) -> None:
        found = self.bucket.get(self.key)
        if found is None:
            raise Failure("NoSuchKey")
        start, stop = self._range(found.size)
        whole = (start, stop) == (0, found.size)
        headers = {
            "ETag": f'"{found.etag}"',
            "Last-Modified": format_datetime(found.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if not whole:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
        body = found.content(start, stop - start) if self.command == "GET" else b""
        self._reply(200 if whole else 206, body, headers, length=stop - start)

    def _range(self, size: int) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if found is None or found.groups() == ("", ""):
            return 0, size
        first, last = found.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            raise Failure("InvalidRange")
        return start, stop

    def _put(self, body: bytes) -> None:
        etag = self.bucket.put(self.key, body, only_new=self._only_new())
        if etag is None:
            raise Failure("PreconditionFailed")
        self._reply(200, headers={"ETag": f'"{etag}"'})

    def _only_new(self) -> bool:
        return self.headers.get("If-None-Match") == "*"

    def _delete(self) -> None:
        self.bucket.delete(self.key)
        self._reply(204)

    def _delete_many(self, body: bytes) -> None:
        keys = [element.text or "" for element in ElementTree.fromstring(body).iter() if element.tag.endswith("Key")]  # noqa: S314 - signed by our own client
        for key in keys:
            self.bucket.delete(key)
        rows = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._xml(f'<DeleteResult xmlns="{NAMESPACE}">{rows}</DeleteResult>')

    def _start_upload(self) -> None:
        upload = self.bucket.start_upload()
        names = f"<Bucket>{self.bucket.folder.name}</Bucket><Key>{escape(self.key)}</Key><UploadId>{upload}</UploadId>"
        self._xml(f'<InitiateMultipartUploadResult xmlns="{NAMESPACE}">{names}</InitiateMultipartUploadResult>')

    def _put_part(self, body: bytes) -> None:
        etag = self.bucket.put_part(self.query["uploadId"], int(self.query["partNumber"]), body)
        if etag is None:
            raise Failure("NoSuchUpload")
        self._reply(200, headers={"ETag": f'"{etag}"'})

    def _complete(self, body: bytes) -> None:
        elements = ElementTree.fromstring(body).iter()  # noqa: S314 - signed by our own client
        numbers = [int(element.text or 0) for element in elements if element.tag.endswith("PartNumber")]
        try:
            etag = self.bucket.complete(self.query["uploadId"], self.key, numbers, only_new=self._only_new())
        except FileNotFoundError:
            raise Failure("NoSuchUpload") from None
        if etag is None:
            raise Failure("PreconditionFailed")
        names = (
            f"<Bucket>{self.bucket.folder.name}</Bucket><Key>{escape(self.key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
        )
        self._xml(f'<CompleteMultipartUploadResult xmlns="{NAMESPACE}">{names}</CompleteMultipartUploadResult>')

    def _abort(self) -> None:
        self.bucket.abort(self.query["uploadId"])
        self._reply(204)

    def _list(self) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        limit = min(int(self.query.get("max-keys") or 1000), 1000)
        after = unquote(self.query.get("continuation-token") or quote(self.query.get("start-after", "")))
        rows: dict[str, Found | None] = {}
        for found in self.bucket.walk(prefix):
            head, mark, _ = found.key[len(prefix) :].partition(delimiter) if delimiter else (found.key, "", "")
            name = prefix + head + mark if mark else found.key
            if name > after:
                rows.setdefault(name, None if mark else found)
        page = sorted(rows)[:limit]
        self._xml(self._listing(prefix, delimiter, limit, {name: rows[name] for name in page}, len(rows) > limit))

    def _listing(self, prefix: str, delimiter: str, limit: int, page: dict[str, Found | None], cut: bool) -> str:
        encoded = self.query.get("encoding-type") == "url"

        def shown(text: str) -> str:
            return quote(text, safe="/") if encoded else escape(text)

        lines = [
            f"<Name>{self.bucket.folder.name}</Name><Prefix>{shown(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        ]
        lines += [f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{str(cut).lower()}</IsTruncated>"]
        lines += [f"<Delimiter>{shown(delimiter)}</Delimiter>"] if delimiter else []
        lines += ["<EncodingType>url</EncodingType>"] if encoded else []
        lines += [f"<NextContinuationToken>{quote(max(page), safe='')}</NextContinuationToken>"] if cut else []
        for name, found in page.items():
            if found is None:
                lines.append(f"<CommonPrefixes><Prefix>{shown(name)}</Prefix></CommonPrefixes>")
                continue
            modified = found.modified.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            facts = f"<LastModified>{modified}</LastModified><ETag>&quot;{found.etag}&quot;</ETag>"
            facts += f"<Size>{found.size}</Size><StorageClass>STANDARD</StorageClass>"
            lines.append(f"<Contents><Key>{shown(name)}</Key>{facts}</Contents>")
        return f'<ListBucketResult xmlns="{NAMESPACE}">{"".join(lines)}</ListBucketResult>'

    def _xml(self, text: str) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
        self._reply(200, body, {"Content-Type": "application/xml"})

    def _fail(self, code: str) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
        self._reply(STATUS[code], body.encode(), {"Content-Type": "application/xml"})

    def _reply(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parsed = parser.parse_args()
    environment = os.environ
    keys = signatures.Keys(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        environment.get("AWS_SESSION_TOKEN", ""),
    )
    parsed.folder.mkdir(parents=True, exist_ok=True)
    Server(parsed.folder, parsed.port, keys).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
