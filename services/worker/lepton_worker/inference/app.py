"""Which side of the server an exchange is for."""

from __future__ import annotations

from lepton_ai.oip.messages import INFERENCE_SERVICE
from lepton_runtime.http import Exchange
from lepton_worker.inference import grpc_api, metrics
from lepton_worker.inference.grpc_api import GrpcApi
from lepton_worker.inference.grpc_streams import REFLECTION
from lepton_worker.inference.repository import Repository
from lepton_worker.inference.rest_api import RestApi


class App:
    """Hands each exchange to REST, gRPC or metrics."""

    def __init__(self, rest: RestApi, grpc: GrpcApi, repository: Repository) -> None:
        self._rest = rest
        self._grpc = grpc
        self._repository = repository

    def handle(self, exchange: Exchange) -> None:
        """Answer, at once or later."""
        path = exchange.path
        if path.startswith(INFERENCE_SERVICE):
            self._grpc.handle(exchange)
        elif path == grpc_api.HEALTH_CHECK:
            self._grpc.check_health(exchange)
        elif path.startswith(REFLECTION):
            self._grpc.reflect(exchange)
        elif path == "/metrics":
            exchange.reply(200, metrics.CONTENT_TYPE, metrics.expose(self._repository))
        else:
            self._rest.handle(exchange)
