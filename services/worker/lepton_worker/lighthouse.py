"""`python -m lepton_worker.lighthouse`: the quorum server of one job, until its input ends."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from typing import Any

from lepton_worker.channel import AgentChannel

# A rank that lives but is late is waited for; a dead one is not.
_JOIN_MS = 5_000
_TICK_MS = 20
# A rank that is silent for this long is lost.
_SILENT_MS = 1_000


def main() -> None:
    """Serve quorums."""
    channel = AgentChannel()
    # It tells of every step otherwise, at several lines each.
    os.environ["RUST_LOG"] = "warn"
    server = _torchft().LighthouseServer(
        bind=f"{sys.argv[2]}:0",
        min_replicas=int(sys.argv[1]),
        join_timeout_ms=_JOIN_MS,
        quorum_tick_ms=_TICK_MS,
        heartbeat_timeout_ms=_SILENT_MS,
    )
    channel.tell("listening", port=int(server.address().rsplit(":", 1)[1].strip("/")))
    while channel.hear() is not None:
        pass
    server.shutdown()


def _torchft() -> Any:
    """torchft's extension on its own: the package imports torch, which takes seconds."""
    package = importlib.util.find_spec("torchft")
    assert package is not None
    found = PathFinder.find_spec("_torchft", package.submodule_search_locations)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
