"""A real API server with its etcd and without nodes, started for the tests that talk to one.

The programs come from KUBEBUILDER_ASSETS, as for all tests of Kubernetes controllers. Nothing
runs behind the API: no Job gets a pod, so that a test plays the controllers itself.
"""

import http.client
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.kube import ESTABLISHED

PROGRAMS: Final = ("etcd", "kube-apiserver", "kubectl")
TOKEN: Final = "admin"  # noqa: S105  of a server that lives on loopback as long as the tests
START_SECONDS: Final = 300


@dataclass(frozen=True)
class Answer:
    """What kubectl answered."""

    rc: int
    stdout: str
    stderr: str

    def value(self) -> Any:
        """Return the JSON that was asked for with `-o json` or `--raw`."""
        assert self.rc == 0, self.stderr
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Reply:
    """What the API server replied."""

    status: int
    value: Any


@dataclass(frozen=True)
class ControlPlane:
    """A running API server and what an administrator needs to reach it."""

    server: str
    ca: Path
    kubeconfig: Path
    """For kubectl, kopf and `kubernetes.aio.config.load_kube_config(str(kubeconfig))` alike."""
    program: Path
    token: str = TOKEN

    def kubectl(self, *args: str, input: str | None = None) -> Answer:  # noqa: A002  as subprocess
        """Run kubectl as administrator; it never raises for what the server refuses."""
        done = subprocess.run(
            [self.program, "--kubeconfig", self.kubeconfig, *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def wait_until_served(self, definition: str) -> None:
        """Wait until the server serves a custom resource."""
        waited = self.kubectl("wait", ESTABLISHED, f"crd/{definition}", "--timeout=300s")
        assert waited.rc == 0, waited.stderr

    def send(self, method: str, path: str, body: str, kind: str = "application/json") -> Reply:
        """Send a body to the API server as it is; kubectl would convert it first."""
        address = self.server.removeprefix("https://")
        context = ssl.create_default_context(cafile=self.ca)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        with closing(http.client.HTTPSConnection(address, context=context)) as connection:
            connection.request(method, path, body.encode(), headers)
            response = connection.getresponse()
            return Reply(response.status, json.loads(response.read()))


def missing(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what keeps an API server from being started here, None if nothing does."""
    folder = environment.get("KUBEBUILDER_ASSETS")
    if not folder:
        return f"KUBEBUILDER_ASSETS is not set: expected a folder with {', '.join(PROGRAMS)}"
    absent = [name for name in PROGRAMS if not (Path(folder) / name).exists()]
    return f"KUBEBUILDER_ASSETS={folder} lacks {', '.join(absent)}" if absent else None


@contextmanager
def started(folder: Path) -> Iterator[ControlPlane]:
    """Start etcd and an API server with their files in a folder; stop both at the end."""
    assets = Path(os.environ["KUBEBUILDER_ASSETS"])
    etcd_port, peer_port, port = _free_ports(3)
    etcd = f"http://127.0.0.1:{etcd_port}"
    plane = ControlPlane(
        server=f"https://127.0.0.1:{port}",
        ca=folder / "certificates" / "apiserver.crt",
        kubeconfig=folder / "kubeconfig",
        program=assets / "kubectl",
    )
    _write_credentials(folder, plane)
    with ExitStack() as running:
        peer = f"http://127.0.0.1:{peer_port}"
        _start([str(assets / "etcd"), *_etcd_flags(folder, etcd, peer)], folder, running)
        flags = _server_flags(folder, etcd, port)
        server = _start([str(assets / "kube-apiserver"), *flags], folder, running)
        _wait_until_ready(plane, server, folder)
        yield plane


def _free_ports(count: int) -> list[int]:
    """Return ports on loopback that are free, all bound at once so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _write_credentials(folder: Path, plane: ControlPlane) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (folder / "accounts.key").write_bytes(pem)
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    cluster = {"server": plane.server, "certificate-authority": str(plane.ca)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    plane.kubeconfig.write_text(json.dumps(config))


def _etcd_flags(folder: Path, etcd: str, peer: str) -> list[str]:
    return [
        f"--data-dir={folder / 'etcd-data'}",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]


def _server_flags(folder: Path, etcd: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        f"--cert-dir={folder / 'certificates'}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'accounts.key'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        # Nobody is there to make the accounts that this plugin waits for.
        "--disable-admission-plugins=ServiceAccount",
    ]


def _start(command: Sequence[str], folder: Path, running: ExitStack) -> "subprocess.Popen[bytes]":
    """Start a program whose output goes to a file named like it; stop it with the stack."""
    log = running.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
    process = running.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
    running.callback(_stop, process)
    return process


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()


def _wait_until_ready(plane: ControlPlane, server: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while plane.kubectl("get", "--raw", "/readyz").rc != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            log = (folder / "kube-apiserver.log").read_text()[-2000:]
            message = f"expected a ready API server within {START_SECONDS} s, found: {log}"
            raise AssertionError(message)
        time.sleep(0.2)
