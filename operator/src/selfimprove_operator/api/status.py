"""The status of a `SelfImproveRun`, and the names of its API group, labels and finalizer.

The spec is the pipeline's recipe. Every list and text has a limit, so that the status of 100
iterations in 30 languages stays below 100 KiB. The docstrings of the fields are what
`kubectl explain` prints.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from selfimprove_pipeline.contract.recipe.base import Part

GROUP: Final = "selfimprove.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "selfimproveruns"
KIND: Final = "SelfImproveRun"
MANAGER: Final = "selfimprove.dev/operator"
"""The `spec.managedBy` of this operator's runs; unset means the same."""

FINALIZER: Final = "selfimprove.dev/artifacts"

LABEL_RUN: Final = "selfimprove.dev/run"
LABEL_RUN_UID: Final = "selfimprove.dev/run-uid"
LABEL_UNIT: Final = "selfimprove.dev/unit"
LABEL_ITERATION: Final = "selfimprove.dev/iteration"
LABEL_LAUNCH: Final = "selfimprove.dev/launch"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "selfimprove"
SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
"""Selects everything that the operator creates."""

ConditionType = Literal["Accepted", "Suspended", "QuotaReserved", "Progressing", "Succeeded"]
Outcome = Literal["True", "False", "Unknown"]
Role = Literal["inference", "training", "light"]
UnitName = Literal[
    "check",
    "inference",
    "light",
    "training",
    "evaluate",
    "generate",
    "translate",
    "pair",
    "score",
    "train",
    "report",
    "delete",
]
"""The work of one launch: several stages in a row (`Fused`) or one (`Separate`)."""

Time = Annotated[
    str, StringConstraints(max_length=32), Field(json_schema_extra={"format": "date-time"})
]
"""A time in UTC, RFC 3339, whole seconds."""
Short = Annotated[str, StringConstraints(max_length=253)]
Message = Annotated[str, StringConstraints(max_length=1024)]
Digest = Annotated[str, StringConstraints(max_length=64)]
Count = Annotated[int, Field(ge=0, le=2_147_483_647)]
Decimal = Annotated[str, StringConstraints(max_length=16)]
"""A number as text, since Kubernetes' API conventions rule out floats."""


class Condition(Part):
    """One condition of the run, in Kubernetes' standard form."""

    type: ConditionType
    """type of the condition."""

    status: Outcome
    """status is `Unknown` until it is decided."""

    reason: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Z][A-Za-z]*$")]
    """reason for the status, as one word in CamelCase."""

    message: Message = ""
    """message explains the status, and what the run is waiting for."""

    observed_generation: Count = 0
    """observedGeneration is the generation of the spec that this condition describes."""

    last_transition_time: Time
    """lastTransitionTime is when the status last changed."""


class Launch(Part):
    """The current launch: what is running, or what runs next."""

    unit: UnitName
    """unit of work that is launched."""

    iteration: Count
    """iteration t, which works with the model M_t."""

    attempts: Count = 0
    """attempts counts failures of the program itself."""

    disruptions: Count = 0
    """disruptions counts launches that the infrastructure ended."""

    suspensions: Count = 0
    """suspensions counts launches that `suspend` ended."""

    job_name: Short | None = None
    """jobName of the Job, once observed."""

    job_uid: Short | None = None
    """jobUid of the Job, once observed."""

    start_time: Time | None = None
    """startTime is when work on the unit began, after waiting for quota; reset when the run
    resumes."""

    waiting_since: Time | None = None
    """waitingSince is when this launch began to wait for its pods, after waiting for quota."""

    not_before: Time | None = None
    """notBefore is when the back-off after a failure ends."""

    @property
    def number(self) -> int:
        """How many launches of the unit came before; the Job's name ends with it."""
        return self.attempts + self.disruptions + self.suspensions


class StageStatus(Part):
    """A stage of the current iteration."""

    name: Short
    """name of the stage."""

    state: Literal["Pending", "Running", "Succeeded", "Failed"]
    """state of the stage."""

    attempts: Count = 0
    """attempts counts failures of the program itself."""

    disruptions: Count = 0
    """disruptions counts launches that the infrastructure ended."""

    start_time: Time | None = None
    """startTime of the stage's pod."""

    completion_time: Time | None = None
    """completionTime of the stage's pod."""

    digest: Digest | None = None
    """digest of the stage's artifacts."""


