"""The objects of a launch: a Job, with a Service for several nodes, or a JobSet.

A Job never starts a pod again by itself: every relaunch is the operator's decision. A
disrupted pod and wrong input fail the Job at once and say so in its reason.
"""

from typing import Any

from selfimprove_operator.launches import pods
from selfimprove_operator.launches.blueprint import RANKS, Blueprint
from selfimprove_pipeline.contract.environment import CONTAINER
from selfimprove_pipeline.contract.errors import InputError

Object = dict[str, Any]


def manifests(blueprint: Blueprint) -> tuple[Object, ...]:
    """Return the objects of a launch in the order of their creation, the Job or JobSet last."""
    if blueprint.is_jobset:
        return (_jobset(blueprint),)
    service = (_service(blueprint),) if blueprint.has_service else ()
    return (*service, _job(blueprint))


def _job(blueprint: Blueprint) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": blueprint.metadata(**blueprint.queue_labels),
        "spec": {**_suspended(blueprint), **_job_spec(blueprint)},
    }


def _job_spec(blueprint: Blueprint) -> Object:
    return {
        "completionMode": "Indexed" if blueprint.size > 1 else "NonIndexed",
        "completions": blueprint.size,
        "parallelism": blueprint.size,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": CONTAINER,
                        "operator": "In",
                        "values": [InputError.exit_code],
                    },
                },
            ]
        },
        "template": pods.template(blueprint),
    }


def _suspended(blueprint: Blueprint) -> Object:
    """Return the mark with which Kueue finds a launch and holds it until there is quota."""
    return {"suspend": True} if blueprint.queue else {}


def _service(blueprint: Blueprint) -> Object:
    """Return the headless Service by which ranks find each other before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": blueprint.metadata(),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": blueprint.name},
            "ports": [{"name": "rendezvous", "port": pods.RENDEZVOUS_PORT}],
        },
    }


def _jobset(blueprint: Blueprint) -> Object:
    """Return the JobSet with all ranks in one Job; it makes the headless Service itself."""
    replicated = {
        "name": RANKS,
        "replicas": 1,
        "template": {"metadata": {"labels": blueprint.labels}, "spec": _job_spec(blueprint)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": blueprint.metadata(**blueprint.queue_labels),
        "spec": {
            **_suspended(blueprint),
            "failurePolicy": {"maxRestarts": 0},
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "replicatedJobs": [replicated],
        },
    }
