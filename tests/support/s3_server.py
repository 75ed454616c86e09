"""As much of Amazon S3's REST interface as an object store needs (API version 2006-03-01).

Requests must be signed (AWS Signature Version 4) by the key that the server was given; that the
signature is right is the client library's business.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

__all__ = ["KEY_ID", "S3Server", "s3_server"]

KEY_ID = "a-key"
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_PAGE = 100
_KEY = re.compile("<Key>([^<]*)</Key>")


class S3Server(ThreadingHTTPServer):
    """Keeps objects in memory, by ``/bucket/key``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.refused = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self._admitted():
            return
        source = self.headers.get("x-amz-copy-source")
        if source is not None:
            found = self.server.objects.get("/" + unquote(source).lstrip("/"))
            if found is None:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            body = found[0]
        self.server.objects[self._key()] = (body, datetime.now(UTC))
        result = f"{_XML}<CopyObjectResult><ETag>{_etag(body)}</ETag></CopyObjectResult>"
        self._answer(200, result.encode() if source else b"", ETag=_etag(body))

    def do_GET(self) -> None:
        if not self._admitted():
            return
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._answer(200, self._listed(query).encode())
            return
        found = self.server.objects.get(self._key())
        if found is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        stamp = found[1].strftime("%a, %d %b %Y %H:%M:%S GMT")
        self._answer(200, found[0], ETag=_etag(found[0]), Last_Modified=stamp)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Delete many, the only thing that is asked for in this way."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self._admitted():
            return
        keys = [unescape(key) for key in _KEY.findall(body.decode())]
        for key in keys:
            self.server.objects.pop(f"{self._key().rstrip('/')}/{key}", None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(200, f"{_XML}<DeleteResult>{deleted}</DeleteResult>".encode())

    def _admitted(self) -> bool:
        signed = self.headers.get("authorization", "")
        if signed.startswith(f"AWS4-HMAC-SHA256 Credential={KEY_ID}/"):
            return True
        self.server.refused += 1
        self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        return False

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _listed(self, query: dict[str, list[str]]) -> str:
        bucket = self._key().rstrip("/") + "/"
        prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
        names = [key.removeprefix(bucket) for key in sorted(self.server.objects)]
        names = [name for name in names if name.startswith(prefix) and name > after]
        page, more = names[:_PAGE], len(names) > _PAGE
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(self.server.objects[bucket + name][0])}"
            f"</Size><LastModified>{self.server.objects[bucket + name][1].isoformat()}"
            f"</LastModified><ETag>&quot;x&quot;</ETag></Contents>"
            for name in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f"{_XML}<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"{entries}</ListBucketResult>"
        )

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(body: bytes) -> str:
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server on a free port for as long as the block runs."""
    with S3Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
