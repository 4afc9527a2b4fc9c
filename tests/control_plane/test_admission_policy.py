"""The chart's admission policy on a real API server: who may set the labels of a run's children."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from selfimprove_operator.api.status import LABEL_MANAGED_BY, LABEL_RUN_UID, MANAGED_BY
from support.control_plane import Answer, ControlPlane
from support.kube import eventually
from support.operators import CHART, helm

Object = dict[str, Any]

NAMESPACE: Final = "shared"
TENANT: Final = f"system:serviceaccount:{NAMESPACE}:tenant"
TRUSTED: Final = (
    "system:serviceaccount:selfimprove:selfimprove",
    "system:serviceaccount:kube-system:job-controller",
    "system:serviceaccount:jobset-system:jobset-controller-manager",
)
STOLEN: Final = {LABEL_RUN_UID: "1d1a"}
REFUSED: Final = "is reserved for the operator of selfimprove"

JOBSETS: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "jobsets.jobset.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    },
    "spec": {
        "group": "jobset.x-k8s.io",
        "names": {"kind": "JobSet", "plural": "jobsets", "singular": "jobset"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha2",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}
"""As much of a JobSet as the API server needs to take one."""


def template(labels: Object, restart: str = "Never") -> Object:
    """Return a pod template with labels."""
    container = {"name": "a", "image": "a"}
    spec = {"restartPolicy": restart, "containers": [container]}
    return {"metadata": {"labels": {"app": "a", **labels}}, "spec": spec}


def made(kind: str, labels: Object, spec: Object | None = None, version: str = "v1") -> Object:
    """Return an object of a kind, with labels of its own."""
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": "a", "labels": labels}}
    return body if spec is None else {**body, "spec": spec}


def deployed(kind: str, labels: Object, **more: Any) -> Object:
    """Return an object of `apps` whose pods have labels."""
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": template(labels, "Always")}
    return made(kind, {}, {**spec, **more}, "apps/v1")


def jobset(labels: Object, pod_labels: Object) -> Object:
    """Return a JobSet whose Jobs and pods have labels."""
    job = {"metadata": {"labels": labels}, "spec": {"template": template(pod_labels)}}
    spec = {"replicatedJobs": [{"name": "a", "template": job}]}
    return made("JobSet", {}, spec, "jobset.x-k8s.io/v1alpha2")


def cron_job(labels: Object, pod_labels: Object) -> Object:
    """Return a CronJob whose Jobs and pods have labels."""
    job = {"metadata": {"labels": labels}, "spec": {"template": template(pod_labels)}}
    return made("CronJob", {}, {"schedule": "* * * * *", "jobTemplate": job}, "batch/v1")


POD: Final = template({})["spec"]
HOSTILE: Final = {
    "a pod": made("Pod", STOLEN, POD),
    "a pod of the operator by its mark": made("Pod", {LABEL_MANAGED_BY: MANAGED_BY}, POD),
    "a pod with a label that is not known yet": made("Pod", {"selfimprove.dev/x": "a"}, POD),
    "a Job": made("Job", STOLEN, {"template": template({})}, "batch/v1"),
    "the pods of a Job": made("Job", {}, {"template": template(STOLEN)}, "batch/v1"),
    "the Jobs of a CronJob": cron_job(STOLEN, {}),
    "the pods of a CronJob": cron_job({}, STOLEN),
    "the pods of a Deployment": deployed("Deployment", STOLEN),
    "the pods of a StatefulSet": deployed("StatefulSet", STOLEN, serviceName="a"),
    "the pods of a DaemonSet": deployed("DaemonSet", STOLEN),
    "the pods of a ReplicaSet": deployed("ReplicaSet", STOLEN),
    "the pods of a controller": made(
        "ReplicationController",
        {},
        {"selector": {"app": "a"}, "template": template(STOLEN, "Always")},
    ),
    "a template": {**made("PodTemplate", {}), "template": template(STOLEN)},
    "the Jobs of a JobSet": jobset(STOLEN, {}),
    "the pods of a JobSet": jobset({}, STOLEN),
}


@pytest.fixture(scope="module")
def guarded(served: ControlPlane) -> Iterator[ControlPlane]:
    """Give the API server with the policy in force, and a tenant who may do anything there."""
    objects = [
        *yaml.safe_load_all(
            helm(
                *("template", "selfimprove", str(CHART), "--namespace", "selfimprove"),
                *("--set", f"admissionPolicy.enabled=true,watchNamespaces={{{NAMESPACE}}}"),
                *("-s", "templates/admissionpolicy.yaml"),
            )
        ),
        JOBSETS,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        binding("tenant", TENANT, *TRUSTED),
    ]
    text = yaml.safe_dump_all(objects)
    created = served.kubectl("create", "-f", "-", input=text)
    assert created.rc == 0, created.stderr
    served.wait_until_served("jobsets.jobset.x-k8s.io")
    pod, sets = HOSTILE["a pod"], HOSTILE["the pods of a JobSet"]
    eventually(lambda: REFUSED in sent(served, TENANT, pod), within=60, what="the policy")
    eventually(lambda: REFUSED in sent(served, TENANT, sets), within=60, what="JobSets")
    yield served
    served.kubectl("delete", "-f", "-", "--wait=false", input=text)


def binding(name: str, *users: str) -> Object:
    """Return a binding that lets users do everything."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "cluster-admin",
        },
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
            for user in users
        ],
    }


