"""What a worker came to, in the few numbers that a termination message has room for.

They are computed from manifests alone, so a worker that finds its stages finished tells the
same as the one that finished them. `pod` writes them where the operator reads them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from selfimprove_pipeline.contract.manifests import Manifest, Stop, digest_of
from selfimprove_pipeline.contract.recipe import Spec, Stage
from selfimprove_pipeline.measuring import gates
from selfimprove_pipeline.measuring.gates import Manifests
from selfimprove_pipeline.measuring.intervals import wilson
from selfimprove_pipeline.run import status

MESSAGE_CHARACTERS = 600
"""Characters of a stop's message that fit into the termination message with the totals."""


@dataclass(frozen=True)
class Outcome:
    """The digest, totals and per-language numbers of a worker that has ended well."""

    digest: str
    iteration: int
    stages: Mapping[str, str] = field(default_factory=dict)
    """stages holds the digest of each stage that made or found artifacts."""
    model: str | None = None
    """model is the digest of M(iteration)."""
    totals: Mapping[str, int | str] = field(default_factory=dict)
    languages: Sequence[Mapping[str, int | str]] = ()
    """languages are the numbers by language, without those that are not known."""


@dataclass(frozen=True)
class Found:
    """What the store has of an iteration."""

    iteration: int
    model: str
    """model is the digest of M(iteration)."""
    manifests: Manifests
    evaluated_before: Mapping[str, Manifest]
    """evaluated_before is the evaluation of M(iteration - 1), from which the gain is measured."""
    last: int
    """last is the index of the last model."""


def of_stages(names: Sequence[Stage], spec: Spec, state: Found) -> Outcome:
    """Return what some finished stages of an iteration have come to."""
    found = state.manifests
    digests: dict[str, str] = {
        name: status.stage_digest(found[name]) for name in names if found.get(name)
    }
    rows = sum(m.rows or 0 for name in names for m in found.get(name, {}).values())
    totals: dict[str, int | str] = {"rows": rows}
    if "evaluate" in names:
        totals |= _scores(spec, found.get("evaluate", {}), state.evaluated_before)
    if "pair" in names or "train" in names:
        for manifest in found.get("pair", {}).values():
            totals |= {"pairs": gates.pairs_left(spec.gates, found)}
            totals |= {"drops": manifest.counts["drops"]}
    stop = gates.stop_of(state.iteration, state.last, spec.gates, found)
    return Outcome(
        digest=digest_of(digests),
        iteration=state.iteration,
        stages=digests,
        model=state.model,
        totals=totals | stopped(stop),
        languages=tuple(by_language(spec, found)),
    )


def stopped(stop: Stop | None) -> dict[str, int | str]:
    """Return what the operator is told of a run that ends early, nothing of one that goes on."""
    if stop is None:
        return {}
    return {"stopped": stop.reason, "message": stop.message[:MESSAGE_CHARACTERS]}


def by_language(spec: Spec, found: Manifests) -> Iterator[dict[str, int | str]]:
    """Yield what is known of each language.

    That is pairs, drops, the score on the first suite with its interval, and what the gates say.
    """
    suites = spec.evaluation.suites
    scores = status.evaluation(found.get("evaluate", {})).get(suites[0].name, {}) if suites else {}
    pairs = found.get("pair", {}).get("")
    decisions = gates.decisions(spec.gates, found)
    for language in spec.languages.all():
        numbers: dict[str, int | str] = {"language": language}
        if pairs is not None:
            numbers["pairs"] = pairs.counts.get(f"pairs.{language}", 0)
            numbers["drops"] = sum(pairs.drops.get(language, {}).values())
        if "score" in scores.get(language, {}):
            numbers |= _score(scores[language])
        if language in decisions:
            numbers["gate"], numbers["why"] = decisions[language]
        yield numbers


def _score(measured: Mapping[str, float]) -> dict[str, str]:
    value, n = measured["score"], int(measured["n"])
    interval = wilson(value * n, n)
    told = {"score": value, "scoreLow": interval.low, "scoreHigh": interval.high}
    return {name: f"{number:.3f}" for name, number in told.items()}


def _scores(
    spec: Spec, now: Mapping[str, Manifest], before: Mapping[str, Manifest]
) -> dict[str, str]:
    """Return the mean score over the other languages, and its gain, as far as measured."""
    recipe: dict[str, Any] = spec.model_dump(mode="json", by_alias=True)
    found: dict[str, str] = {}
    measured = status.evaluation(now)
    suites, others = spec.evaluation.suites, spec.languages.others
    if suites and all("score" in measured.get(suites[0].name, {}).get(n, {}) for n in others):
        mean = fmean(measured[suites[0].name][n]["score"] for n in others)
        found["score"] = f"{mean:.3f}"
    gain = status.gain_of(status.evaluation(before), measured, recipe)
    if gain is not None:
        found["gain"] = f"{gain:+.3f}"
    return found
