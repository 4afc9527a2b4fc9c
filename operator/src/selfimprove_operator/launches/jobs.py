"""The objects of a launch: a Job, with a Service for several nodes, or a JobSet.

A Job never restarts a pod by itself (`backoffLimit` 0): the operator decides about every launch.
"""

from typing import Any

from selfimprove_operator.launches import pods
from selfimprove_operator.launches.blueprint import RANKS, Blueprint
from selfimprove_pipeline.contract.environment import CONTAINER
from selfimprove_pipeline.contract.errors import InputError

Object = dict[str, Any]


def manifests(blueprint: Blueprint) -> tuple[Object, ...]:
    """Return the objects of a launch in the order of their creation, the Job or JobSet last."""
    # Kueue resumes a suspended Job when there is quota for it.
    suspended = {"suspend": True} if blueprint.queue else {}
    metadata = blueprint.metadata(**blueprint.queue_labels)
    if blueprint.is_jobset:
        return (_jobset(blueprint, metadata, suspended),)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {**suspended, **_job_spec(blueprint)},
    }
    if not blueprint.has_service:
        return (job,)
    # Ranks need host names before they are ready: they are ready only once they have met.
    service = {
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
    return (service, job)


def _job_spec(blueprint: Blueprint) -> Object:
    return {
        "completionMode": "Indexed" if blueprint.size > 1 else "NonIndexed",
        "completions": blueprint.size,
        "parallelism": blueprint.size,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        # Wrong input and disruptions end the other pods at once: their work is lost anyway.
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


def _jobset(blueprint: Blueprint, metadata: Object, suspended: Object) -> Object:
    """Return the JobSet with all ranks in one Job; the headless Service is its own."""
    ranks = {
        "name": RANKS,
        "replicas": 1,
        "template": {"metadata": {"labels": blueprint.labels}, "spec": _job_spec(blueprint)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            **suspended,
            "failurePolicy": {"maxRestarts": 0},
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "replicatedJobs": [ranks],
        },
    }
