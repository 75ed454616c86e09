"""Asks models through Envoy, like any client, on behalf of a tenant."""

from __future__ import annotations

from lepton_ai.http import HttpClient
from lepton_ai.oip.rest import JSON_LENGTH_HEADER
from lepton_ai.proto.v1 import options_pb2
from lepton_ai.proto.v1.request_pb2 import HttpContent, QueuedRequest
from lepton_runtime.auth import TokenSigner
from lepton_runtime.clock import Clock

__all__ = ["Asking"]

_KEY_TTL_S = 600
_KEY_LEFT_S = 300
_MOST_KEYS = 1024


class Asking:
    """Routing, balancing and trying again are Envoy's, as for any request.

    Args:
        http: To Envoy.
        signer: Makes a key of the request's tenant that can do no more than infer.
        clock: Time.
        timeout_s: For one request.
    """

    def __init__(
        self, http: HttpClient, signer: TokenSigner, clock: Clock, timeout_s: float
    ) -> None:
        self._http = http
        self._signer = signer
        self._clock = clock
        self._timeout_s = timeout_s
        # By tenant: Envoy checks a key that it has seen without a signature.
        self._keys: dict[str, tuple[str, float]] = {}

    async def ask(self, request: QueuedRequest) -> HttpContent:
        """The model's answer.

        Raises:
            LeptonError: What was answered instead.
        """
        content = request.content
        headers = {
            "authorization": f"Bearer {self._key(request.tenant)}",
            "content-type": content.content_type,
            "content-encoding": content.content_encoding,
            JSON_LENGTH_HEADER: content.json_length,
            "x-request-id": request.id,
        }
        answer = await self._http.request(
            "POST",
            request.path,
            content.body,
            headers={name: value for name, value in headers.items() if value},
            timeout_s=self._timeout_s,
        )
        return HttpContent(
            body=bytes(answer.body),
            content_type=answer.headers.get("content-type", ""),
            json_length=answer.headers.get(JSON_LENGTH_HEADER, ""),
        )

    def _key(self, tenant: str) -> str:
        now = self._clock.now()
        key, expires_at = self._keys.get(tenant, ("", 0.0))
        if expires_at - now < _KEY_LEFT_S:
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            made = self._signer.mint(tenant, options_pb2.ROLE_INFERENCE, _KEY_TTL_S, now)
            key, expires_at = made.token, float(made.expires_at)
            self._keys[tenant] = key, expires_at
        return key
