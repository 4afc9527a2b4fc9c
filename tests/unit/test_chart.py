"""The chart as Helm renders it, and as an API server takes it.

Rendering needs helm; the tests marked control_plane also need an API server without nodes.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from selfimprove_operator.api import settings
from support.cli import REPOSITORY
from support.control_plane import ControlPlane, missing, started

CHART: Final = REPOSITORY / "charts" / "selfimprove"
TEST_VALUES: Final = REPOSITORY / "tests" / "cluster" / "values.yaml"
MINIO: Final = REPOSITORY / "examples" / "minio" / "minio.yaml"
DEFINITION: Final = "selfimproveruns.selfimprove.dev"
EVERYTHING: Final = (
    "--set=networkPolicy.operator=true,networkPolicy.runs.enabled=true",
    "--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=prometheus",
    "--set=admissionPolicy.enabled=true",
    "--set=operator.priorityClassName=system-cluster-critical",
    "--set=storage.endpoint=https://minio:9000,storage.caRef.name=ca,storage.caRef.key=ca.crt",
    '--set-json=operator.nodeSelector={"disk":"ssd"}',
    '--set-json=operator.tolerations=[{"key":"a","operator":"Exists"}]',
    '--set-json=operator.imagePullSecrets=[{"name":"registry"}]',
    '--set-json=operator.env=[{"name":"HTTPS_PROXY","value":"http://proxy"}]',
    '--set-json=operator.affinity={"podAntiAffinity":{}}',
)
ROLES_ONLY: Final = ('--set-json=watchNamespaces=["one","two"]',)

Object = dict[str, Any]


def _helm_program() -> str | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    return shutil.which("helm", path=os.pathsep.join([os.environ.get("PATH", ""), assets]))


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run helm, or skip where there is none."""
    if not (program := _helm_program()):
        pytest.skip("helm is neither on PATH nor in KUBEBUILDER_ASSETS")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def render(*options: str) -> list[Object]:
    """Return all objects that the chart makes."""
    return deepcopy(_rendered(*options))


@cache
def _rendered(*options: str) -> list[Object]:
    done = helm("template", "selfimprove", str(CHART), "--namespace", "default", *options)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found]


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [found for found in objects if found["kind"] == kind]


def settings_of(objects: list[Object]) -> str:
    """Return the operator's settings file among rendered objects."""
    (found,) = of_kind(objects, "ConfigMap")
    text: str = found["data"]["settings.yaml"]
    return text


def pod_specs(objects: Iterable[Object]) -> Iterator[Object]:
    """Yield the spec of every pod and pod template."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found["spec"]
        elif "template" in found.get("spec", {}):
            yield found["spec"]["template"]["spec"]


@pytest.mark.parametrize("options", [(), EVERYTHING, ROLES_ONLY, (f"-f={TEST_VALUES}",)])
def test_helm_finds_nothing_to_complain_of(options: tuple[str, ...]) -> None:
    """The linter passes, warnings included, with every template switched on as well."""
    done = helm("lint", "--strict", str(CHART), *options)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("operator.imge=x", "'/operator': additional properties 'imge' not allowed"),
        ("watchNamespace=a", "additional properties 'watchNamespace' not allowed"),
        ("pods.training.resource.limits=1", "'/pods/training': additional properties 'resource'"),
        ("pods.training.capabilities={SYS_ADMIN}", "value must be one of 'IPC_LOCK', 'SYS_NICE'"),
        ("pods.trainig.image=x", "'/pods': additional properties 'trainig' not allowed"),
        ("storage.endpoint=minio:9000", "'/storage/endpoint': 'minio:9000' does not match pattern"),
        ("engine=vlm", "'/engine': value must be one of 'vllm', 'transformers'"),
        ("crds.keep=maybe", "'/crds/keep': got string, want boolean"),
        ("image.tag=", "'/image/tag': minLength: got 0, want 1"),
    ],
)
def test_a_misspelt_value_is_refused_by_its_place(option: str, line: str) -> None:
    """A typo in a value stops the installation with a line, instead of doing nothing."""
    done = helm("template", "selfimprove", str(CHART), "--set", option)

    assert done.returncode != 0
    assert line in done.stderr


def test_the_schema_knows_every_value() -> None:
    """A default without a place in the schema would be refused by the chart itself."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert values.keys() | {"global"} == schema["properties"].keys()


