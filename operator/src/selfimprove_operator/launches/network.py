"""The NetworkPolicy of a run: its pods can reach what stages need, and only each other reach them.

It limits ports but not addresses: those of the Hub and of most stores change.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from selfimprove_operator.api import status
from selfimprove_operator.launches.snapshot import Owner, Snapshot

HTTPS: Final = 443
PORTS: Final = {"http": 80, "https": HTTPS}
DNS: Final = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


def network_policy(owner: Owner, snapshot: Snapshot) -> dict[str, Any]:
    """Return the run's NetworkPolicy."""
    spec = snapshot.spec
    external, judge = spec.translation.external, spec.evaluation.judge
    urls = (
        spec.storage.endpoint,
        external.base_url if external else None,
        judge.base_url if judge else None,
    )
    services = [urlsplit(url) for url in urls if url]
    ports = sorted({HTTPS, *(service.port or PORTS[service.scheme] for service in services)})
    run = {"matchLabels": {status.LABEL_RUN_UID: owner.uid}}
    pods_of_run = [{"podSelector": run}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owner.metadata,
        "spec": {
            "podSelector": run,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": pods_of_run}],
            "egress": [
                {"ports": DNS},
                {"ports": [{"protocol": "TCP", "port": port} for port in ports]},
                {"to": pods_of_run},
                *snapshot.network_policy.egress,
            ],
        },
    }
