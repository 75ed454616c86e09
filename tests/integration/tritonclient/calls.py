"""Every call of an unmodified `tritonclient`; runs in an environment of its own.

Arguments: the HTTP address, the gRPC address and, for a cluster, a key. Exits with 0 if all is as
it should be. The server has version 1 (times two) and 2 (times ten) of `tens`, and `echo`, which
gives texts back.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import time
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.grpc import InferenceServerClientPlugin
from tritonclient.utils import InferenceServerException

START_TIMEOUT_S = 20.0
LOST = 7  # of the requests of a stream, the one for a model that does not exist
X = np.arange(8, dtype=np.float32).reshape(2, 4)
TEXTS = np.array([["a", "é"], ["", "long" * 100]], dtype=object)


def make_input(module: Any, name: str, array: Any, datatype: str, **options: Any) -> Any:
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return tensor


def check_infer(client: Any, module: Any, **options: Any) -> None:
    scale = [make_input(module, "x", X, "FP32")]
    result = client.infer("tens", scale, request_id="r1", **options)
    np.testing.assert_array_equal(result.as_numpy("y"), X * 10)
    old = client.infer("tens", scale, model_version="1", timeout=5_000_000, **options)
    np.testing.assert_array_equal(old.as_numpy("y"), X * 2)
    wanted = [module.InferRequestedOutput("y")]
    chosen = client.infer("tens", scale, outputs=wanted, priority=1, **options)
    np.testing.assert_array_equal(chosen.as_numpy("y"), X * 10)
    echo = client.infer("echo", [make_input(module, "x", TEXTS, "BYTES")], **options)
    assert [item.decode() for item in echo.as_numpy("y").ravel()] == TEXTS.ravel().tolist()


def check_errors(client: Any, module: Any) -> None:
    scale = [make_input(module, "x", X, "FP32")]
    for model, inputs, words in (
        ("tesn", scale, "did you mean 'tens'"),
        ("tens", [make_input(module, "z", X, "FP32")], "'z' does not exist"),
        ("tens", [make_input(module, "x", X.astype(np.float64), "FP64")], "takes FP32"),
    ):
        try:
            client.infer(model, inputs)
        except InferenceServerException as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"no error with {words!r}")


def check_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tens", "1")
    assert not client.is_model_ready("nothing")


def check_loading(client: Any) -> None:
    client.unload_model("echo")
    assert not client.is_model_ready("echo")
    client.load_model("echo")
    assert client.is_model_ready("echo")


class Key(InferenceServerClientPlugin):
    """Shows a key with every request."""

    def __init__(self, key: str) -> None:
        self.headers = {"authorization": f"Bearer {key}"} if key else {}

    def __call__(self, request: Any) -> None:
        request.headers.update(self.headers)


def check_http(address: str, key: Key) -> None:
    with triton_http.InferenceServerClient(address, concurrency=2) as client:
        client.register_plugin(key)
        check_metadata(client)
        assert client.get_server_metadata()["name"] == "lepton"
        assert client.get_model_metadata("tens")["versions"] == ["1", "2"]
        assert client.get_model_config("tens")["max_batch_size"] == 64
        assert {model["name"] for model in client.get_model_repository_index()} >= {"tens", "echo"}
        check_infer(client, triton_http)
        for algorithm in ("gzip", "deflate"):
            check_infer(
                client,
                triton_http,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
        check_errors(client, triton_http)
        as_json = [make_input(triton_http, "x", X, "FP32", binary_data=False)]
        wanted = [triton_http.InferRequestedOutput("y", binary_data=False)]
        result = client.infer("tens", as_json, outputs=wanted)
        np.testing.assert_array_equal(result.as_numpy("y"), X * 10)
        pending = [client.async_infer("tens", as_json) for _ in range(20)]
        for request in pending:
            np.testing.assert_array_equal(request.get_result().as_numpy("y"), X * 10)
        statistics = client.get_inference_statistics("tens")["model_stats"][0]
        assert statistics["inference_stats"]["success"]["count"] > 20


def check_grpc(address: str, key: Key) -> None:
    with triton_grpc.InferenceServerClient(address) as client:
        client.register_plugin(key)
        check_metadata(client)
        assert client.get_server_metadata().name == "lepton"
        assert list(client.get_model_metadata("tens").versions) == ["1", "2"]
        assert client.get_model_config("tens").config.max_batch_size == 64
        assert {model.name for model in client.get_model_repository_index().models} >= {"tens"}
        check_infer(client, triton_grpc)
        check_infer(client, triton_grpc, client_timeout=5.0)
        for algorithm in ("gzip", "deflate"):
            check_infer(client, triton_grpc, compression_algorithm=algorithm)
        # A stream asks no plugin.
        check_stream(client, headers=key.headers)
        check_stream(client, headers=key.headers, compression_algorithm="gzip")
        check_errors(client, triton_grpc)
        statistics = client.get_inference_statistics("tens").model_stats[0]
        assert statistics.inference_stats.success.count > 20


def check_stream(client: Any, **options: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), **options)
    for number in range(100):
        tensor = make_input(triton_grpc, "x", X + number, "FP32")
        name = "nothing" if number == LOST else "tens"
        client.async_stream_infer(name, [tensor], request_id=str(number))
    for number in range(100):
        result, error = answers.get(timeout=START_TIMEOUT_S)
        if number == LOST:
            assert "'nothing'" in str(error), error
            continue
        assert error is None, error
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        np.testing.assert_array_equal(result.as_numpy("y"), (X + number) * 10)
    client.stop_stream()


async def check_async(http_address: str, grpc_address: str, key: Key) -> None:
    async with triton_http_aio.InferenceServerClient(http_address) as client:
        client.register_plugin(key)
        tensors = [make_input(triton_http, "x", X, "FP32")]
        results = await asyncio.gather(*(client.infer("tens", tensors) for _ in range(10)))
        for result in results:
            np.testing.assert_array_equal(result.as_numpy("y"), X * 10)
    async with triton_grpc_aio.InferenceServerClient(grpc_address) as client:
        client.register_plugin(key)
        tensors = [make_input(triton_grpc, "x", X, "FP32")]
        results = await asyncio.gather(*(client.infer("tens", tensors) for _ in range(10)))
        for result in results:
            np.testing.assert_array_equal(result.as_numpy("y"), X * 10)
        await check_async_stream(client, tensors, key)


async def check_async_stream(client: Any, tensors: list[Any], key: Key) -> None:
    async def requests() -> Any:
        for number in range(10):
            yield {"model_name": "tens", "inputs": tensors, "request_id": str(number)}

    ids = []
    async for result, error in client.stream_infer(requests(), headers=key.headers):
        assert error is None, error
        ids.append(result.get_response().id)
        np.testing.assert_array_equal(result.as_numpy("y"), X * 10)
    assert ids == [str(number) for number in range(10)]


def wait_until_live(client: Any, key: Key) -> None:
    client.register_plugin(key)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if client.is_server_ready():
                return
        except (OSError, InferenceServerException):
            if time.monotonic() > deadline_s:
                raise
        time.sleep(0.05)


def main(http_address: str, grpc_address: str, token: str = "") -> None:
    key = Key(token)
    wait_until_live(triton_http.InferenceServerClient(http_address), key)
    wait_until_live(triton_grpc.InferenceServerClient(grpc_address), key)
    check_http(http_address, key)
    check_grpc(grpc_address, key)
    asyncio.run(check_async(http_address, grpc_address, key))
    if not token:  # a cluster has deployments instead
        with triton_http.InferenceServerClient(http_address) as client:
            check_loading(client)
        with triton_grpc.InferenceServerClient(grpc_address) as client:
            check_loading(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
