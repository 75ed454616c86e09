"""KServe's own clients; runs in an environment of its own that has `kserve` and `lepton_ai`.

Arguments: the HTTP address, the gRPC address, and which of the two to import first. Exits with 0
if all is as it should be. The server has `tens`, which multiplies rows of four by ten.
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
    return kserve.InferRequest(model_name="tens", infer_inputs=[tensor])


async def check(kserve: Any, http_address: str, grpc_address: str) -> None:
    url = f"http://{http_address}"
    config = kserve.inference_client.RESTConfig(protocol="v2", retries=1)
    rest = kserve.InferenceRESTClient(config)
    assert await rest.is_server_ready(url)
    assert await rest.is_server_live(url)
    assert await rest.is_model_ready(url, "tens")
    grpc = kserve.InferenceGRPCClient(grpc_address)
    assert await grpc.is_server_ready()
    assert await grpc.is_server_live()
    assert await grpc.is_model_ready("tens")
    for binary in (True, False):
        answer = await rest.infer(url, request(kserve, binary), model_name="tens")
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), X * 10)
        answer = await grpc.infer(request(kserve, binary))
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), X * 10)
    await grpc.close()
    await rest.close()


def main(http_address: str, grpc_address: str, first: str) -> None:
    importlib.import_module(first)
    importlib.import_module("lepton_ai.cluster.client")
    asyncio.run(check(importlib.import_module("kserve"), http_address, grpc_address))


if __name__ == "__main__":
    main(*sys.argv[1:])
