"""What the inference server can be told, all of it on its command line."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lepton_ai.errors import InvalidArgumentError
from lepton_worker.inference.options import ServingOptions, parse_value
from lepton_worker.inference.repository import ModelSource, Step

MIB = 1024 * 1024
_CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for mutual TLS.

    Attributes:
        certificate: The server's certificate chain.
        key: Its private key.
        client_authority: Who must have signed a client's certificate.
    """

    certificate: Path
    key: Path
    client_authority: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server runs.

    Attributes:
        models: Loaded at the start.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        grpc_address: A second address to listen on. Both speak HTTP/1.1, HTTP/2 and gRPC.
        tls: Required unless the address is loopback.
        insecure_bind: Whether an operator accepts another address without TLS.
        controlled: Whether an agent sends commands on standard input.
        threads: Threads that compute one batch: this process's share of the node.
        compute_threads: Batches computed at the same time.
        defaults: How models are served that do not say otherwise.
        model_memory_bytes: What all loaded models may take; 0 for no limit. Beyond it the least
            recently used ones are unloaded, and loaded again when they are asked for.
        max_body_bytes: Size of a request, compressed and not.
        max_buffered_bytes: Requests held at the same time, together.
        max_model_bytes: Size of a model's file.
        probe_memory_bytes: Address space of the process that tries an unknown model first.
        probe_timeout_s: How long that may take.
        drain_timeout_s: How long unanswered requests keep a stopping server alive.
    """

    models: tuple[ModelSource, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_address: tuple[str, int] | None = None
    tls: TlsFiles | None = None
    insecure_bind: bool = False
    controlled: bool = False
    threads: int = 1
    compute_threads: int = 1
    defaults: ServingOptions = field(default_factory=ServingOptions)
    model_memory_bytes: int = 0
    max_body_bytes: int = 64 * MIB
    max_buffered_bytes: int = 512 * MIB
    max_model_bytes: int = 2048 * MIB
    probe_memory_bytes: int = 8192 * MIB
    probe_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0


def parse(arguments: Sequence[str]) -> Settings:
    """Read the command line.

    Raises:
        InvalidArgumentError: An argument has no sense, or asks for an open port without TLS.
        SystemExit: What `argparse` raises on unknown arguments and for `--help`.
    """
    options = _parser().parse_intermixed_args(arguments)
    host, port = _address("--http", options.http)
    defaults = ServingOptions().changed(
        {"max_batch_size": options.max_batch_size, "queue_capacity": options.queue_capacity}
    )
    settings = Settings(
        models=_models(options.models, options.set, defaults),
        host=host,
        port=port,
        grpc_address=_address("--grpc", options.grpc) if options.grpc else None,
        tls=_tls(options),
        insecure_bind=options.insecure_bind,
        controlled=options.control,
        threads=options.threads,
        compute_threads=options.compute_threads,
        defaults=defaults,
        model_memory_bytes=options.model_memory_mib * MIB,
        max_body_bytes=options.max_body_mib * MIB,
        max_model_bytes=options.max_model_mib * MIB,
        drain_timeout_s=options.drain_timeout_s,
    )
    _check_exposure(settings)
    return settings


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="lepton serve", description="Serve ONNX models by the Open Inference Protocol."
    )
    add = parser.add_argument
    add("models", nargs="*", metavar="[NAME[:VERSION]=]PATH", help="an ONNX file, and its name")
    add("--http", default=str(defaults.port), metavar="[HOST:]PORT")
    add("--grpc", metavar="[HOST:]PORT", help="listen there too; either port answers REST and gRPC")
    add("--control", action="store_true", help="take commands as JSON lines on standard input")
    add("--threads", type=int, default=_own_cpus(), help="threads that compute one batch")
    add("--compute-threads", type=int, default=1, help="batches computed at the same time")
    add("--max-batch-size", type=int, default=defaults.defaults.max_batch_size)
    add("--queue-capacity", type=int, default=defaults.defaults.queue_capacity)
    add("--set", action="append", default=[], metavar="MODEL.OPTION=VALUE", help=_option_help())
    add("--model-memory-mib", type=int, default=0, help="of all loaded models; 0: no limit")
    add("--max-body-mib", type=int, default=defaults.max_body_bytes // MIB)
    add("--max-model-mib", type=int, default=defaults.max_model_bytes // MIB)
    add("--drain-timeout-s", type=float, default=defaults.drain_timeout_s)
    add("--tls-certificate", type=Path)
    add("--tls-key", type=Path)
    add("--tls-client-authority", type=Path)
    add("--insecure-bind", action="store_true", help="allow an open port without TLS")
    return parser


def _own_cpus() -> int:
    """Processors this process may use, with a container's quota, which ONNX Runtime ignores."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_CPU_MAX.read_text().split()
    except (OSError, ValueError):  # Not in a cgroup of version 2, so without a quota.
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def _address(option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidArgumentError(f"{option} {text!r} has no port", hint="such as 8000")
    return host.strip("[]") or "127.0.0.1", int(port)


def _models(
    texts: Sequence[str], changes: Sequence[str], defaults: ServingOptions
) -> tuple[ModelSource, ...]:
    options: dict[str, dict[str, object]] = {}
    for change in changes:
        target, separator, value = change.partition("=")
        model, _, option = target.rpartition(".")
        if not separator or not model:
            raise InvalidArgumentError(
                f"--set {change!r} names no option of a model", hint="MODEL.OPTION=VALUE"
            )
        options.setdefault(model, {})[option] = parse_value(option, value)
    models = tuple(_model(text, options, defaults) for text in texts)
    unknown = options.keys() - {model.name for model in models}
    if unknown:
        raise InvalidArgumentError(
            f"--set names model {min(unknown)!r}, which is not served",
            hint=f"there are {', '.join(model.name for model in models) or 'none'}",
        )
    return models


def _model(
    text: str, options: Mapping[str, Mapping[str, object]], defaults: ServingOptions
) -> ModelSource:
    label, separator, path = text.partition("=")
    if not separator:
        label, path = Path(text).stem, text
    name, _, version = label.partition(":")
    changed = defaults.changed(options.get(name, {}))
    return ModelSource(name, version or "1", (Step(Path(path)),), changed).checked()


def _option_help() -> str:
    return f"how one model is served; options are {', '.join(ServingOptions._fields)}"


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    files = (options.tls_certificate, options.tls_key, options.tls_client_authority)
    if not any(files):
        return None
    if not all(files):
        raise InvalidArgumentError(
            "TLS needs three files", hint="--tls-certificate, --tls-key, --tls-client-authority"
        )
    return TlsFiles(*files)


def _check_exposure(settings: Settings) -> None:
    hosts = [settings.host, *(settings.grpc_address or ())[:1]]
    exposed = [host for host in hosts if not _is_loopback(host)]
    if exposed and settings.tls is None and not settings.insecure_bind:
        raise InvalidArgumentError(
            f"{exposed[0]} can be reached from other machines",
            hint="give the three --tls files, or accept it with --insecure-bind",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
