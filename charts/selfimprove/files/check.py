"""What `helm test` runs: the operator is ready, and the API server serves its resource."""

# ruff: noqa: INP001, S310, T201  a program of its own; the chart writes the addresses

import json
import ssl
import sys
from pathlib import Path
from urllib.request import Request, urlopen

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
RESOURCES = "https://kubernetes.default.svc/apis/selfimprove.dev/v1alpha1"


def main(ready: str) -> None:
    """Say what was found, or fail with what was not."""
    ask(Request(ready))
    print("the operator is ready")
    token = (ACCOUNT / "token").read_text()
    answer = ask(Request(RESOURCES, headers={"Authorization": f"Bearer {token}"}))
    served = [resource["name"] for resource in json.loads(answer)["resources"]]
    if "selfimproveruns" not in served:
        sys.exit(f"{RESOURCES}: expected selfimproveruns, found {', '.join(served)}")
    print("the API server serves selfimproveruns")


def ask(request: Request) -> bytes:
    """Return what the address answers, or end with a line."""
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urlopen(request, timeout=10, context=context) as answer:
            return bytes(answer.read())
    except OSError as error:
        sys.exit(f"{request.full_url}: expected an answer, found {error}")


main(sys.argv[1])
