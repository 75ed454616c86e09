from __future__ import annotations

from lepton_gateway.envoy.admin import Sample
from lepton_gateway.reporting import Totals, read_totals


def counted(name: str, value: float, **labels: str) -> Sample:
    return Sample(f"envoy_cluster_{name}", {"envoy_cluster_name": "deployment/m/2"} | labels, value)


def test_what_envoy_counts_is_read_by_deployment_and_version() -> None:
    routes, totals = read_totals(
        [
            Sample("envoy_http_rds_version_text", {"text_value": "abc"}, 0),
            counted("membership_healthy", 2),
            counted("upstream_rq_active", 3),
            counted("upstream_rq_pending_active", 4),
            counted("upstream_rq_completed", 100),
            counted("upstream_rq_xx", 5, envoy_response_code_class="4"),
            counted("upstream_rq_xx", 6, envoy_response_code_class="5"),
            counted("grpc_failure", 7),
            counted("upstream_rq_time_sum", 1500),
            counted("upstream_rq_pending_overflow", 9, envoy_cluster_name="shadow/m/2"),
        ]
    )
    assert routes == "abc"
    assert totals == {("m", 2): Totals(2, 7, 100, 18, 1.5, dropped=9)}


def test_a_report_tells_what_was_added_also_when_envoy_began_anew() -> None:
    now = Totals(2, 7, 100, 11, 1.5)
    added = now.since(Totals(1, 9, 90, 10, 1.0))
    assert (added.requests, added.errors, added.seconds, added.outstanding) == (10, 1, 0.5, 7)
    assert now.since(Totals(1, 9, 900, 10, 1.0)).requests == 100
