"""Which processes make a local cluster, and what each is told."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ClusterPlan", "Service", "environment_of", "services_of"]

# Each training rank and replica asks for one core. On one machine the nodes share its cores, so
# each offers at least two: training and serving fit side by side.
_LEAST_CPUS = 2


@dataclass(frozen=True)
class ClusterPlan:
    """What to start.

    Attributes:
        home: Folder of this cluster: keys, data and logs.
        port: Where the gateway answers.
        workers: Worker nodes.
        storage: Storage nodes.
    """

    home: Path
    port: int
    workers: int
    storage: int

    @property
    def keys(self) -> Path:
        """Folder with the keys."""
        return self.home / "keys"

    @property
    def logs(self) -> Path:
        """Folder with a log file for each service."""
        return self.home / "logs"

    @property
    def gateway_address(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Service:
    """One node: its id, the module that runs it, and settings of its own."""

    node_id: str
    module: str
    settings: Mapping[str, str]


def services_of(plan: ClusterPlan) -> list[Service]:
    """The nodes of a local cluster."""
    cpus = str(float(max(_LEAST_CPUS, os.cpu_count() or 1)))
    return [
        Service("scheduler-1", "lepton_scheduler", {}),
        Service("gateway-1", "lepton_gateway", {"LEPTON_PORT": str(plan.port)}),
        *(
            Service(f"storage-{number}", "lepton_storage", {})
            for number in range(1, plan.storage + 1)
        ),
        *(
            Service(f"worker-{number}", "lepton_worker", {"LEPTON_CPUS": cpus})
            for number in range(1, plan.workers + 1)
        ),
    ]


def environment_of(plan: ClusterPlan, service: Service, etcd: str, nats: str) -> dict[str, str]:
    """Variables that configure one service; `etcd` and `nats` are ``host:port``."""
    return {
        "LEPTON_NODE_ID": service.node_id,
        "LEPTON_HOST": "127.0.0.1",
        "LEPTON_ETCD_ENDPOINTS": json.dumps([etcd]),
        "LEPTON_NATS_SERVERS": json.dumps([f"nats://{nats}"]),
        "LEPTON_DATA_DIR": str(plan.home / "nodes" / service.node_id),
        "LEPTON_KEYS_DIR": str(plan.keys),
        **service.settings,
    }
