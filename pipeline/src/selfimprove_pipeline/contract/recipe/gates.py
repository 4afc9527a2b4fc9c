"""When a language's pairs are left out, when a model is refused, when a run stops early."""

from typing import Annotated, Literal

from pydantic import Field

from selfimprove_pipeline.contract.recipe.base import Part, affects, by_profile

Share = Annotated[float, Field(ge=0, le=1)]


class Gates(Part):
    """Conditions on pairs before they are trained on, and on a model before the next iteration."""

    mode: Literal["Disabled", "Enforced"] = by_profile()
    """mode `Enforced` leaves out a language's pairs if their reward accuracy is too low, and ends
    the run if a model is worse than the one before in any language. Default: Enforced (lidr-paper:
    Disabled)."""

    reward_accuracy: Share = 0.55
    """rewardAccuracy is the lower limit: a language's pairs are left out if the upper bound of its
    95 % interval is below it. Default: 0.55."""

    reward_accuracy_warning: Share = 0.6
    """rewardAccuracyWarning is the reward accuracy below which a language gets a warning. Default:
    0.6."""

    minimum_decided: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """minimumDecided is the number of decided pairs, one text right and one wrong, that a language
    needs for its reward accuracy to count. Default: 50."""

    minimum_gain: Annotated[
        Annotated[float, Field(ge=-1, le=1)] | None,
        affects("gate"),
    ] = None
    """minimumGain ends the run if a model's gain over the one before is smaller. Default: no
    minimum."""
