"""Where the ranks of a script meet: a store of torch.distributed, in a process that is no rank."""

from __future__ import annotations

import socket

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from lepton_worker.channel import AgentChannel

__all__ = ["keep_store"]


def keep_store(bind: str, channel: AgentChannel) -> None:
    """Keep a store on any free port of `bind` and tell which, until the agent is gone."""
    listening = socket.socket()
    listening.bind((bind, 0))
    listening.listen()
    port = listening.getsockname()[1]
    store = TCPStore(
        bind,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    channel.tell("listening", port=store.port)
    while channel.hear() is not None:
        pass
