"""The win rate at equal lengths where it is known how hard each instruction is.

This is the model of alpaca-eval 0.6.6, fit as its `glm_winrate` fits it: a logistic model of the
preferences by length, difficulty and model, with an L1 penalty that cross-validation chooses.
Difficulties come from a file beside the references (`alpaca`); without one `length_control` does
it. The only importer of scikit-learn. Pure.
"""

import math
import statistics
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.rows import Gamed

PACKAGE: Final = "scikit-learn"
FOLDS: Final = 5
"""Folds of the cross-validation; fewer verdicts tell nothing."""
GAMED_WEIGHT: Final = 0.1
"""Weight of a verdict on a gamed baseline: alpaca-eval's .2, shared by its two of them."""
SEED: Final = 123
"""alpaca-eval's own: the solver shuffles, and stops close to the optimum."""


def versions() -> dict[str, str]:
    """Return the version of what fits the model; an `InputError` tells where it is absent."""
    try:
        return {PACKAGE: metadata.version(PACKAGE)}
    except metadata.PackageNotFoundError as error:
        message = (
            f"a file of difficulties: expected {PACKAGE}, which fits its model, found none; "
            "install selfimprove[inference]"
        )
        raise InputError(message) from error


def win_rate(
    preferences: Sequence[float],
    differences: Sequence[int],
    difficulties: Sequence[float],
    gamed: Sequence[Gamed] = (),
) -> float | None:
    """Return the win rate at equal lengths, None of fewer than five verdicts.

    It equals `length_controlled_v1` of alpaca-eval with gamed verdicts, and without
    `length_controlled_noreg`. `differences` are the lengths of the model's answers minus those of
    its opponent's. Where all preferences are the same extreme it is the plain win rate.
    """
    count = len(preferences)
    if count < FOLDS:
        return None
    plain = math.fsum(preferences) / count
    if plain in (0.0, 1.0):
        return plain
    spread = statistics.stdev(differences) or 1.0
    lengths = [math.tanh(-difference / spread) for difference in differences]
    own = [(x, y, 1.0) for x, y in zip(lengths, difficulties, strict=True)]
    others = [(math.tanh(one.length), one.difficulty, 0.0) for one in gamed]
    model = _fitted(
        [*others, *own],
        [*(one.preference for one in gamed), *preferences],
        [GAMED_WEIGHT] * len(others) + [1.0] * count,
    )
    even = [(0.0, difficulty, 1.0) for difficulty in difficulties]
    return float(model.predict_proba(even)[:, 1].mean())


def _fitted(
    features: Sequence[tuple[float, ...]], preferences: Sequence[float], weights: Sequence[float]
) -> Any:
    """Return the fitted model; a preference of p is a win of weight p and a loss of 1 - p."""
    import sklearn  # noqa: PLC0415  heavy, and few suites have difficulties
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegressionCV  # noqa: PLC0415
    from sklearn.metrics import make_scorer  # noqa: PLC0415
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415

    losses = [1 - preference for preference in preferences]
    twice = [*weights, *weights]
    shares = [*preferences, *losses]
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        # With next to no penalty 100 rounds do not do; alpaca-eval leaves it at that.
        warnings.simplefilter("ignore", ConvergenceWarning)
        scorer = make_scorer(_loss, response_method="predict_proba", greater_is_better=False)
        model = LogisticRegressionCV(
            cv=GroupKFold(n_splits=FOLDS),
            scoring=scorer.set_score_request(share=True, weight=True),
            penalty="l1",
            solver="liblinear",
            fit_intercept=False,
            random_state=SEED,
        ).set_fit_request(sample_weight=True)
        return model.fit(
            [*features, *features],
            [1] * len(preferences) + [0] * len(losses),
            sample_weight=[share * weight for share, weight in zip(shares, twice, strict=True)],
            groups=[*range(len(preferences)), *range(len(preferences))],
            share=shares,
            weight=twice,
        )


def _loss(
    sides: Sequence[int],
    expected: Sequence[float],
    share: Sequence[float],
    weight: Sequence[float],
) -> float:
    """Return the mean cross-entropy of preferences, of which each row is told one side."""
    # scikit-learn tells a loss as -1.
    wanted = [p if side == 1 else 1 - p for side, p in zip(sides, share, strict=True)]
    close = 1e-15  # as alpaca-eval clips what the model expects
    inside = [min(max(q, close), 1 - close) for q in expected]
    return -statistics.fmean(
        w * (p * math.log(q) + (1 - p) * math.log(1 - q))
        for w, p, q in zip(weight, wanted, inside, strict=True)
    )
