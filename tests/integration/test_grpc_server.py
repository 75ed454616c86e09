"""The gRPC server and channel that all services use, over a real connection."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import ChannelCredentials, ssl_channel_credentials
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lepton_ai.errors import (
    InternalError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from lepton_ai.proto.v1 import gateway_pb2, gateway_pb2_grpc, options_pb2, scheduler_pb2_grpc
from lepton_ai.proto.v1 import scheduler_pb2 as scheduler
from lepton_ai.rpc import TlsFiles, open_channel, translated_errors
from lepton_runtime.auth import TokenSigner, TokenVerifier, make_keys
from lepton_runtime.certificates import Authority
from lepton_runtime.server import GrpcServer, Servicer, principal

DEADLINE_S = 5.0


class Scheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    async def GetJob(self, request, context):
        if request.id == "broken":
            raise RuntimeError("/secret/path on host-1")
        raise NotFoundError(f"job {request.id!r} does not exist", hint="see ListJobs", job="j-1")

    async def ListNodes(self, request, context):
        response = scheduler.ListNodesResponse()
        response.nodes.add(id=principal().tenant)
        return response

    async def StreamLogs(self, request, context):
        yield scheduler.StreamLogsResponse()
        raise UnavailableError("the log is gone")


class Gateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Implements nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    make_keys(folder / "keys", time.time())
    return folder


@pytest.fixture
def key(folder: Path) -> Any:
    signer = TokenSigner((folder / "keys/signing.pem").read_bytes())
    return lambda role: signer.mint("acme", role, 60, time.time()).token


@pytest.fixture
def verifier(folder: Path) -> TokenVerifier:
    return TokenVerifier((folder / "keys/jwks.json").read_text())


@asynccontextmanager
async def serving(verifier: TokenVerifier, tls: TlsFiles | None = None) -> AsyncIterator[str]:
    servicers = [
        Servicer(
            Scheduler(),
            scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server,
            scheduler.DESCRIPTOR.services_by_name["SchedulerService"],
        ),
        Servicer(
            Gateway(),
            gateway_pb2_grpc.add_GatewayServiceServicer_to_server,
            gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"],
        ),
    ]
    server = GrpcServer(servicers, verifier, tls)
    port = await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.drain(1)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within_reason() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(within_reason())


async def ask(
    address: str, token: str | None, job: str = "", tls: ChannelCredentials | None = None
) -> Any:
    """List the nodes, or get a job where one is named."""
    async with open_channel(address, token, tls) as channel, translated_errors():
        stub: Any = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        if job:
            return await stub.GetJob(scheduler.GetJobRequest(id=job), timeout=DEADLINE_S)
        return await stub.ListNodes(scheduler.ListNodesRequest(), timeout=DEADLINE_S)


def test_a_key_of_sufficient_role_is_let_in_and_known(verifier, key):
    async def scenario() -> None:
        async with serving(verifier) as address:
            for role in (options_pb2.ROLE_VIEWER, options_pb2.ROLE_SERVICE):
                answer = await ask(address, key(role))
                assert answer.nodes[0].id == "acme"

    run(scenario())


def test_others_are_told_what_is_needed(verifier, key):
    async def scenario() -> None:
        async with serving(verifier) as address:
            with pytest.raises(UnauthenticatedError, match="Bearer"):
                await ask(address, None)
            with pytest.raises(UnauthenticatedError):
                await ask(address, "no-key")
            with pytest.raises(PermissionDeniedError, match="viewer"):
                await ask(address, key(options_pb2.ROLE_INFERENCE))

    run(scenario())


def test_an_error_reaches_the_caller_whole(verifier, key):
    async def scenario() -> None:
        async with serving(verifier) as address:
            with pytest.raises(NotFoundError) as caught:
                await ask(address, key(options_pb2.ROLE_VIEWER), "j-1")
            assert caught.value.message == "job 'j-1' does not exist"
            assert caught.value.hint == "see ListJobs"
            assert caught.value.ids == {"job": "j-1"}

    run(scenario())


def test_a_defect_keeps_its_internals(verifier, key):
    async def scenario() -> None:
        async with serving(verifier) as address:
            with pytest.raises(InternalError) as caught:
                await ask(address, key(options_pb2.ROLE_VIEWER), "broken")
            assert "secret" not in repr(caught.value)
            assert "host-1" not in str(caught.value)
            assert caught.value.ids["request_id"]

    run(scenario())


def test_a_stream_gives_what_it_has_and_then_its_error(verifier, key):
    async def scenario() -> None:
        async with serving(verifier) as address:
            viewer = key(options_pb2.ROLE_VIEWER)
            async with open_channel(address, viewer) as channel:
                stub: Any = scheduler_pb2_grpc.SchedulerServiceStub(channel)
                got = []
                with pytest.raises(UnavailableError, match="the log is gone"):
                    async with translated_errors():
                        call = stub.StreamLogs(scheduler.StreamLogsRequest(), timeout=DEADLINE_S)
                        async for line in call:
                            got.append(line)
                assert len(got) == 1

    run(scenario())


def test_a_call_that_is_not_implemented_says_so(verifier, key):
    async def scenario() -> None:
        admin = key(options_pb2.ROLE_ADMIN)
        async with serving(verifier) as address, open_channel(address, admin) as channel:
            stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
            with pytest.raises(UnimplementedError, match="GetStatus"):
                async with translated_errors():
                    await stub.GetStatus(gateway_pb2.GetStatusRequest(), timeout=DEADLINE_S)

    run(scenario())


def test_health_needs_no_key(verifier):
    async def scenario() -> None:
        async with serving(verifier) as address, open_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    run(scenario())


def test_mutual_tls_lets_in_only_whom_the_authority_knows(verifier, key, folder):
    def files(name: str, authority: Authority) -> TlsFiles:
        authority.issue(folder / name, ["127.0.0.1"], datetime.datetime.now(datetime.UTC))
        place = folder / name
        return TlsFiles(place / "ca.crt", place / "tls.crt", place / "tls.key")

    async def scenario() -> None:
        now = datetime.datetime.now(datetime.UTC)
        ours, theirs = Authority.create(now), Authority.create(now)
        server, client = files("server", ours), files("client", ours)
        stranger = files("stranger", theirs)
        viewer = key(options_pb2.ROLE_VIEWER)
        async with serving(verifier, server) as address:
            assert (await ask(address, viewer, tls=client.channel_credentials())).nodes[
                0
            ].id == "acme"
            known, unknown = client.authority, stranger.authority
            for wrong in (
                None,
                ssl_channel_credentials(known.read_bytes()),
                TlsFiles(known, stranger.certificate, stranger.key).channel_credentials(),
                TlsFiles(unknown, client.certificate, client.key).channel_credentials(),
            ):
                with pytest.raises(UnavailableError):
                    await ask(address, viewer, tls=wrong)

    run(scenario())


def test_nobody_there_is_unavailable(unused_port):
    async def scenario() -> None:
        with pytest.raises(UnavailableError):
            await ask(f"127.0.0.1:{unused_port}", "token")

    run(scenario())


@pytest.fixture
def unused_port() -> int:
    from lepton_runtime.processes import free_port

    return free_port()