def sent(
    plane: ControlPlane, user: str, body: Object, *, namespace: str = NAMESPACE, dry: bool = True
) -> str:
    """Create an object as a user, and return what the API server has against it."""
    mode = ("--dry-run=server",) if dry else ()
    done = plane.kubectl(
        f"--as={user}", "-n", namespace, "create", "-f", "-", *mode, input=json.dumps(body)
    )
    return done.stderr if done.rc else ""


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tenant_makes_nothing_with_the_labels_of_a_runs_children(
    guarded: ControlPlane, what: str
) -> None:
    """Neither an object nor what would make one; the line names the label and the way out."""
    error = sent(guarded, TENANT, HOSTILE[what])

    assert REFUSED in error
    assert f"add the user {TENANT} to admissionPolicy.exemptUsers" in error


@pytest.mark.parametrize("user", TRUSTED)
def test_the_operator_and_the_controllers_make_them(guarded: ControlPlane, user: str) -> None:
    """Without the Job controller the operator's Jobs would have no pods."""
    errors = [sent(guarded, user, body) for body in HOSTILE.values()]

    assert errors == [""] * len(HOSTILE)


def test_other_labels_are_everybodys(guarded: ControlPlane) -> None:
    """A tenant's own objects pass, and so does a mark of another manager."""
    labels = {"app": "a", LABEL_MANAGED_BY: "Helm", "selfimprove.example/x": "a"}

    assert sent(guarded, TENANT, made("Pod", labels, POD)) == ""
    assert sent(guarded, TENANT, made("Job", {}, {"template": template(labels)}, "batch/v1")) == ""


def test_an_object_keeps_the_labels_that_it_has(guarded: ControlPlane) -> None:
    """A tenant may change and delete a run's Job as before, but adopt no other object for a run."""
    assert sent(guarded, TRUSTED[0], HOSTILE["the pods of a Job"], dry=False) == ""

    def tried(*arguments: str) -> Answer:
        return guarded.kubectl(f"--as={TENANT}", "-n", NAMESPACE, *arguments)

    assert tried("annotate", "job", "a", "note=mine").rc == 0
    assert tried("label", "job", "a", "app=a").rc == 0
    other = tried("label", "job", "a", "--overwrite", f"{LABEL_RUN_UID}=other")
    assert tried("delete", "job", "a", "--wait=false").rc == 0
    assert REFUSED in other.stderr


def test_only_the_namespaces_of_the_runs_are_guarded(guarded: ControlPlane) -> None:
    """Where the operator watches nothing, it reserves nothing."""
    assert sent(guarded, TENANT, HOSTILE["a pod"], namespace="default") == ""
