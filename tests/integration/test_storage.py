"""Three storage nodes as real processes: what they keep outlives what happens to one of them."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from storage_cluster import TIMEOUT_S, Cluster, eventually, running

from lepton_ai.data_plane import DataPlane
from lepton_ai.errors import (
    ConflictError,
    DataError,
    InvalidArgumentError,
    LeptonError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from lepton_ai.objects import ObjectClient
from lepton_ai.proto.v1 import job_pb2, options_pb2, storage_pb2
from lepton_ai.proto.v1.storage_pb2_grpc import StorageServiceStub
from lepton_ai.rpc import translated_errors
from lepton_runtime import keys
from lepton_runtime.auth import TokenSigner
from lepton_runtime.state import Remove, Write

CONTENT = np.random.default_rng(7).bytes(9 * 1024 * 1024 + 11)


def test_an_object_outlives_a_node_and_gets_its_copies_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as cluster:
            stored = await (await cluster.client("s1")).put_bytes(CONTENT, replication=2)
            assert [len(chunk.nodes) for chunk in stored.chunks] == [2, 2, 2]
            lost = stored.chunks[0].nodes[0]
            left = sorted({"s1", "s2", "s3"} - {lost})
            await cluster.kill(lost)
            reader = await cluster.client(left[0])
            assert await reader.get_bytes(stored.id) == CONTENT

            async def healed() -> bool:
                chunks = (await reader.stat(stored.id)).chunks
                return all(set(chunk.nodes) == set(left) for chunk in chunks)

            await eventually(healed)
            assert [len(cluster.files(name)) for name in left] == [3, 3]

    asyncio.run(scenario())


def test_a_spoilt_copy_is_never_served_and_is_repaired(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as cluster:
            client = ObjectClient(await cluster.data("s1", direct=False))
            stored = await client.put_bytes(CONTENT)
            good = {path: path.read_bytes() for path in cluster.files("s1")}
            for path, data in good.items():
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            assert await client.get_bytes(stored.id) == CONTENT

            async def repaired() -> bool:
                return cluster.files("s1") == sorted(good)

            await eventually(repaired)
            # Read through a node whose peer has a bad copy.
            path = next(iter(good))
            path.write_bytes(b"short")
            for name in ("s2", "s3"):
                assert await (await cluster.client(name)).get_bytes(stored.id) == CONTENT
            assert await client.get_bytes(stored.id) == CONTENT  # which finds it
            await eventually(repaired)
            for name in ("s2", "s3"):
                await cluster.kill(name)
            assert await client.get_bytes(stored.id) == CONTENT

    asyncio.run(scenario())


def test_chunks_are_encrypted_and_master_keys_rotate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, count=2, packed_bytes="0") as cluster:
            content = b"nobody may read this on the disk" * 1000
            stored = await (await cluster.client("s1")).put_bytes(content)
            lies = [path.read_bytes() for name in ("s1", "s2") for path in cluster.files(name)]
            assert len(lies) == 2
            assert not any(b"nobody" in each for each in lies)
            old = cluster.settings["LEPTON_MASTER_KEY"]
            new = base64.b64encode(os.urandom(32)).decode()
            for keys_now in (f"{new} {old}", new):
                cluster.settings["LEPTON_MASTER_KEY"] = keys_now
                for name in ("s1", "s2"):
                    await cluster.restart(name)
                stub = StorageServiceStub(await cluster.channel("s1"))
                request = storage_pb2.RotateMasterKeyRequest()
                answer = await stub.RotateMasterKey(request, timeout=TIMEOUT_S)
                assert answer.tenants == 1
                assert await (await cluster.client("s2")).get_bytes(stored.id) == content
            for wrong in (old, ""):
                cluster.settings["LEPTON_MASTER_KEY"] = wrong
                await cluster.start("s3")
                assert await cluster.processes.pop("s3").wait() == 1

    asyncio.run(scenario())


def test_everything_is_checked_and_what_etcd_lost_comes_back(tmp_path: Path) -> None:
    async def check(cluster: Cluster) -> tuple[list[storage_pb2.Finding], storage_pb2.CheckSummary]:
        stub = StorageServiceStub(await cluster.channel("s1"))
        request = storage_pb2.CheckStorageRequest()
        answers = [answer async for answer in stub.CheckStorage(request, timeout=TIMEOUT_S)]
        return [each.finding for each in answers if each.HasField("finding")], answers[-1].summary

    async def scenario() -> None:
        async with running(tmp_path, grace_s=60) as cluster:
            stored = await (await cluster.client("s1")).put_bytes(CONTENT)
            found, told = await check(cluster)
            assert (found, told.objects, told.chunks, told.copies) == ([], 1, 3, 9)
            for name in ("s2", "s3"):
                cluster.files(name)[0].write_bytes(b"bad")
            found, _ = await check(cluster)
            # One that a round repaired meanwhile is no finding any more.
            assert {each.problem for each in found} <= {
                storage_pb2.Finding.PROBLEM_BAD_COPY,
                storage_pb2.Finding.PROBLEM_MISSING_COPY,
            }

            async def sound() -> bool:
                found, told = await check(cluster)
                return not found and told.copies == 9

            await eventually(sound)
            for prefix in (keys.OBJECTS, keys.TENANT_KEYS, keys.MEMORY):
                records = (await cluster.state.list(prefix)).records
                assert records
                await cluster.state.commit([], [Remove(record.key) for record in records])
            await eventually(sound)
            await cluster.restart("s2")
            assert await (await cluster.client("s2")).get_bytes(stored.id) == CONTENT

    asyncio.run(scenario())


def test_nodes_may_share_an_object_store(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()

    async def scenario() -> None:
        async with running(tmp_path, object_store_url=f"file://{tmp_path}/bucket") as cluster:
            stored = await (await cluster.client("s1")).put_bytes(CONTENT)
            assert [list(chunk.nodes) for chunk in stored.chunks] == [["object-store"]] * 3
            assert len(list((tmp_path / "bucket/chunks").glob("*/*"))) == 3
            for gone, left in (("s1", "s2"), ("s2", "s3")):
                await cluster.kill(gone)
                reader = await cluster.client(left)
                assert await reader.get_bytes(stored.id) == CONTENT
                assert (await reader.put_bytes(CONTENT)).id == stored.id
            stub = StorageServiceStub(await cluster.channel("s3"))
            request = storage_pb2.CheckStorageRequest()
            answers = [answer async for answer in stub.CheckStorage(request, timeout=TIMEOUT_S)]
            told = answers[-1].summary
            assert (told.findings, told.copies, told.unnamed_copies) == (0, 3, 0)
            node = (await cluster.nodes())["s3"]
            assert (node.under_replicated_chunks, node.unreadable_chunks) == (0, 0)

    asyncio.run(scenario())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root mounts a file system")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)


def test_a_full_disk_is_said_and_space_is_used_once_there_is_some(small_disk: Path) -> None:
    async def scenario() -> None:
        limits = {"reserve_bytes": str(4 * 1024 * 1024), "garbage_age_s": "0.5"}
        (small_disk.parent / "cluster").mkdir()
        for name in ("s1", "s2"):
            (small_disk / name).mkdir()
            (small_disk.parent / "cluster" / name).symlink_to(small_disk / name)
        async with running(small_disk.parent / "cluster", count=2, **limits) as cluster:
            client = await cluster.client("s1")
            kept: dict[str, bytes] = {}
            with pytest.raises(ResourceExhaustedError, match="full"):
                for _ in range(10):
                    content = os.urandom(9 * 1024 * 1024)
                    kept[(await client.put_bytes(content)).id] = content
            assert 1 <= len(kept) <= 3
            records = (await cluster.state.list(keys.OBJECTS)).records
            assert {record.key for record in records} == {keys.object_(each) for each in kept}
            for wanted, content in kept.items():
                assert await client.get_bytes(wanted) == content
            await cluster.state.commit([], [Remove(record.key) for record in records])

            async def writable() -> bool:
                with suppress(ResourceExhaustedError):
                    return bool(await client.put_bytes(content))
                return False

            began = time.monotonic()
            await eventually(writable)
            assert time.monotonic() - began < 5

    asyncio.run(scenario())


def test_a_tenant_stores_no_more_than_its_quota(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, count=2) as cluster:
            stub = StorageServiceStub(await cluster.channel("s1"))
            quota = storage_pb2.SetQuotaRequest(tenant="default", size_bytes=10 * 1024 * 1024)
            await stub.SetQuota(quota, timeout=TIMEOUT_S)
            client = await cluster.client("s2")
            await client.put_bytes(CONTENT)
            sent: list[int] = []

            async def refused() -> bool:
                try:
                    await client.put_bytes(
                        CONTENT[1:] + b"x", progress=lambda carried, size: sent.append(carried)
                    )
                except ResourceExhaustedError as error:
                    return "may store" in str(error)
                return False

            await eventually(refused)
            assert not sent  # not a byte travels in vain
            [usage] = (
                await stub.ListUsage(storage_pb2.ListUsageRequest(), timeout=TIMEOUT_S)
            ).tenants
            assert (usage.tenant, usage.quota_bytes) == ("default", 10 * 1024 * 1024)

    asyncio.run(scenario())


def test_a_reader_does_not_notice_that_a_node_dies(tmp_path: Path) -> None:
    content = np.random.default_rng(8).bytes(40 * 1024 * 1024)

    async def scenario() -> None:
        async with running(tmp_path, grace_s=60) as cluster:
            stored = await (await cluster.client("s1")).put_bytes(content, replication=2)
            held = [set(chunk.nodes) for chunk in stored.chunks]
            assert any("s1" in nodes and "s2" in nodes for nodes in held)
            seen: list[int] = []

            def progress(carried: int, size: int) -> None:
                if not seen:
                    cluster.processes["s1"].send_signal(signal.SIGKILL)
                seen.append(carried)

            # Some chunks are asked of s1, which dies after the first of them.
            reader = await cluster.client("s3")
            assert await reader.get_bytes(stored.id, progress=progress) == content
            assert seen[-1] == len(content)

    asyncio.run(scenario())


def test_objects_as_files_and_ranges(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, count=2) as cluster:
            client = await cluster.client("s1")
            (tmp_path / "in").write_bytes(CONTENT)
            stored = await client.put_file(tmp_path / "in")
            again = await client.put_bytes(CONTENT)
            assert (again.id, again.chunks) == (stored.id, stored.chunks)
            other = await cluster.client("s2")
            await other.get_to_file(stored.id, tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == CONTENT
            start = 4 * 1024 * 1024 - 3
            assert await other.get_range(stored.id, start, 7) == CONTENT[start : start + 7]
            with pytest.raises(InvalidArgumentError, match="are not in the object"):
                await other.get_range(stored.id, len(CONTENT), 1)
            with pytest.raises(NotFoundError):
                await other.get_to_file(f"b3-{'0' * 64}", tmp_path / "none")
            empty = await client.put_bytes(b"")
            assert await client.get_bytes(empty.id) == b""
            with pytest.raises(UnavailableError, match="2 storage nodes could take one"):
                await client.put_bytes(b"x", replication=3)

    asyncio.run(scenario())
    assert not list(tmp_path.glob("*none*"))


def test_an_upload_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, count=2) as cluster:
            client, sent = await cluster.client("s1"), list[int]()

            def pull_the_plug(carried: int, size: int) -> None:
                raise KeyError(carried)

            with pytest.raises(KeyError):
                await client.put_bytes(CONTENT, progress=pull_the_plug)
            assert not (await cluster.state.list(keys.OBJECTS)).records
            await client.put_bytes(CONTENT, progress=lambda carried, size: sent.append(carried))
            assert len(sent) < 3
            sent.clear()
            await client.put_bytes(CONTENT, progress=lambda carried, size: sent.append(carried))
            assert sent == []

    asyncio.run(scenario())


def test_a_node_that_joins_takes_its_share_and_one_that_drains_is_emptied(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, count=2) as cluster:
            client = await cluster.client("s1")
            contents = [bytes([number]) * 20_000 for number in range(60)]
            ids = [(await client.put_bytes(content, replication=2)).id for content in contents]
            await cluster.start("s3")

            async def holds(name: str, least: int, most: int) -> bool:
                node = (await cluster.nodes()).get(name)
                return node is not None and least <= node.chunks <= most

            await eventually(lambda: holds("s3", 25, 60))
            stub = StorageServiceStub(await cluster.channel("s1"))
            async with translated_errors():
                request = storage_pb2.DrainNodeRequest(node_id="s1")
                await stub.DrainNode(request, timeout=TIMEOUT_S)

            async def drained() -> bool:
                node = (await cluster.nodes())["s1"]
                return node.draining and node.chunks == 0

            await eventually(drained)
            await cluster.kill("s1")
            reader = await cluster.client("s2")
            for object_id, content in zip(ids, contents, strict=True):
                assert await reader.get_bytes(object_id) == content
                [chunk] = (await reader.stat(object_id)).chunks
                assert set(chunk.nodes) == {"s2", "s3"}
            # What another stores is not put on the node that is to go.
            await cluster.start("s1")
            await eventually(lambda: holds("s1", 0, 0))
            [chunk] = (await reader.put_bytes(b"later")).chunks
            assert set(chunk.nodes) == {"s2", "s3"}
            other = StorageServiceStub(await cluster.channel("s2"))
            with pytest.raises(NotFoundError, match="alive: s1, s2, s3"):
                async with translated_errors():
                    request = storage_pb2.DrainNodeRequest(node_id="s9")
                    await other.DrainNode(request, timeout=TIMEOUT_S)

    asyncio.run(scenario())


async def refused(data: DataPlane, method: str, path: str, body: bytes = b"") -> LeptonError:
    with pytest.raises(LeptonError) as raised:
        await data.request(method, path, body)
    return raised.value


def test_a_failed_upload_leaves_nothing_visible(tmp_path: Path) -> None:
    wrong = [
        storage_pb2.CommitObjectRequest(content=b"x", expected_id=f"b3-{'0' * 64}"),
        storage_pb2.CommitObjectRequest(content=b"x", replication=6),
        storage_pb2.CommitObjectRequest(chunks=[storage_pb2.Chunk(hash=b"x", size_bytes=1)]),
    ]
    names = ("..", "%2e%2e", "..%2f..%2fetc", "a" * 63, "A" * 64, "a" * 64 + "%00", "/etc/passwd")

    async def scenario() -> None:
        async with running(tmp_path, count=2) as cluster:
            data = await cluster.data("s1")
            for request in wrong:
                body = request.SerializeToString()
                error = await refused(data, "POST", "/data/objects", body)
                assert isinstance(error, InvalidArgumentError)
            assert isinstance(
                await refused(data, "POST", "/data/objects", b"\xff\xff"), InvalidArgumentError
            )
            for name in names:
                for path in (f"/data/chunks/{name}", f"/data/objects/{name}"):
                    for method in ("GET", "PUT"):
                        error = await refused(data, method, path, b"x" * (method == "PUT"))
                        assert isinstance(error, InvalidArgumentError | NotFoundError)
            assert "do not have the hash" in str(
                await refused(data, "PUT", f"/data/chunks/{'0' * 64}", b"altered")
            )
            too_long = bytes(4 * 1024 * 1024 + 65 * 1024)
            error = await refused(data, "PUT", f"/data/chunks/{'0' * 64}", too_long)
            assert isinstance(error, ResourceExhaustedError)
            assert not (await cluster.state.list(keys.OBJECTS)).records
            for name in ("s1", "s2"):
                assert not cluster.files(name)
                assert not list((tmp_path / name / "packs").iterdir())

    asyncio.run(scenario())


def test_datasets_and_models(tmp_path: Path) -> None:
    arrays = {"x": np.arange(24, dtype=np.float32).reshape(6, 4), "y": np.arange(6)}

    async def scenario() -> None:
        async with running(tmp_path, count=2) as cluster:
            client = await cluster.client("s1")
            stub = StorageServiceStub(await cluster.channel("s1"))
            split = await client.put_split("train", arrays)
            rows = await client.get_rows(split, 2, 5)
            np.testing.assert_array_equal(rows["x"], arrays["x"][2:5])
            np.testing.assert_array_equal(rows["y"], arrays["y"][2:5])
            request = storage_pb2.CreateDatasetRequest(name="sums", splits=[split])
            async with translated_errors():
                versions = [
                    (await stub.CreateDataset(request, timeout=TIMEOUT_S)).dataset.version
                    for _ in range(2)
                ]
                assert versions == [1, 2]
                wrong = storage_pb2.Split()
                wrong.CopyFrom(split)
                wrong.rows = 7
                request = storage_pb2.CreateDatasetRequest(name="sums", splits=[wrong])
                with pytest.raises(DataError):
                    async with translated_errors():
                        await stub.CreateDataset(request, timeout=TIMEOUT_S)
                listed = await stub.ListDatasets(
                    storage_pb2.ListDatasetsRequest(), timeout=TIMEOUT_S
                )
                assert [dataset.version for dataset in listed.datasets] == [1, 2]
                job = job_pb2.Job(id="j-2", state=job_pb2.JOB_STATE_RUNNING)
                job.spec.train.dataset = "sums:1"
                await cluster.state.commit([], [Write(keys.job("j-2"), job.SerializeToString())])
                delete = storage_pb2.DeleteDatasetRequest(name="sums", version=1)
                with pytest.raises(ConflictError, match="job 'j-2'"):
                    async with translated_errors():
                        await stub.DeleteDataset(delete, timeout=TIMEOUT_S)
                job.state = job_pb2.JOB_STATE_SUCCEEDED
                await cluster.state.commit([], [Write(keys.job("j-2"), job.SerializeToString())])
                await stub.DeleteDataset(delete, timeout=TIMEOUT_S)
                listed = await stub.ListDatasets(
                    storage_pb2.ListDatasetsRequest(), timeout=TIMEOUT_S
                )
                assert [dataset.version for dataset in listed.datasets] == [2]
            model = storage_pb2.Model(name="mnist", onnx_object=split.object_id, job_id="j-1")
            publish = storage_pb2.PublishModelRequest(model=model)
            calls = [stub.PublishModel(publish, timeout=TIMEOUT_S) for _ in range(5)]
            answers = await asyncio.gather(*calls)
            assert {answer.model.version for answer in answers} == {1}
            with pytest.raises(NotFoundError, match="did you mean 'mnist'"):
                async with translated_errors():
                    asked = storage_pb2.GetModelRequest(name="mnits")
                    await stub.GetModel(asked, timeout=TIMEOUT_S)

    asyncio.run(scenario())


def test_keys_decide_who_reads_and_writes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, count=1) as cluster:
            signer = TokenSigner((tmp_path / "keys/signing.pem").read_bytes())

            def token(role: options_pb2.Role) -> str:
                return signer.mint("team", role, 60, time.time()).token

            stored = await (await cluster.client("s1")).put_bytes(b"content")
            chunk = f"/data/chunks/{stored.chunks[0].hash.hex()}"
            reader = await cluster.data("s1", token(options_pb2.ROLE_VIEWER))
            assert (await reader.request("GET", chunk)).body == b"content"
            assert isinstance(
                await refused(reader, "PUT", chunk, b"content"), PermissionDeniedError
            )
            nobody = await cluster.data("s1", "no.such.key")
            assert isinstance(await refused(nobody, "GET", chunk), UnauthenticatedError)
            admin = await cluster.data("s1", token(options_pb2.ROLE_ADMIN))
            with pytest.raises(PermissionDeniedError):  # only services say where a chunk goes
                await admin.request("PUT", chunk, b"content", headers={"lepton-here": "1"})
            stub = StorageServiceStub(await cluster.channel("s1", token(options_pb2.ROLE_ADMIN)))
            with pytest.raises(PermissionDeniedError):
                async with translated_errors():
                    request = storage_pb2.HasChunksRequest(hashes=[bytes(32)])
                    await stub.HasChunks(request, timeout=TIMEOUT_S)

    asyncio.run(scenario())
