"""What `helm test` runs: the operator is ready, and the API server serves its resource."""

# ruff: noqa: INP001, S310, T201  a program of its own; the chart writes the addresses

import json
import ssl
import sys
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
RESOURCES = "https://kubernetes.default.svc/apis/selfimprove.dev/v1alpha1"


def main(ready: str) -> None:
    """Fail with the reason, or say what was found."""
    with urllib.request.urlopen(ready, timeout=10) as answer:
        print(ready, answer.status)
    token = (ACCOUNT / "token").read_text()
    request = urllib.request.Request(RESOURCES, headers={"Authorization": f"Bearer {token}"})
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        served = [resource["name"] for resource in json.load(answer)["resources"]]
    print(RESOURCES, *served)
    if "selfimproveruns" not in served:
        sys.exit("expected selfimproveruns to be served, found other resources")


main(sys.argv[1])
