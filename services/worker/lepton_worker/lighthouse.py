"""`python -m lepton_worker.lighthouse`: the quorum server of one job, until its input ends."""

from __future__ import annotations

import sys

from lepton_runtime.processes import die_with_parent
from lepton_worker.channel import AgentChannel

_JOIN_MS = 200
_TICK_MS = 20
# A rank that is silent for this long is lost.
_SILENT_MS = 1_500


def main() -> None:
    """Serve quorums."""
    die_with_parent()
    from torchft._torchft import LighthouseServer

    channel = AgentChannel()
    server = LighthouseServer(
        bind="127.0.0.1:0",
        min_replicas=int(sys.argv[1]),
        join_timeout_ms=_JOIN_MS,
        quorum_tick_ms=_TICK_MS,
        heartbeat_timeout_ms=_SILENT_MS,
    )
    channel.tell("listening", address=server.address())
    while channel.hear() is not None:
        pass
    server.shutdown()


if __name__ == "__main__":
    main()
