"""When a language's pairs are left out, when a model is refused, when a run stops early."""

from typing import Annotated, Literal

from pydantic import Field

from selfimprove_pipeline.recipe.base import Part, affects, by_profile

Share = Annotated[float, Field(ge=0, le=1)]


class Gates(Part):
    """What has to hold before pairs are trained on and before the next iteration begins."""

    mode: Literal["Disabled", "Enforced"] = by_profile()
    """mode `Enforced` leaves a language's pairs out when their reward accuracy is too low, and
    ends the run when a model is worse than the one before in some language."""

    reward_accuracy: Share = 0.55
    """rewardAccuracy that the upper end of a language's interval has to reach."""

    reward_accuracy_warning: Share = 0.6
    """rewardAccuracyWarning is the reward accuracy below which a language is warned of."""

    minimum_decided: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """minimumDecided is the number of decided pairs from which reward accuracy counts."""

    minimum_gain: Annotated[
        Annotated[float, Field(ge=-1, le=1)] | None,
        affects("gate"),
    ] = None
    """minimumGain of a model over the one before, below which the run ends. Unset means none."""