class IterationStatus(Part):
    """Results of an iteration, which evaluates M_t and, unless it is the last, trains M_(t+1)."""

    index: Count
    """index t of the iteration."""

    model_digest: Digest | None = None
    """modelDigest is the digest of M_t."""

    pairs: Count | None = None
    """pairs is the number of pairs that M_(t+1) was trained on."""

    gain: Decimal | None = None
    """gain of M_t over M_(t-1): the mean change of the first suite's score in the languages to
    improve."""

    start_time: Time | None = None
    """startTime of the iteration."""

    completion_time: Time | None = None
    """completionTime of the iteration."""


class LanguageNumbers(Part):
    """Results of an iteration in one language."""

    language: Annotated[str, StringConstraints(max_length=35)]
    """language as a BCP-47 tag."""

    pairs: Count | None = None
    """pairs is the number of pairs kept."""

    drops: Count | None = None
    """drops is the number of rows that did not become pairs."""

    score: Decimal | None = None
    """score of M_t on the first suite."""

    score_low: Decimal | None = None
    """scoreLow is the lower bound of the score's 95 % interval."""

    score_high: Decimal | None = None
    """scoreHigh is the upper bound of the score's 95 % interval."""

    gate: Literal["Worse", "LeftOut", "Warned", "Passed", "NotMeasured"] | None = None
    """gate is the most serious decision: M_t is `Worse`, or its pairs are `LeftOut`."""

    why: Annotated[str, StringConstraints(max_length=128)] | None = None
    """why has the numbers behind the decision."""


class IterationNumbers(Part):
    """Results of one iteration by language."""

    index: Count
    """index t of the iteration."""

    languages: Annotated[tuple[LanguageNumbers, ...], Field(max_length=65)] = ()
    """languages of the run with their results."""


class ImageStatus(Part):
    """The image that the pods of a role ran."""

    role: Role
    """role of the pods."""

    image_id: Annotated[str, StringConstraints(max_length=512)] = Field(alias="imageID")
    """imageID is the image with its digest, as the node reports it."""


class RuntimeRef(Part):
    """The ControllerRevision with what the run uses."""

    name: Short
    """name of the ControllerRevision."""


class Status(Part):
    """The observed state of the run."""

    observed_generation: Count | None = None
    """observedGeneration is the generation of the spec that this status describes."""

    start_time: Time | None = None
    """startTime is when the run was accepted; from then on the recipe cannot be changed."""

    completion_time: Time | None = None
    """completionTime is when the outcome was decided."""

    resume_time: Time | None = None
    """resumeTime is when the clock of deadlines.runSeconds last started, which a suspension
    resets."""

    recipe_digest: Digest | None = None
    """recipeDigest is the digest of the resolved recipe."""

    runtime_ref: RuntimeRef | None = None
    """runtimeRef names the ControllerRevision with the resolved recipe, images and pod defaults."""

    iteration: Count | None = None
    """iteration in progress."""

    stage: Short | None = None
    """stage in progress."""

    progress: Short | None = None
    """progress of the stage, such as 120/400."""

    pairs_kept: Count | None = None
    """pairsKept is the number of pairs that the latest training uses."""

    last_gain: Decimal | None = None
    """lastGain is the gain of the latest model over the one before."""

    message: Message | None = None
    """message describes what the run is doing or waiting for."""

    launch: Launch | None = None
    """launch that is running, or runs next."""

    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = ()
    """conditions Accepted, Suspended, QuotaReserved, Progressing, Succeeded."""

    stages: Annotated[
        tuple[StageStatus, ...],
        Field(
            max_length=12,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = ()
    """stages of the current iteration."""

    iterations: Annotated[
        tuple[IterationStatus, ...],
        Field(max_length=101, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """iterations so far, with their results."""

    numbers: Annotated[
        tuple[IterationNumbers, ...],
        Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """numbers are the results by language of the last two iterations."""

    images: Annotated[
        tuple[ImageStatus, ...],
        Field(
            max_length=3,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["role"],
            },
        ),
    ] = ()
    """images that ran, with their digests."""
