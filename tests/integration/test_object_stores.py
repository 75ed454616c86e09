"""Chunks in an object store that is reached by S3's own interface."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from s3_server import KEY_ID, S3Server, s3_server
from storage_cluster import TIMEOUT_S, running

from lepton_ai.chunking import digest
from lepton_ai.errors import LeptonError, NotFoundError
from lepton_ai.proto.v1 import storage_pb2
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub
from lepton_runtime.clock import SystemClock
from lepton_storage.bucket import Bucket

URL = "s3://bucket/folder"
AGE_S = 3600.0
CONTENT = np.random.default_rng(7).bytes(9 * 1024 * 1024 + 11)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A store, and the environment that its own tools find it by."""
    with s3_server() as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        yield server


def make_old(store: S3Server) -> None:
    for key, (content, made_at) in store.objects.items():
        store.objects[key] = (content, made_at - timedelta(seconds=2 * AGE_S))


def test_chunks_are_kept_found_listed_set_aside_and_collected(store: S3Server) -> None:
    bucket, clock = Bucket(URL, SystemClock(), AGE_S), SystemClock()
    contents = {digest(bytes([n])): bytes([n]) for n in range(250)}
    bucket.put({name: [b"\0", content] for name, content in contents.items()})
    assert set(bucket.hashes()) == set(contents)  # which takes several pages
    assert all(bucket.get(name) == b"\0" + content for name, content in contents.items())
    bad, renewed, kept, *others = contents
    bucket.set_aside(bad)
    bucket.set_aside(bad)
    assert not bucket.has(bad)
    with pytest.raises(NotFoundError):
        bucket.get(bad)
    assert store.objects[f"/bucket/folder/quarantine/{bad.hex()}"][0] == b"\0" + contents[bad]
    make_old(store)
    assert bucket.renew(renewed)
    assert not bucket.renew(bad)
    assert bucket.collect({kept}, clock.now() - AGE_S) == len(others)
    assert set(bucket.hashes()) == {renewed, kept}


def test_a_store_that_refuses_is_said(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    bucket = Bucket(URL, SystemClock(), AGE_S)
    with pytest.raises(LeptonError, match="object store"):
        bucket.put({digest(b"x"): [b"x"]})
    assert store.refused
    assert not store.objects


def test_nodes_share_the_store_and_any_of_them_has_everything(
    store: S3Server, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, count=2, object_store_url=URL) as cluster:
            stored = await (await cluster.client("s1")).put_bytes(CONTENT)
            assert [list(chunk.nodes) for chunk in stored.chunks] == [["object-store"]] * 3
            assert len(store.objects) == 3
            assert not any(CONTENT[:64] in content for content, _ in store.objects.values())
            await cluster.kill("s1")
            reader = await cluster.client("s2")
            assert await reader.get_bytes(stored.id) == CONTENT
            assert (
                await reader.get_range(stored.id, 4_000_000, 400_000)
                == (CONTENT[4_000_000:4_400_000])
            )
            stub = StorageServiceStub(await cluster.channel("s2"))
            request = storage_pb2.CheckStorageRequest()
            answers = [answer async for answer in stub.CheckStorage(request, timeout=TIMEOUT_S)]
            assert (answers[-1].summary.findings, answers[-1].summary.copies) == (0, 3)

    asyncio.run(scenario())
