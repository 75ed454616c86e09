import json
from pathlib import Path

from lepton_runtime.local.child import restart_delay_s
from lepton_runtime.local.plan import ClusterPlan, environment_of, services_of

PLAN = ClusterPlan(Path("/home/someone/.lepton"), 8080, workers=3, storage=2)


def test_one_process_a_node():
    ids = [service.node_id for service in services_of(PLAN)]
    assert ids == [
        "scheduler-1",
        "gateway-1",
        "storage-1",
        "storage-2",
        "worker-1",
        "worker-2",
        "worker-3",
    ]


def test_each_is_told_where_everything_is():
    for service in services_of(PLAN):
        told = environment_of(PLAN, service, "127.0.0.1:1", "127.0.0.1:2")
        assert told["LEPTON_NODE_ID"] == service.node_id
        assert json.loads(told["LEPTON_ETCD_ENDPOINTS"]) == ["127.0.0.1:1"]
        assert json.loads(told["LEPTON_NATS_SERVERS"]) == ["nats://127.0.0.1:2"]
        assert told["LEPTON_DATA_DIR"].endswith(service.node_id)


def test_only_the_gateway_has_the_port_that_clients_know():
    ports = {s.node_id: s.settings.get("LEPTON_PORT") for s in services_of(PLAN)}
    assert ports["gateway-1"] == "8080"
    assert not any(port for node, port in ports.items() if node != "gateway-1")


def test_restarts_back_off():
    delays = [restart_delay_s(deaths) for deaths in range(1, 12)]
    assert delays == sorted(delays)
    assert delays[0] < 1 < delays[-1] <= 10