@pytest.mark.parametrize("options", [(), EVERYTHING, ROLES_ONLY, (f"-f={TEST_VALUES}",)])
def test_the_operator_reads_the_settings_that_the_chart_writes(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """Chart and operator agree on the settings file, field by field."""
    file = tmp_path / "settings.yaml"
    file.write_text(settings_of(render(*options)))

    settings.load(file)


def test_every_role_has_the_image_of_its_name_unless_told_otherwise(tmp_path: Path) -> None:
    """One registry and one tag are enough for a user with the standard images."""
    file = tmp_path / "settings.yaml"
    options = ("--set=image.registry=r.example/team,image.tag=1.2,pods.light.image=mine:3",)
    file.write_text(settings_of(render(*options)))

    pods = settings.load(file).pods

    assert pods.inference.image == "r.example/team/selfimprove-inference:1.2"
    assert pods.training.image == "r.example/team/selfimprove-training:1.2"
    assert pods.light.image == "mine:3"


def test_the_test_cluster_needs_no_gpu(tmp_path: Path) -> None:
    """Its values map the roles with a model to the cpu image, and none asks for a device."""
    file = tmp_path / "settings.yaml"
    file.write_text(settings_of(render(f"-f={TEST_VALUES}")))

    pods = settings.load(file).pods

    images = [role.image for role in (pods.inference, pods.training, pods.light)]
    assert images == [f"localhost/selfimprove-{name}:dev" for name in ("cpu", "cpu", "light")]
    for role in (pods.inference, pods.training, pods.light):
        assert role.image_pull_policy == "IfNotPresent"
        assert role.resources is not None
        assert role.resources["limits"] == {"memory": "4Gi"}
        assert role.resources["requests"] == {"cpu": "100m", "memory": "512Mi"}


def test_pods_of_models_ask_for_room_on_the_nodes_disk(tmp_path: Path) -> None:
    """A model of 8 G parameters in bf16; in training the next one and one checkpoint as well.

    A checkpoint has 14 bytes a parameter with ZeRO 1 and 2, 12 with 3.
    """
    file = tmp_path / "settings.yaml"
    file.write_text(settings_of(render()))
    pods, parameters = settings.load(file).pods, 8.03e9

    for role, bytes_each in ((pods.inference, 2), (pods.training, 2 + 2 + 14)):
        assert role.resources is not None
        room = str(role.resources["requests"]["ephemeral-storage"])
        assert int(room.removesuffix("Gi")) * 2**30 > bytes_each * parameters


def test_changed_settings_restart_the_operator() -> None:
    """It reads its settings once, so the pod template has to change with them."""
    checksums = {
        of_kind(render(f"--set=engine={engine}"), "Deployment")[0]["spec"]["template"]["metadata"][
            "annotations"
        ]["checksum/settings"]
        for engine in ("vllm", "transformers")
    }

    assert len(checksums) == 2


def test_one_replica_is_replaced_and_never_doubled() -> None:
    """A rolling update would run two operators; they harm nothing, but cost twice."""
    (deployment,) = of_kind(render(), "Deployment")

    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert of_kind(render(), "PodDisruptionBudget") == []


def test_every_pod_is_restricted() -> None:
    """The pods of the operator and of `helm test` write nothing and hold no privilege."""
    specs = list(pod_specs(render(*EVERYTHING)))

    assert len(specs) == 2
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert container["resources"]["limits"]["memory"]


def test_the_service_leads_to_the_operator_alone() -> None:
    """The pod of `helm test` has the chart's labels too and answers nothing."""
    objects = render()
    (service,) = of_kind(objects, "Service")
    (test_pod,) = of_kind(objects, "Pod")
    (deployment,) = of_kind(objects, "Deployment")
    selector = service["spec"]["selector"].items()

    assert selector <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert not selector <= test_pod["metadata"]["labels"].items()


def test_named_namespaces_get_roles_and_no_cluster_wide_rights() -> None:
    """With `watchNamespaces` the operator may do the same things, and only there."""
    everywhere, named = render(), render(*ROLES_ONLY)
    (cluster_role,) = (
        found
        for found in of_kind(everywhere, "ClusterRole")
        if found["metadata"]["name"] == "selfimprove"
    )
    roles = of_kind(named, "Role")

    assert [role["metadata"]["namespace"] for role in roles] == ["one", "two"]
    assert all(role["rules"] == cluster_role["rules"] for role in roles)
    assert len(of_kind(named, "RoleBinding")) == 2
    assert of_kind(named, "ClusterRoleBinding") == []
    assert "selfimprove" not in [r["metadata"]["name"] for r in of_kind(named, "ClusterRole")]


def test_it_installs_without_any_right_over_the_cluster() -> None:
    """Where an administrator has made the definition, a namespace's owner can do the rest."""
    options = (*ROLES_ONLY, "--set=crds.enabled=false,rbac.aggregate=false")

    kinds = {found["kind"] for found in render(*options)}

    assert kinds.isdisjoint({"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"})


def test_the_operator_may_not_read_secrets() -> None:
    """Nor may it do everything with anything."""
    (role,) = (
        found
        for found in of_kind(render(), "ClusterRole")
        if found["metadata"]["name"] == "selfimprove"
    )
    words = {word for rule in role["rules"] for key in rule for word in rule[key]}

    assert words.isdisjoint({"secrets", "*", "pods/exec", "pods/eviction"})


def test_the_definition_is_the_generated_one_and_is_kept() -> None:
    """Helm adds nothing to it but the annotation that keeps it when the chart is uninstalled."""
    (rendered,) = of_kind(render(), "CustomResourceDefinition")
    generated = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())

    annotations = rendered["metadata"].pop("annotations")

    assert annotations.pop("helm.sh/resource-policy") == "keep"
    assert annotations == generated["metadata"].pop("annotations", {})
    assert rendered == generated


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Start an API server, or skip with what is missing for it."""
    if lack := missing():
        pytest.skip(lack)
    with started(tmp_path_factory.mktemp("chart")) as running:
        yield running


def _dry_run(plane: ControlPlane, objects: Iterable[Object]) -> str:
    text = yaml.safe_dump_all(objects)
    done = plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=text)
    assert done.rc == 0, done.stderr
    return done.stderr


def _use_helm(plane: ControlPlane, *arguments: str) -> str:
    done = helm("--kubeconfig", str(plane.kubeconfig), "--namespace", "selfimprove", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.control_plane
@pytest.mark.parametrize("options", [(), EVERYTHING, (f"-f={TEST_VALUES}",)])
def test_an_api_server_takes_the_whole_chart(plane: ControlPlane, options: tuple[str, ...]) -> None:
    """Every object is valid to the letter: no unknown field, no wrong type."""
    foreign = ("ServiceMonitor",)  # its definition comes with the Prometheus operator
    objects = [found for found in render(*options) if found["kind"] not in foreign]

    _dry_run(plane, objects)


@pytest.mark.control_plane
def test_restricted_pod_security_admits_every_pod(plane: ControlPlane) -> None:
    """A namespace that enforces the restricted standard runs the operator and its test."""
    name = "restricted"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": name, "labels": labels}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
    made = plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(namespace))
    assert made.rc == 0, made.stderr
    minio = list(yaml.safe_load_all(MINIO.read_text()))
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{number}", "namespace": name},
            "spec": spec,
        }
        for number, spec in enumerate(pod_specs([*render(), *minio]))
    ]

    assert len(pods) == 3
    _dry_run(plane, pods)


@pytest.mark.control_plane
def test_an_api_server_takes_the_example_store(plane: ControlPlane) -> None:
    """The MinIO to try with is valid to the letter."""
    namespace, *rest = yaml.safe_load_all(MINIO.read_text())
    made = plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(namespace))
    assert made.rc == 0, made.stderr

    warnings = _dry_run(plane, rest)

    assert "would violate PodSecurity" not in warnings


@pytest.fixture(scope="module")
def installed(plane: ControlPlane) -> ControlPlane:
    """Install the chart where nothing runs pods."""
    _use_helm(plane, "install", "selfimprove", str(CHART), "--create-namespace")
    plane.wait_until_served(DEFINITION)
    return plane


MAY: Final = (
    "patch selfimproveruns/status selfimprove.dev",
    "update selfimproveruns/finalizers selfimprove.dev",
    "delete selfimproveruns selfimprove.dev",
    "create jobs batch",
    "get pods/log",
    "create events",
)
MAY_NOT: Final = (
    "get secrets",
    "list secrets",
    "get configmaps",
    "create pods",
    "delete pods",
    "create pods/exec",
    "list namespaces",
    "list customresourcedefinitions apiextensions.k8s.io",
    "create selfimproveruns selfimprove.dev",
    "update selfimproveruns/status selfimprove.dev",
)


def _review(question: str) -> Object:
    """Return what asks the API server's authoriser about the operator's account."""
    verb, path, *group = question.split()
    resource, _, subresource = path.partition("/")
    wanted = {"namespace": "default", "verb": verb, "group": "".join(group)}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:selfimprove:selfimprove",
            "resourceAttributes": {**wanted, "resource": resource, "subresource": subresource},
        },
    }


@pytest.mark.control_plane
def test_the_operator_may_do_what_it_does_and_no_more(installed: ControlPlane) -> None:
    """The authoriser itself answers for the account that the chart makes."""
    questions = (*MAY, *MAY_NOT)
    reviews = yaml.safe_dump_all(_review(question) for question in questions)

    answered = installed.kubectl(
        "create", "-f", "-", "-o", "jsonpath={.status.allowed} ", input=reviews
    )

    answers = zip(questions, answered.stdout.split(), strict=True)
    assert {question for question, allowed in answers if allowed == "true"} == set(MAY)


@pytest.mark.control_plane
def test_runs_outlive_the_chart_and_it_comes_back_to_them(installed: ControlPlane) -> None:
    """Uninstalled and installed again, the chart finds the definition and the runs it left."""
    run = {
        "apiVersion": "selfimprove.dev/v1alpha1",
        "kind": "SelfImproveRun",
        "metadata": {"name": "kept", "namespace": "default"},
        "spec": {
            "model": {"uri": "s3://models/m0"},
            "languages": {"dominant": "en", "others": ["de"]},
            "prompts": {"uri": "s3://prompts/p", "perIteration": 10},
            "iterations": 1,
            "profile": "lidr-safe",
            "storage": {"bucket": "runs"},
        },
    }
    made = installed.kubectl("create", "-f", "-", input=json.dumps(run))
    assert made.rc == 0, made.stderr

    _use_helm(installed, "uninstall", "selfimprove")
    assert installed.kubectl("get", "sir", "kept").rc == 0
    _use_helm(installed, "install", "selfimprove", str(CHART))

    assert installed.kubectl("get", "sir", "kept").rc == 0


@pytest.mark.control_plane
def test_an_upgrade_brings_new_fields(installed: ControlPlane, tmp_path: Path) -> None:
    """The definition is upgraded with the chart; a `crds/` folder would stay at its first state."""
    newer = tmp_path / "selfimprove"
    shutil.copytree(CHART, newer)
    definition = yaml.safe_load((newer / "files" / "crd.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["novelty"] = {"type": "string", "maxLength": 8}
    (newer / "files" / "crd.yaml").write_text(yaml.safe_dump(definition))

    _use_helm(installed, "upgrade", "selfimprove", str(newer))

    served = installed.kubectl("get", "crd", DEFINITION, "-o", "json").value()
    fields = served["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert fields["properties"]["novelty"] == {"type": "string", "maxLength": 8}
