"""KServe's own clients; runs in an environment of its own that has `kserve` and `lepton_ai`.

Arguments: the HTTP address, the gRPC address, which of the two to import first and, for a cluster,
a key. Exits with 0 if all is as it should be. The server has `tens`, which multiplies rows of four
by ten.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import numpy as np

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def request(kserve: Any, binary: bool) -> Any:
    tensor = kserve.InferInput("x", list(X.shape), "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary)
    output = kserve.protocol.infer_type.RequestedOutput("y", {"binary_data": binary})
    return kserve.InferRequest("tens", [tensor], request_outputs=[output])


async def check_rest(kserve: Any, url: str, key: dict[str, str]) -> None:
    config = kserve.inference_client.RESTConfig(protocol="v2", retries=1)
    async with kserve.InferenceRESTClient(config) as client:
        assert await client.is_server_ready(url, key)
        assert await client.is_server_live(url, key)
        assert await client.is_model_ready(url, "tens", key)
        for binary in (True, False):
            headers = dict(key)  # the client writes into it
            answer = await client.infer(url, request(kserve, binary), "tens", headers=headers)
            np.testing.assert_array_equal(answer.outputs[0].as_numpy(), X * 10)


async def check_grpc(kserve: Any, address: str, key: dict[str, str]) -> None:
    shown = tuple(key.items())
    async with kserve.InferenceGRPCClient(address) as client:
        assert await client.is_server_ready(headers=shown)
        assert await client.is_server_live(headers=shown)
        assert await client.is_model_ready("tens", headers=shown)
        for binary in (True, False):
            answer = await client.infer(request(kserve, binary), headers=shown)
            np.testing.assert_array_equal(answer.outputs[0].as_numpy(), X * 10)


async def main(http_address: str, grpc_address: str, first: str, token: str = "") -> None:
    importlib.import_module(first)
    importlib.import_module("lepton_ai.cluster.client")
    kserve = importlib.import_module("kserve")
    key = {"authorization": f"Bearer {token}"} if token else {}
    await check_rest(kserve, f"http://{http_address}", key)
    await check_grpc(kserve, grpc_address, key)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
