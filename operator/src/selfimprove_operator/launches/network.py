"""The NetworkPolicy of a run: its pods reach what a stage needs, and nobody reaches them.

Only ports are named: neither the hub nor most stores have addresses that could be listed.
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
    run = {"matchLabels": {status.LABEL_RUN_UID: owner.uid}}
    among_themselves = [{"podSelector": run}]
    ports = [{"protocol": "TCP", "port": port} for port in _ports(snapshot)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owner.metadata,
        "spec": {
            "podSelector": run,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": among_themselves}],
            "egress": [
                {"ports": DNS},
                {"ports": ports},
                {"to": among_themselves},
                *snapshot.network_policy.egress,
            ],
        },
    }


def _ports(snapshot: Snapshot) -> list[int]:
    """Return the ports of the hub, the store, the translator and the judge."""
    spec = snapshot.spec
    external, judge = spec.translation.external, spec.evaluation.judge
    urls = (
        spec.storage.endpoint,
        external.base_url if external else None,
        judge.base_url if judge else None,
    )
    found = [urlsplit(url) for url in urls if url]
    return sorted({HTTPS, *(url.port or PORTS[url.scheme] for url in found)})
