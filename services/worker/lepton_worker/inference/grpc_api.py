"""The protocol's gRPC side, as exchanges of single messages.

`lepton_runtime.http2` makes exchanges of a client's calls: `POST /<service>/<method>` with the bare
message as body. An error has the headers `lepton-grpc-status`, `lepton-grpc-message` and, where it
says when to come back, `lepton-grpc-details`, which its trailers are made of.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import quote

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from lepton_ai.errors import (
    InternalError,
    InvalidArgumentError,
    LeptonError,
    UnimplementedError,
    status_of,
)
from lepton_ai.oip.messages import INFERENCE_SERVICE
from lepton_ai.oip.rest import Answer
from lepton_runtime.http import Exchange
from lepton_runtime.oip import grpc_service_pb2 as pb
from lepton_worker.inference import reflection
from lepton_worker.inference.deadline import timeout_us
from lepton_worker.inference.grpc_codec import encode_answer, make_request, read_request
from lepton_worker.inference.repository_control import RepositoryControl
from lepton_worker.inference.rest_api import chosen_version
from lepton_worker.inference.service import InferenceService

_log = logging.getLogger(__name__)
HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
# grpc.health.v1.HealthCheckResponse with status SERVING and NOT_SERVING.
_SERVING: Final = b"\x08\x01"
_NOT_SERVING: Final = b"\x08\x02"
# Printable ASCII but for the percent sign: gRPC's percent-encoding of status messages.
_PLAIN_CHARACTERS: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class GrpcApi:
    """Answers calls of gRPC.

    Args:
        service: Does the work.
        control: Loads and unloads models on request of clients.
    """

    def __init__(self, service: InferenceService, control: RepositoryControl) -> None:
        self._service = service
        self._control = control
        self._methods: dict[str, Callable[[Exchange], None]] = {
            "ModelInfer": self._model_infer,
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_load,
            "RepositoryModelUnload": self._repository_unload,
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer, at once or later. Raises nothing: every error becomes an answer."""
        method = self._methods.get(exchange.path.removeprefix(INFERENCE_SERVICE), _not_offered)
        self._guarded(method, exchange)

    def reflect(self, exchange: Exchange) -> None:
        """Answer a request of `grpc.reflection`."""
        self._guarded(reflection.handle, exchange)

    def _guarded(self, method: Callable[[Exchange], None], exchange: Exchange) -> None:
        try:
            method(exchange)
        except DecodeError:
            _reply_error(exchange, InvalidArgumentError("the body is not the call's message"))
        except LeptonError as error:
            _reply_error(exchange, error)
        except Exception:  # noqa: BLE001 - a defect becomes an answer, its details a log entry
            _log.exception("a call failed")
            _reply_error(exchange, InternalError("the call failed"))

    def check_health(self, exchange: Exchange) -> None:
        """Answer `grpc.health.v1.Health/Check` for the whole server."""
        exchange.reply(200, b"", _SERVING if self._service.ready else _NOT_SERVING)

    def _model_infer(self, exchange: Exchange) -> None:
        head, raw = read_request(exchange.body)
        model = self._service.admit(head.model_name, head.model_version or chosen_version(exchange))
        request = make_request(head, raw)
        limit_us = timeout_us(exchange.headers, request.timeout_us)
        finish = partial(_reply_answer, exchange)
        self._service.infer(model, request, limit_us, exchange, finish)

    def _server_live(self, exchange: Exchange) -> None:
        _reply(exchange, pb.ServerLiveResponse(live=True))

    def _server_ready(self, exchange: Exchange) -> None:
        _reply(exchange, pb.ServerReadyResponse(ready=self._service.ready))

    def _model_ready(self, exchange: Exchange) -> None:
        request = pb.ModelReadyRequest.FromString(exchange.body)
        ready = self._service.repository.is_ready(
            request.name, request.version or chosen_version(exchange)
        )
        _reply(exchange, pb.ModelReadyResponse(ready=ready))

    def _server_metadata(self, exchange: Exchange) -> None:
        document = self._service.server_metadata()
        _reply(exchange, json_format.ParseDict(document, pb.ServerMetadataResponse()))

    def _model_metadata(self, exchange: Exchange) -> None:
        request = pb.ModelMetadataRequest.FromString(exchange.body)
        document = self._service.model_metadata(
            request.name, request.version or chosen_version(exchange)
        )
        _reply(exchange, json_format.ParseDict(document, pb.ModelMetadataResponse()))

    def _model_config(self, exchange: Exchange) -> None:
        request = pb.ModelConfigRequest.FromString(exchange.body)
        document = {
            "config": self._service.model_config(
                request.name, request.version or chosen_version(exchange)
            )
        }
        _reply(exchange, json_format.ParseDict(document, pb.ModelConfigResponse()))

    def _model_statistics(self, exchange: Exchange) -> None:
        request = pb.ModelStatisticsRequest.FromString(exchange.body)
        document = self._service.model_statistics(
            request.name, request.version or chosen_version(exchange)
        )
        _reply(exchange, json_format.ParseDict(document, pb.ModelStatisticsResponse()))

    def _repository_index(self, exchange: Exchange) -> None:
        request = pb.RepositoryIndexRequest.FromString(exchange.body)
        entries = [
            entry
            for entry in self._service.index()
            if entry["state"] == "READY" or not request.ready
        ]
        _reply(exchange, json_format.ParseDict({"models": entries}, pb.RepositoryIndexResponse()))

    def _repository_load(self, exchange: Exchange) -> None:
        request = pb.RepositoryModelLoadRequest.FromString(exchange.body)
        done = partial(_reply_done, exchange, pb.RepositoryModelLoadResponse())
        self._control.load(request.model_name or request.repository_name, done)

    def _repository_unload(self, exchange: Exchange) -> None:
        request = pb.RepositoryModelUnloadRequest.FromString(exchange.body)
        done = partial(_reply_done, exchange, pb.RepositoryModelUnloadResponse())
        self._control.unload(request.model_name or request.repository_name, done)


def _not_offered(exchange: Exchange) -> None:
    raise UnimplementedError(f"call {exchange.path} is not offered")


def _reply(exchange: Exchange, message: Message) -> None:
    exchange.reply(200, b"", message.SerializeToString())


def _reply_answer(exchange: Exchange, answer: Answer | LeptonError) -> None:
    if isinstance(answer, LeptonError):
        _reply_error(exchange, answer)
    else:
        exchange.reply(200, b"", encode_answer(answer))


def _reply_done(exchange: Exchange, message: Message, error: LeptonError | None) -> None:
    if error is None:
        _reply(exchange, message)
    else:
        _reply_error(exchange, error)


def _retry_info(error: LeptonError, wait_s: float) -> bytes:
    """What goes into the trailer `grpc-status-details-bin`: when to come back."""
    status = status_pb2.Status(code=status_of(error).grpc, message=str(error))
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(round(wait_s * 1e9))
    status.details.add().Pack(info)
    return base64.b64encode(status.SerializeToString())


def _reply_error(exchange: Exchange, error: LeptonError) -> None:
    status = status_of(error)
    headers = b"lepton-grpc-status: %d\r\nlepton-grpc-message: %b\r\n" % (
        status.grpc,
        quote(str(error), safe=_PLAIN_CHARACTERS).encode(),
    )
    if error.retry_after_s is not None:
        headers += b"lepton-grpc-details: %b\r\n" % _retry_info(error, error.retry_after_s)
    exchange.reply(status.http, headers, b"")
