"""How a run lives on a cluster: its deadlines, retries, queue and what becomes of it at the end.

On one machine nothing here counts, and no artifact depends on it.
"""

from typing import Annotated

from pydantic import Field

from selfimprove_pipeline.contract.recipe.base import LabelValue, Part

Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]
SecondsFromNow = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Deadlines(Part):
    """Time limits after which the run fails. Time spent suspended does not count."""

    run_seconds: Seconds | None = None
    """runSeconds limits the time since the run started or last resumed. Default: no limit."""

    stage_seconds: Seconds | None = None
    """stageSeconds limits the time for the work of one pod, retries included. Default: no limit."""

    start_seconds: Seconds | None = None
    """startSeconds limits how long pods wait for an image or a node; waiting for quota does not
    count. Default: no limit."""

    node_lost_seconds: Seconds = 900
    """nodeLostSeconds limits how long a pod that should be gone may remain on an unreachable node.
    Default: 900."""


class Retries(Part):
    """How often failed or interrupted work is launched again."""

    # As a Job's backoffLimit: with the back-off a store may be away for ten minutes.
    limit: Annotated[int, Field(ge=0, le=100)] = 6
    """limit is how often a unit of work is retried after its own failure. Default: 6."""

    disruption_limit: Annotated[int, Field(ge=0, le=1000)] = 20
    """disruptionLimit is how often a unit of work is retried after the infrastructure ended it,
    such as by eviction. Default: 20."""


class TtlSecondsAfterFinished(Part):
    """When a finished run is deleted automatically."""

    succeeded: SecondsFromNow | None = None
    """succeeded is the number of seconds after which a successful run is deleted. Default:
    never."""

    failed: SecondsFromNow | None = None
    """failed is the number of seconds after which a failed run is deleted. Default: never."""


class Scheduling(Part):
    """How Kueue schedules the pods."""

    queue_name: LabelValue | None = None
    """queueName is Kueue's LocalQueue for the pods. Default: none; pods start when a node has
    room."""

    workload_priority_class_name: LabelValue | None = None
    """workloadPriorityClassName is Kueue's WorkloadPriorityClass, for order and preemption."""
