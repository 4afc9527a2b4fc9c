"""Whatever is wrong with a run's inputs or its surroundings is told in one clear line, and soon.

All runs are there at once. Wrong data ends a run by its `check`; what may come right by itself
is waited for, with its reason in `Progressing`.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from support.cli import MINIATURE, Cli
from support.kube import JSON, Kube, kubectl, name_of
from support.live_runs import LiveRun, condition_of
from support.operators import OperatorProcess
from support.places import Place, place
from support.s3 import Server

SHOWN_SECONDS: Final = 10.0
"""Seconds in which a run that waits shows its reason, all of them applied at once."""
ENDED_SECONDS: Final = 90.0
"""Seconds in which wrong data ends a run; seven checks run on two cores."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a run, and what it must say."""

    says: tuple[str, ...]
    """says are words of the message."""
    spec: JSON = field(default_factory=dict)
    reason: str = "InputError"
    """reason of the condition: Succeeded for wrong data, Progressing while it waits."""

    @property
    def is_final(self) -> bool:
        """Whether the run ends by it."""
        return self.reason == "InputError"


def light(**settings: Any) -> JSON:
    """Return the spec with settings of the light pods, the first of which is `check`."""
    return {"pods": {"light": settings}}


WRONG: Final = {
    "image": Wrong(
        ("localhost/nothing:1",),
        light(image="localhost/nothing:1", imagePullPolicy="IfNotPresent"),
        "ErrImagePull|ImagePullBackOff",
    ),
    "room": Wrong(
        ("0/1 nodes", "Insufficient cpu"),
        light(resources={"requests": {"cpu": "999"}}),
        "Unschedulable",
    ),
    "no-secret": Wrong(
        ('secret "nothing" not found',),
        {"storage": {"secretRef": {"name": "nothing"}}},
        "CreateContainerConfigError",
    ),
    "wrong-secret": Wrong(
        ("s3://", "AWS_ACCESS_KEY_ID"), {"storage": {"secretRef": {"name": "wrong"}}}
    ),
    "no-bucket": Wrong(("test-nothing",), {"storage": {"bucket": "test-nothing"}}),
    "model": Wrong(("config.json",), {"model": {"uri": "{broken}/model"}}),
    "template": Wrong(("chat template",), {"model": {"uri": "{broken}/template"}}),
    "prompts": Wrong(("de.jsonl:3:",), {"prompts": {"uri": "{broken}/prompts"}}),
}


