"""Where processes meet: a store of torch.distributed."""

from __future__ import annotations

import socket

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from lepton_worker.channel import AgentChannel

__all__ = ["keep_store", "open_store"]


def open_store(host: str, port: int, listening: int | None) -> TCPStore:
    """A store on a port; kept here where a socket that listens there is given."""
    return TCPStore(
        host,
        port,
        is_master=listening is not None,
        wait_for_workers=False,
        master_listen_fd=listening,
    )


def keep_store(bind: str, channel: AgentChannel) -> None:
    """Keep a store on any free port of `bind` and tell which, until the agent is gone.

    This process is no rank of those that meet there: ranks of a script come and go.
    """
    with socket.create_server((bind, 0)) as listening:
        port = listening.getsockname()[1]
        store = open_store(bind, port, listening.detach())
    channel.tell("listening", port=store.port)
    while channel.hear() is not None:
        pass
