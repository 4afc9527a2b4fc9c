"""The status of a `SelfImproveRun` and the names that the operator gives to things.

The spec is the pipeline's recipe. Everything here is bounded: a status of 100 iterations in
30 languages stays below 100 KiB. The field docstrings are the CRD's descriptions.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from selfimprove_pipeline.recipe.base import Part

GROUP: Final = "selfimprove.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "selfimproveruns"
KIND: Final = "SelfImproveRun"
MANAGER: Final = "selfimprove.dev/operator"
"""Value of `spec.managedBy` that means this operator; unset means the same."""

FINALIZER: Final = "selfimprove.dev/artifacts"

LABEL_RUN: Final = "selfimprove.dev/run"
LABEL_RUN_UID: Final = "selfimprove.dev/run-uid"
LABEL_UNIT: Final = "selfimprove.dev/unit"
LABEL_ITERATION: Final = "selfimprove.dev/iteration"
LABEL_LAUNCH: Final = "selfimprove.dev/launch"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "selfimprove"
SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
"""Label selector of everything that the operator makes."""

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
"""What one launch does: several neighbouring stages (`Fused`) or one (`Separate`)."""

Time = Annotated[
    str, StringConstraints(max_length=32), Field(json_schema_extra={"format": "date-time"})
]
"""A time in UTC, RFC 3339, whole seconds."""
Short = Annotated[str, StringConstraints(max_length=253)]
Message = Annotated[str, StringConstraints(max_length=1024)]
Digest = Annotated[str, StringConstraints(max_length=64)]
Count = Annotated[int, Field(ge=0, le=2_147_483_647)]
Decimal = Annotated[str, StringConstraints(max_length=16)]
"""A number as text: floats are no part of a Kubernetes API."""


class Condition(Part):
    """One condition of the run, in the standard form of Kubernetes."""

    type: ConditionType
    """type of the condition."""

    status: Outcome
    """status is `Unknown` while it is not decided."""

    reason: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Z][A-Za-z]*$")]
    """reason in one word of CamelCase."""

    message: Message = ""
    """message for a person, with what is being waited for."""

    observed_generation: Count = 0
    """observedGeneration of the spec that this was said of."""

    last_transition_time: Time
    """lastTransitionTime is when the status last changed."""


class Launch(Part):
    """The launch that the run is at: what is running, or what runs next."""

    unit: UnitName
    """unit of work."""

    iteration: Count
    """iteration t, whose model is M_t."""

    attempts: Count = 0
    """attempts that the program itself failed."""

    disruptions: Count = 0
    """disruptions are launches that the infrastructure ended."""

    suspensions: Count = 0
    """suspensions are launches that `suspend` ended."""

    job_name: Short | None = None
    """jobName of the Job, once it has been seen."""

    job_uid: Short | None = None
    """jobUid of the Job, once it has been seen."""

    start_time: Time | None = None
    """startTime of the unit's work: when no quota was waited for any more; it restarts when the
    run resumes."""

    waiting_since: Time | None = None
    """waitingSince is when this launch began to wait for its pods; quota is not counted."""

    not_before: Time | None = None
    """notBefore is when the back-off after a failure ends."""

    @property
    def number(self) -> int:
        """The number of the launch, with which its name ends."""
        return self.attempts + self.disruptions + self.suspensions


class StageStatus(Part):
    """A stage of the current iteration."""

    name: Short
    """name of the stage."""

    state: Literal["Pending", "Running", "Succeeded", "Failed"]
    """state of the stage."""

    attempts: Count = 0
    """attempts that the program failed."""

    disruptions: Count = 0
    """disruptions are launches that the infrastructure ended."""

    start_time: Time | None = None
    """startTime of the stage's pod."""

    completion_time: Time | None = None
    """completionTime of the stage's pod."""

    digest: Digest | None = None
    """digest of the stage's artifacts."""


class IterationStatus(Part):
    """A finished iteration: M_t is measured and M_(t+1), if there is one, is trained."""

    index: Count
    """index t."""

    model_digest: Digest | None = None
    """modelDigest of M_t."""

    pairs: Count | None = None
    """pairs that M_(t+1) was trained on."""

    gain: Decimal | None = None
    """gain of M_t over M_(t-1): the mean change of the first suite's score over the others."""

    start_time: Time | None = None
    """startTime of the iteration."""

    completion_time: Time | None = None
    """completionTime of the iteration."""


class LanguageNumbers(Part):
    """What an iteration came to in one language."""

    language: Annotated[str, StringConstraints(max_length=35)]
    """language as a BCP-47 tag."""

    pairs: Count | None = None
    """pairs kept."""

    drops: Count | None = None
    """drops in all."""

    score: Decimal | None = None
    """score of M_t on the first suite."""

    score_low: Decimal | None = None
    """scoreLow is the lower bound of the score's 95 % interval."""

    score_high: Decimal | None = None
    """scoreHigh is the upper bound of the score's 95 % interval."""

    gate: Literal["Worse", "LeftOut", "Warned", "Passed", "NotMeasured"] | None = None
    """gate is the gravest decision on the language: M_t is worse, its pairs are left out."""

    why: Annotated[str, StringConstraints(max_length=128)] | None = None
    """why the gate decided so, in numbers."""


class IterationNumbers(Part):
    """Per-language numbers of one iteration."""

    index: Count
    """index t."""

    languages: Annotated[tuple[LanguageNumbers, ...], Field(max_length=65)] = ()
    """languages of the run."""


class ImageStatus(Part):
    """The image that a role's pods ran."""

    role: Role
    """role of the pods."""

    image_id: Annotated[str, StringConstraints(max_length=512)] = Field(alias="imageID")
    """imageID with the digest, as the node reports it."""


class RuntimeRef(Part):
    """The ControllerRevision that holds what the run uses."""

    name: Short
    """name of the ControllerRevision."""


class Status(Part):
    """What the run has come to."""

    observed_generation: Count | None = None
    """observedGeneration of the spec that the status speaks of."""

    start_time: Time | None = None
    """startTime is when the run was accepted; from then on the recipe cannot be changed."""

    completion_time: Time | None = None
    """completionTime is when the outcome was decided."""

    resume_time: Time | None = None
    """resumeTime is when the run's clock last started: startTime, or the last resumption."""

    recipe_digest: Digest | None = None
    """recipeDigest of the resolved recipe."""

    runtime_ref: RuntimeRef | None = None
    """runtimeRef names the ControllerRevision with the resolved recipe, images and pod defaults."""

    iteration: Count | None = None
    """iteration that the run is at."""

    stage: Short | None = None
    """stage that is running."""

    progress: Short | None = None
    """progress of the stage, such as 120/400."""

    pairs_kept: Count | None = None
    """pairsKept in the latest pairing."""

    last_gain: Decimal | None = None
    """lastGain of the latest model over the one before."""

    message: Message | None = None
    """message is what the run does or waits for."""

    launch: Launch | None = None
    """launch that the run is at."""

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
    """iterations that are finished."""

    numbers: Annotated[
        tuple[IterationNumbers, ...],
        Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """numbers by language of the last two iterations."""

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
