"""Reads how a run made its models: pairs, their scores, gates, training and time."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.rows import GatedLanguage, Score
from selfimprove_pipeline.measuring import gates
from selfimprove_pipeline.measuring.intervals import Rate
from selfimprove_pipeline.report.story.making import (
    Agreement,
    Pairs,
    Promotion,
    Step,
    Training,
    Work,
)
from selfimprove_pipeline.report.story.source import Source

METRICS = "metrics.jsonl"


def pairs(run: Source) -> Iterator[Pairs]:
    """Yield the pairs that were kept and dropped."""
    for iteration, _, manifest in run.of("pair"):
        trained = run.manifests.get((iteration, "train", ""))
        scores = {part: made for t, part, made in run.of("score") if t == iteration}
        left_out = gates.left_out(run.spec.gates, {"score": scores})
        for language in run.languages:
            kept = manifest.counts.get(f"pairs.{language}", 0)
            untrained = trained.drops.get(language, {}) if trained else {}
            yield Pairs(
                iteration=iteration,
                language=language,
                kept=kept,
                drops=dict(sorted(manifest.drops.get(language, {}).items())),
                untrained=kept if language in left_out else sum(untrained.values()),
            )


def training(run: Source) -> Iterator[Training]:
    """Yield the steps of each training."""
    for iteration, part, manifest in run.of("train"):
        if any(file.name == METRICS for file in manifest.files):
            steps = run.reader.rows(manifest, Step, METRICS)
            yield Training(iteration=iteration, steps=steps, is_baseline=part == keys.SFT)


def agreements(run: Source) -> Iterator[Agreement]:
    """Yield how often gold answers or a judge agree with the labels, with what the gate says."""
    gated = run.spec.gates
    for iteration, _, manifest in run.of("score"):
        decided = {found.language: found for found in gates.reward_accuracies(gated, [manifest])}
        by_language: dict[str, list[Score]] = defaultdict(list)
        for row in run.reader.rows(manifest, Score):
            by_language[row.language].append(row)
        for language in run.languages:
            if by_language[language]:
                found = decided.get(language) if gated.mode == "Enforced" else None
                decision = found.decision if found else None
                agreement = _agreement(iteration, language, by_language[language])
                own, translated = _worths(by_language[language], run.spec.languages.dominant)
                yield replace(agreement, generation=own, translation=translated, decision=decision)


def _agreement(iteration: int, language: str, rows: list[Score]) -> Agreement:
    decided = [row.is_right for row in rows if row.is_right is not None]
    known = [row for row in rows if row.chosen is not None and row.rejected is not None]
    return Agreement(
        iteration=iteration,
        language=language,
        accuracy=Rate(sum(decided), len(decided)),
        ties=len(known) - len(decided),
        is_graded=any(row.first or row.second for row in rows),
    )


def _worths(rows: list[Score], dominant: str) -> tuple[float | None, float | None]:
    """Return the mean worth of what was written in a language, and of what was translated into it.

    Pairs prefer what began in the dominant language: there it is the model's own text.
    """
    known = [(row.chosen, row.rejected) for row in rows]
    pairs = [(a, b) for a, b in known if a is not None and b is not None]
    if not pairs:
        return None, None
    chosen, rejected = fmean(a for a, _ in pairs), fmean(b for _, b in pairs)
    return (chosen, rejected) if rows[0].language == dominant else (rejected, chosen)


def promotions(run: Source) -> Iterator[Promotion]:
    """Yield what the gate says of each model that was compared with the one before."""
    for iteration, _, manifest in run.of("gate"):
        rows = run.reader.rows(manifest, GatedLanguage)
        yield Promotion(model=iteration, languages=rows)


def work(run: Source) -> Iterator[Work]:
    """Yield what each stage took."""
    by_stage: dict[tuple[int, str], list[Manifest]] = defaultdict(list)
    for (iteration, stage, _), manifest in run.manifests.items():
        by_stage[iteration, stage].append(manifest)
    computed = {iteration.index: set(iteration.computed) for iteration in run.index.iterations}
    for (iteration, stage), made in by_stage.items():
        yield Work(
            iteration=iteration,
            stage=stage,
            wall=sum(manifest.seconds.get("wall", 0.0) for manifest in made),
            engine_start=sum(manifest.seconds.get("engineStart", 0.0) for manifest in made),
            artifacts=len(made),
            computed=sum(manifest.key in computed[iteration] for manifest in made),
            prompt_tokens=sum(manifest.counts.get("promptTokens", 0) for manifest in made),
            completion_tokens=sum(manifest.counts.get("completionTokens", 0) for manifest in made),
        )


def versions(run: Source) -> dict[str, dict[str, str]]:
    """Return the versions by stage; artifacts of several toolchains show each version they had."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for (_, stage, _), manifest in run.manifests.items():
        for package, version in manifest.versions.items():
            found[stage][package].add(version)
    return {
        stage: {package: ", ".join(sorted(all_)) for package, all_ in sorted(packages.items())}
        for stage, packages in found.items()
    }
