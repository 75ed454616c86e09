"""`python -m lepton_worker.lighthouse`: the quorum server of one job, until its input ends."""

from __future__ import annotations

import sys

from lepton_runtime.processes import die_with_parent
from lepton_worker.channel import AgentChannel

# A rank that lives but is late is waited for; a dead one is not.
_JOIN_MS = 5_000
_TICK_MS = 20
# A rank that is silent for this long is lost.
_SILENT_MS = 1_000


def main() -> None:
    """Serve quorums."""
    die_with_parent()
    from torchft._torchft import LighthouseServer

    channel = AgentChannel()
    server = LighthouseServer(
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


if __name__ == "__main__":
    main()
