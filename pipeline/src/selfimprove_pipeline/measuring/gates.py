"""Gates: which languages are trained on, whether a model is promoted, whether a run goes on.

Pure functions of the recipe, of rows and of what manifests tell, so a process that finds the
artifacts comes to the same decision as the one that made them. Two gates, both conservative: what
was not measured well enough passes.

- *Reward accuracy*: a language's pairs are left out of the training when at least
  `minimumDecided` of them were decided and even the upper end of the Wilson interval of their
  reward accuracy lies below the threshold.
- *Promotion*: a model is refused when in some language its paired change on the first suite is
  for the worse, the whole 95 % interval and Holm's p value over the languages agreeing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, get_args

from selfimprove_pipeline.contract.keys import Iteration
from selfimprove_pipeline.contract.manifests import Manifest, Stop, StopReason
from selfimprove_pipeline.contract.recipe import Gates, Spec, Stage
from selfimprove_pipeline.contract.rows import Evaluated, GatedLanguage
from selfimprove_pipeline.measuring import differences
from selfimprove_pipeline.measuring.differences import Contrast, Measure, Values
from selfimprove_pipeline.measuring.intervals import Rate

Manifests = Mapping[Stage, Mapping[str, Manifest]]
"""Finished artifacts of an iteration by stage and part."""

Answers = Mapping[str, Evaluated]
"""One model's answers to the first suite in one language, by id."""

Decision = Literal["Worse", "LeftOut", "Warned", "Passed", "NotMeasured"]
"""What gates say of a language, the gravest first."""


@dataclass(frozen=True)
class RewardAccuracy:
    """How often the labels of a language's pairs are right, and what follows from it."""

    language: str
    rate: Rate
    decision: Decision

    @property
    def reason(self) -> str:
        """Why, in words."""
        value, interval = self.rate.value or 0.0, self.rate.interval
        return f"accuracy {value:.3f} [{interval.low:.3f}, {interval.high:.3f}] n {self.rate.n}"


def compare(
    before: Mapping[str, Answers],
    now: Mapping[str, Answers],
    languages: Sequence[str],
    *,
    counts_languages: bool = False,
) -> tuple[GatedLanguage, ...]:
    """Return for each language whether the later model is worse; both answered the same suite."""
    pairs = {
        language: (before[language], now[language])
        for language in languages
        if language in before and language in now
    }
    measure = differences.measure_of(
        (row for pair in pairs.values() for rows in pair for row in rows.values()),
        counts_languages=counts_languages,
    )
    values = {language: _values(*pair, measure) for language, pair in pairs.items()}
    contrasts = [differences.contrast(tag, a, b) for tag, (a, b) in values.items() if a]
    found = {one.language: one for one in differences.corrected(contrasts)}
    return tuple(_language(tag, found.get(tag)) for tag in languages)


def _values(before: Answers, now: Answers, measure: Measure) -> tuple[Values, Values]:
    """Return what a measure says of the prompts of both, more being better."""
    ids = differences.common_ids(before, now)
    a, b = differences.values_of_both(before, now, ids, measure)
    if measure == "score":
        return a, b
    return {name: 1 - value for name, value in a.items()}, {n: 1 - v for n, v in b.items()}


def _language(tag: str, found: Contrast | None) -> GatedLanguage:
    if found is None or found.difference is None:
        return GatedLanguage(language=tag, decision="NotMeasured")
    interval = found.difference.interval
    return GatedLanguage(
        language=tag,
        decision="Worse" if found.sign < 0 and interval.high < 0 else "Passed",
        n=found.difference.n,
        change=round(found.value, 6),
        low=round(interval.low, 6),
        high=round(interval.high, 6),
        p=found.adjusted,
    )


def gain(rows: Sequence[GatedLanguage], spec: Spec) -> float | None:
    """Return the mean change over the languages but the dominant one, None if one has none."""
    changes = {row.language: row.change for row in rows}
    found = [changes.get(language) for language in spec.languages.others]
    known = [change for change in found if change is not None]
    return fmean(known) if len(known) == len(found) else None


def counts(rows: Sequence[GatedLanguage], spec: Spec) -> dict[str, int]:
    """Return `refused`, `tooLittleGain` (0 or 1) and the prompts `n.<language>`."""
    reached, least = gain(rows, spec), spec.gates.minimum_gain
    is_little = least is not None and reached is not None and reached < least
    return {
        "refused": int(any(row.decision == "Worse" for row in rows)),
        "tooLittleGain": int(is_little),
        **{f"n.{row.language}": row.n for row in rows if row.n},
    }


def measures(rows: Sequence[GatedLanguage], spec: Spec) -> dict[str, float]:
    """Return `gain` and, by language, `change`, `low`, `high`, `p` and `worse`, where measured."""
    reached = gain(rows, spec)
    found = {} if reached is None else {"gain": reached}
    for row in rows:
        told = {"change": row.change, "low": row.low, "high": row.high, "p": row.p}
        named = {f"{name}.{row.language}": value for name, value in told.items()}
        found |= {name: value for name, value in named.items() if value is not None}
        if row.change is not None:
            found[f"worse.{row.language}"] = float(row.decision == "Worse")
    return found


