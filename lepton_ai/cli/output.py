"""How the command prints: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

from lepton_ai.proto.v1.storage_pb2 import Model

__all__ = [
    "SIZE_UNITS",
    "age_text",
    "lineage",
    "print_json",
    "print_table",
    "size_text",
    "to_form",
]

_console = Console()
SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def to_form(message: Message) -> dict[str, Any]:
    """A message as its JSON form, with the names of the protocol."""
    return MessageToDict(message, preserving_proto_field_name=True)


def print_json(messages: Iterable[Message]) -> None:
    """A JSON array, one object a message."""
    print(json.dumps([to_form(message) for message in messages], indent=2))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people."""
    table = Table(*headers, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    _console.print(table)


def lineage(model: Model, aliases: Sequence[str]) -> list[tuple[str, str]]:
    """Where a model came from, as rows of a table; what is not known is left out."""
    rows = [
        ("model", f"{model.name}:{model.version}"),
        ("aliases", ", ".join(aliases)),
        ("published", model.created_at.ToDatetime(UTC).isoformat(" ", "seconds")),
        ("tenant", model.tenant),
        ("job", model.job_id),
        ("dataset", model.dataset),
        ("data", model.dataset_object),
        (
            "metrics",
            ", ".join(f"{key} {value:.4g}" for key, value in sorted(model.metrics.items())),
        ),
        ("libraries", ", ".join(f"{key} {text}" for key, text in sorted(model.libraries.items()))),
        ("layers", ", ".join(_layers(model.model_config))),
        ("onnx", model.onnx_object),
        ("weights", model.weights_object),
    ]
    return [(name, text) for name, text in rows if text]


def _layers(model_config: str) -> list[str]:
    """Layers as they are declared: a name, and what differs from its defaults."""
    layers: list[tuple[str, dict[str, Any]]] = json.loads(model_config or "{}").get("layers", [])
    return [
        f"{name}({', '.join(f'{key}={value}' for key, value in parameters.items())})"
        for name, parameters in layers
    ]


def age_text(moment: Timestamp, now: datetime | None = None) -> str:
    """How long ago something was, such as ``3m``; empty for never.

    Example:
        >>> age_text(Timestamp(seconds=40), datetime.fromtimestamp(100, UTC))
        '1m'
    """
    if not moment.seconds:
        return ""
    seconds = int((now or datetime.now(UTC)).timestamp() - moment.seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(0, seconds)}s"


def size_text(size_bytes: float) -> str:
    """A size for people.

    Example:
        >>> size_text(2048)
        '2.0 KiB'
    """
    for unit in SIZE_UNITS[:-1]:
        if size_bytes < 1024:
            return f"{size_bytes:.1f} {unit}" if unit != "B" else f"{size_bytes:.0f} B"
        size_bytes /= 1024
    return f"{size_bytes:.1f} {SIZE_UNITS[-1]}"
