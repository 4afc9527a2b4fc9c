"""The operator as tests run it: a process here that can be killed, or the chart's Deployment.

Both have the settings of the chart with `tests/cluster/values.yaml`, so that a test says only
what is different for it.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import yaml

from support.cli import REPOSITORY
from support.kube import ESTABLISHED, JSON, Kube, Refusal, eventually, kubectl

CHART: Final = REPOSITORY / "charts" / "selfimprove"
VALUES: Final = REPOSITORY / "tests" / "cluster" / "values.yaml"
START_SECONDS: Final = 60.0


def helm(*arguments: str) -> str:
    """Run helm, which must succeed, and return what it prints."""
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def chosen(folder: Path, values: JSON) -> tuple[str, ...]:
    """Return helm's arguments for the test cluster's values with others on top."""
    file = folder / "values.json"
    file.write_text(yaml.safe_dump(values))
    return ("-f", str(VALUES), "-f", str(file))


def rendered(folder: Path, values: JSON, template: str) -> JSON:
    """Return an object that the chart makes of the values."""
    show = f"templates/{template}.yaml"
    text = helm("template", "selfimprove", str(CHART), *chosen(folder, values), "-s", show)
    found: JSON = yaml.safe_load(text)
    return found


@dataclass
class OperatorProcess:
    """The operator from source, with the settings that the chart makes of `values`."""

    folder: Path
    values: JSON
    _processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def log(self) -> Path:
        """What all processes of this operator have logged."""
        return self.folder / "operator.log"

    def start(self) -> None:
        """Start the operator; it may run more than once at a time."""
        settings = self.folder / "settings.yaml"
        settings.write_text(rendered(self.folder, self.values, "settings")["data"][settings.name])
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "selfimprove_operator"],
                env={
                    **os.environ,
                    "SELFIMPROVE_SETTINGS": str(settings),
                    "SELFIMPROVE_PORT": "0",
                },
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)

    def kill(self) -> None:
        """End every process of it as the kernel would."""
        for process in self._processes:
            assert process.poll() is None, f"the operator had ended by itself\n{self.tail()}"
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def restart(self) -> None:
        """Kill it, and start it with what the chart and `values` say now."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End every process of it as Kubernetes would."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def tail(self) -> str:
        """Return the end of the log."""
        lines = self.log.read_text().splitlines()[-30:] if self.log.exists() else []
        return "\n".join(lines)


@dataclass(frozen=True)
class Release:
    """The chart, installed."""

    folder: Path
    namespace: str
    name: str = "selfimprove"

    def install(self, **values: Any) -> None:
        """Install or upgrade, and wait until the operator is ready."""
        helm(
            *("upgrade", "--install", self.name, str(CHART), "--namespace", self.namespace),
            *("--create-namespace", "--take-ownership", "--wait", "--timeout", "120s"),
            *chosen(self.folder, values),
        )

    def kill(self) -> None:
        """Take the operator's pod away; the Deployment makes another one."""
        pods = ("delete", "pods", "-l", "app.kubernetes.io/component=operator")
        kubectl("-n", self.namespace, *pods, "--force", "--grace-period=0")

    def uninstall(self) -> None:
        """Uninstall it; the definition of runs stays."""
        helm("uninstall", self.name, "--namespace", self.namespace, "--wait")
        kubectl("delete", "namespace", self.namespace, "--wait=false")

    def tail(self) -> str:
        """Return the end of the operator's log."""
        return kubectl("-n", self.namespace, "logs", f"deploy/{self.name}", "--tail=30")


def install_definition(kube: Kube, folder: Path) -> None:
    """Install the definition of runs that the chart has, and wait until it is served."""
    body = rendered(folder, {}, "crd")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(body))
    name = body["metadata"]["name"]
    kubectl("wait", ESTABLISHED, f"crd/{name}", "--timeout=300s")
    eventually(lambda: _is_served(kube), within=START_SECONDS, what="the definition to be served")


def _is_served(kube: Kube) -> bool:
    try:
        return bool(kube.ask("GET", "/apis/selfimprove.dev/v1alpha1")["resources"])
    except Refusal as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