def reward_accuracies(gates: Gates, scores: Iterable[Manifest]) -> Iterator[RewardAccuracy]:
    """Yield what the pairs of each scored language come to, from the manifests of `score`."""
    for score in scores:
        for name, accuracy in score.measures.items():
            kind, _, language = name.partition(".")
            if kind == "rewardAccuracy":
                decided = score.counts[f"decided.{language}"]
                rate = Rate(round(accuracy * decided), decided)
                yield RewardAccuracy(language, rate, _decision(rate, gates))


def _decision(rate: Rate, gates: Gates) -> Decision:
    if rate.value is None or rate.n < gates.minimum_decided:
        return "NotMeasured"
    if gates.mode == "Enforced" and rate.interval.high < gates.reward_accuracy:
        return "LeftOut"
    return "Warned" if rate.value < gates.reward_accuracy_warning else "Passed"


def decisions(gates: Gates, manifests: Manifests) -> dict[str, tuple[Decision, str]]:
    """Return for each language that was measured the gravest decision, and the numbers for it."""
    if gates.mode != "Enforced":  # an index from before there were gates has no mode
        return {}
    accuracies = reward_accuracies(gates, manifests.get("score", {}).values())
    found = [(one.language, one.decision, one.reason) for one in accuracies]
    gate = manifests.get("gate", {}).get("")
    found += _promotions(gate) if gate else ()
    order = get_args(Decision)
    found.sort(key=lambda one: order.index(one[1]), reverse=True)
    return {language: (decision, reason) for language, decision, reason in found}


def _promotions(gate: Manifest) -> Iterator[tuple[str, Decision, str]]:
    for name, worse in gate.measures.items():
        kind, _, language = name.partition(".")
        if kind == "worse":
            yield language, "Worse" if worse else "Passed", _change(gate, language)


def applied(iteration: Iteration, manifests: Manifests) -> Iteration:
    """Return an iteration with what its gates have decided so far."""
    if iteration.stop is not None:
        return iteration
    gates = iteration.spec.gates
    stop, out = _reason(gates, manifests), left_out(gates, manifests)
    return replace(iteration, stop=stop, left_out=out)


def stop_of(index: int, last: int, gates: Gates, manifests: Manifests) -> Stop | None:
    """Return why a run ends at an iteration, None where it goes on or has its last model."""
    reason, final = _reason(gates, manifests), index
    if reason is None:
        return None
    if reason == "NoPairs":
        out = ", ".join(left_out(gates, manifests))
        told = f"no pairs are left to train on, the gates have left out {out}"
    elif (gate := manifests["gate"][""]).counts["refused"]:
        final = index - 1
        told = f"M{index} is refused, {_worse(gate)}"
    elif index < last:
        less = f"{gate.measures['gain']:+.3f} is below {gates.minimum_gain:+.3f}"
        told = f"the gain of M{index}, {less}"
    else:
        return None
    message = f"{told}; the final model is M{final}"
    return Stop(reason=reason, message=message, iteration=index, final=final)


def _reason(gates: Gates, manifests: Manifests) -> StopReason | None:
    """Return why nothing more is made of a model, None where something is."""
    gate = manifests.get("gate", {}).get("")
    if gate is not None and (gate.counts["refused"] or gate.counts["tooLittleGain"]):
        return "StoppedByGate"
    is_empty = left_out(gates, manifests) and not pairs_left(gates, manifests)
    return "NoPairs" if is_empty else None


def left_out(gates: Gates, manifests: Manifests) -> tuple[str, ...]:
    """Return the languages whose pairs are not trained on."""
    found = reward_accuracies(gates, manifests.get("score", {}).values())
    return tuple(one.language for one in found if one.decision == "LeftOut")


def pairs_left(gates: Gates, manifests: Manifests) -> int:
    """Return how many of the pairs that were made are trained on."""
    counts = manifests["pair"][""].counts
    out = left_out(gates, manifests)
    return counts["pairs"] - sum(counts.get(f"pairs.{language}", 0) for language in out)


def _worse(gate: Manifest) -> str:
    """Say in which languages a model is worse, with the interval of each."""
    told = gate.measures
    worse = [name.partition(".")[2] for name in told if name.startswith("worse.") and told[name]]
    languages = ", ".join(f"{tag} ({_change(gate, tag)})" for tag in worse)
    return f"worse than the model before in {languages}"


def _change(gate: Manifest, language: str) -> str:
    change, low, high, p = (
        gate.measures[f"{name}.{language}"] for name in ("change", "low", "high", "p")
    )
    return f"{change:+.3f} [{low:+.3f}, {high:+.3f}], p {p:.3g}"
