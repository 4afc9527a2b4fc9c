"""How a run lives on a cluster: its deadlines, retries, queue and what becomes of it at the end.

On one machine nothing here counts, and no artifact depends on it.
"""

from typing import Annotated

from pydantic import Field

from selfimprove_pipeline.recipe.base import LabelValue, Part

Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]
SecondsFromNow = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Deadlines(Part):
    """When the run is given up. The clocks stand still while it is suspended."""

    run_seconds: Seconds | None = None
    """runSeconds that the run may take. Unset means no limit."""

    stage_seconds: Seconds | None = None
    """stageSeconds that the work of one pod may take, with its retries. Unset means no limit."""

    start_seconds: Seconds | None = None
    """startSeconds that pods may wait for an image or a node; waiting for quota is not counted.
    Unset means no limit."""

    node_lost_seconds: Seconds = 900
    """nodeLostSeconds until a pod on a node that cannot be reached is given up."""


class Retries(Part):
    """How often what failed is launched again."""

    # As a Job's backoffLimit: with the back-off a store may be away for ten minutes.
    limit: Annotated[int, Field(ge=0, le=100)] = 6
    """limit of launches that the program itself fails, for each unit of work."""

    disruption_limit: Annotated[int, Field(ge=0, le=1000)] = 20
    """disruptionLimit of launches that the infrastructure ends, such as by eviction, for each
    unit of work."""


class TtlSecondsAfterFinished(Part):
    """When a finished run is deleted by itself."""

    succeeded: SecondsFromNow | None = None
    """succeeded runs are deleted after so many seconds. Unset means they are kept."""

    failed: SecondsFromNow | None = None
    """failed runs are deleted after so many seconds. Unset means they are kept."""


class Scheduling(Part):
    """Who decides when pods start."""

    queue_name: LabelValue | None = None
    """queueName of Kueue's LocalQueue. Unset means pods start when a node has room."""

    workload_priority_class_name: LabelValue | None = None
    """workloadPriorityClassName of Kueue, which decides about order and preemption."""
