"""Structured logs on standard error, and metrics for Prometheus."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from prometheus_client import start_http_server

__all__ = ["configure_logging", "serve_metrics"]


def configure_logging(style: Literal["json", "console"], node_id: str) -> None:
    """One line an event, with the node and whatever ids the context holds."""
    renderer = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(node=node_id)


def serve_metrics(host: str, port: int) -> None:
    """Serve this process's metrics on ``/metrics``, from a thread of its own."""
    start_http_server(port, addr=host)