@pytest.fixture(scope="module")
def broken(here: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a model without config, one without a template, and broken prompts."""
    folder = tmp_path_factory.mktemp("broken")
    for name, source in (("model", "m0"), ("template", "m0"), ("prompts", "prompts")):
        shutil.copytree(MINIATURE / source, folder / name)
    (folder / "model" / "config.json").unlink()
    (folder / "template" / "chat_template.jinja").unlink()
    german = folder / "prompts" / "de.jsonl"
    lines = german.read_text().splitlines()
    german.write_text("\n".join([*lines[:2], '{"id": "3", "prompt": ', *lines[3:]]))
    uri = f"s3://{here.server.make_bucket()}/broken"
    cli = Cli(folder / "store", folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in here.server.environment().items():
            patch.setenv(name, value)
        assert cli("upload", str(folder), uri).code == 0
    return uri


@pytest.fixture(scope="module")
def surroundings(
    kube: Kube, s3_server: Server, inputs: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Place]]:
    """Return namespaces where nothing can run: no quota, and rules that no pod of ours meets."""
    folder = tmp_path_factory.mktemp("surroundings")
    with (
        place(kube, s3_server, inputs, folder) as poor,
        place(kube, s3_server, inputs, folder) as ending,
    ):
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        kube.ask("POST", f"/api/v1/namespaces/{poor.namespace}/resourcequotas", quota)
        yield {"quota": poor, "ending": ending}


@pytest.fixture(scope="module")
def operator(here: Place, surroundings: dict[str, Place]) -> Iterator[OperatorProcess]:
    """Run the operator as a process for all namespaces of the module."""
    namespaces = [here.namespace, *(place.namespace for place in surroundings.values())]
    values = {
        "engine": "transformers",
        "storage": {"endpoint": os.environ["S3_ENDPOINT_FROM_PODS"]},
        "watchNamespaces": namespaces,
    }
    process = OperatorProcess(here.folder, values)
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def runs(
    here: Place,
    operator: OperatorProcess,  # noqa: ARG001  it must be there
    broken: str,
    surroundings: dict[str, Place],
) -> dict[str, LiveRun]:
    """Apply every run, and delete a namespace under one."""
    keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
    secret = {"metadata": {"name": "wrong"}, "stringData": keys}
    here.kube.ask("POST", f"/api/v1/namespaces/{here.namespace}/secrets", secret)
    made = {"ending": surroundings["ending"].apply("ending")}
    made["ending"].until_at("check", 0)
    for name, wrong in WRONG.items():
        spec = json.loads(json.dumps(wrong.spec).replace("{broken}", broken))
        made[name] = here.apply(name, **spec)
    made["quota"] = surroundings["quota"].apply("quota")
    made["forbidden"] = here.apply("forbidden", **light(annotations=UNCONFINED))
    kubectl("delete", "namespace", surroundings["ending"].namespace, "--wait=false")
    return made


UNCONFINED: Final = {"container.apparmor.security.beta.kubernetes.io/stage": "unconfined"}


@pytest.mark.parametrize("name", [name for name, wrong in WRONG.items() if not wrong.is_final])
def test_what_a_run_waits_for_is_shown_in_time(
    runs: dict[str, LiveRun], name: str, note: Callable[[str], None]
) -> None:
    """Progressing has the reason and a line with what to look for; nothing has ended."""
    wrong, run = WRONG[name], runs[name]
    status = run.until(
        lambda status: condition_of(status, "Progressing").get("reason") in wrong.reason.split("|"),
        within=SHOWN_SECONDS,
        what=wrong.reason,
    )
    message = condition_of(status, "Progressing")["message"]

    assert all(words in message for words in wrong.says), message
    assert "\n" not in message
    assert status["message"].endswith(message)
    assert run.outcome is None
    note(f"{name}: {message}")


@pytest.mark.parametrize("name", [name for name, wrong in WRONG.items() if wrong.is_final])
def test_wrong_data_ends_the_run_by_its_check(
    runs: dict[str, LiveRun], name: str, note: Callable[[str], None]
) -> None:
    """Succeeded is False with one line; no second launch, no pod with a GPU was tried."""
    wrong, run = WRONG[name], runs[name]
    run.until_done(within=ENDED_SECONDS, succeeded=False)
    ended = run.condition("Succeeded")

    assert (ended["reason"], "\n" in ended["message"]) == ("InputError", False)
    assert all(words in ended["message"] for words in wrong.says), ended["message"]
    assert [name_of(job) for job in run.jobs] == [f"{name}-0-check-0"]
    note(f"{name}: {ended['message']}")


@pytest.mark.parametrize(
    ("name", "words"),
    [("quota", "exceeded quota: none"), ("forbidden", "violates PodSecurity")],
)
def test_pods_that_are_refused_are_told_of(
    runs: dict[str, LiveRun], name: str, words: str, note: Callable[[str], None]
) -> None:
    """Why a Job has no pod is said only in its Events; the run says it too."""
    message = runs[name].until_waiting("FailedCreate", within=SHOWN_SECONDS)

    assert words in message
    assert runs[name].outcome is None
    note(f"{name}: {message}")


def test_a_run_comes_to_run_when_what_it_waited_for_is_there(
    runs: dict[str, LiveRun], here: Place
) -> None:
    """A Secret that is made later is enough; nobody has to touch the run."""
    keys = {
        "AWS_ACCESS_KEY_ID": here.server.access_key,
        "AWS_SECRET_ACCESS_KEY": here.server.secret_key,
    }
    run = runs["no-secret"]
    secret = {"metadata": {"name": "nothing"}, "stringData": keys}
    here.kube.ask("POST", f"/api/v1/namespaces/{here.namespace}/secrets", secret)
    run.until(lambda s: s["launch"]["unit"] == "inference", within=180, what="check to be done")
    assert run.status["launch"].get("attempts", 0) == 0
    run.delete()
    run.until_gone(within=60)


def test_a_volume_of_the_node_is_refused_at_once(here: Place) -> None:
    """HostPath is no kind of volume that a run may ask for: the API server says so."""
    volume = {"name": "node", "hostPath": {"path": "/"}}
    text = json.dumps(here.manifest("volume", **light(volumes=[volume])))
    said = kubectl("-n", here.namespace, "apply", "-f", "-", stdin=text, is_good=False)
    assert "hostPath" in said


@pytest.mark.usefixtures("runs")
def test_a_namespace_goes_without_delay_and_nothing_is_created_in_it(
    surroundings: dict[str, Place], operator: OperatorProcess
) -> None:
    """The deletion takes no longer than its pods, and the operator lives on in peace."""
    namespace = surroundings["ending"].namespace
    kubectl("wait", "--for=delete", f"namespace/{namespace}", "--timeout=60s")
    operator.restart()
