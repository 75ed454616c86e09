"""Chunks as objects of a store that keeps copies itself: S3 and compatible, GCS, Azure."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Store
from obstore.store import from_url

from lepton_ai.errors import InvalidArgumentError, NotFoundError, UnavailableError
from lepton_runtime.clock import Clock
from lepton_storage.chunks import Content

__all__ = ["Bucket"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("lepton.storage.bucket")
_CHUNKS = "chunks"
# Stands for no bound.
_BOUNDLESS_BYTES = 1 << 50


class Bucket:
    """An `Engine` that several storage nodes share.

    Args:
        url: Such as ``s3://bucket/folder``, ``gs://…`` or ``az://…``. Credentials, region and
            endpoint come from the environment, as for the store's own tools.
        clock: Tells the age of chunks, and when the store was last listed.
        garbage_age_s: How old a chunk must be to be removed when no object has it.

    Raises:
        InvalidArgumentError: The URL is not one of a store.
    """

    def __init__(self, url: str, clock: Clock, garbage_age_s: float) -> None:
        try:
            self._store: Store = from_url(url)
        except (BaseError, ValueError) as error:
            raise InvalidArgumentError(
                f"{url!r} is not the URL of an object store: {_first_line(error)}",
                hint="such as s3://bucket/folder",
            ) from None
        self._clock = clock
        self._garbage_age_s = garbage_age_s
        self._collects_at = 0.0

    def put(self, contents: Mapping[bytes, Content]) -> None:
        """Keep contents in place of what was there; all are durable once this returns."""
        with _translated():
            for chunk_hash, parts in contents.items():
                obstore.put(self._store, _path(chunk_hash), list(parts), use_multipart=False)

    def get(self, chunk_hash: bytes) -> bytes:
        """A content.

        Raises:
            NotFoundError: There is none.
            UnavailableError: The store does not answer.
        """
        with _translated():
            return obstore.get(self._store, _path(chunk_hash)).bytes().to_bytes()

    def renew(self, chunk_hash: bytes) -> bool:
        """Make a content that is there as young as a new one; whether it is there."""
        made_at = self._made_at(chunk_hash)
        if made_at is None:
            return False
        # Only a new object is young. One that will not be collected soon needs no copy.
        if self._now() - made_at > timedelta(seconds=self._garbage_age_s / 2):
            self.put({chunk_hash: [self.get(chunk_hash)]})
        return True

    def set_aside(self, chunk_hash: bytes) -> None:
        """Take a bad content out of the way."""
        aside = f"quarantine/{chunk_hash.hex()}"
        with suppress(NotFoundError), _translated():  # where another node was faster
            obstore.rename(self._store, _path(chunk_hash), aside)

    def has(self, chunk_hash: bytes) -> bool:
        """Whether there is a content, good or bad."""
        return self._made_at(chunk_hash) is not None

    def hashes(self) -> list[bytes]:
        """Which chunks there are contents of, good or bad."""
        return [chunk_hash for chunk_hash, _ in self._listed()]

    def collect(self, named: Set[bytes], written_before: float) -> int:
        """Remove what is not `named` and was last put before a time (Unix, seconds).

        It lists the whole store, which costs money: once in the time that makes garbage old.
        """
        if self._clock.monotonic() < self._collects_at:
            return 0
        self._collects_at = self._clock.monotonic() + self._garbage_age_s
        before = datetime.fromtimestamp(written_before, UTC)
        old = [
            _path(chunk_hash)
            for chunk_hash, made_at in self._listed()
            if chunk_hash not in named and made_at < before
        ]
        return sum(self._removed(path) for path in old)

    def usage(self) -> tuple[int, int]:
        """Capacity and usable free space, in bytes: neither is known to have a bound."""
        return _BOUNDLESS_BYTES, _BOUNDLESS_BYTES

    def _made_at(self, chunk_hash: bytes) -> datetime | None:
        with suppress(NotFoundError), _translated():
            return obstore.head(self._store, _path(chunk_hash))["last_modified"]
        return None

    def _listed(self) -> Iterator[tuple[bytes, datetime]]:
        with _translated():
            for batch in obstore.list(self._store, _CHUNKS):
                for entry in batch:
                    name = entry["path"].rpartition("/")[2]
                    yield bytes.fromhex(name), entry["last_modified"]

    def _removed(self, path: str) -> bool:
        with suppress(NotFoundError), _translated():  # where another node was faster
            obstore.delete(self._store, path)
            return True
        return False

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _path(chunk_hash: bytes) -> str:
    name = chunk_hash.hex()
    return f"{_CHUNKS}/{name[:2]}/{name}"


@contextmanager
def _translated() -> Generator[None]:
    """Raise the store's errors as ours."""
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError("the chunk is not in the object store") from None
    except (BaseError, OSError) as error:
        _log.error("object_store_failed", error=str(error))
        raise UnavailableError(
            f"the object store failed: {_first_line(error)}",
            hint="the storage node's log tells more",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
