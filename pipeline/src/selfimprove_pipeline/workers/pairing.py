"""Pair and score: rows to rows, without a model; a judge may grade pairs (`grade_pairs`)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final, TypeVar

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.rows import Answer, Drop, Pair, Translation, lines
from selfimprove_pipeline.contract.stages import WORKERS
from selfimprove_pipeline.measuring import reward_accuracy
from selfimprove_pipeline.method import pair
from selfimprove_pipeline.method.pair import Paired, Texts
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import Survey, manifest_of, survey
from selfimprove_pipeline.text import languages
from selfimprove_pipeline.workers.tasks import grade_pairs
from selfimprove_pipeline.workers.tasks.collect import OnProgress
from selfimprove_pipeline.workers.tasks.grade_pairs import SCORES

PAIRS: Final = "pairs.jsonl"
DROPS: Final = "drops.jsonl"

RowT = TypeVar("RowT", Answer, Translation)


def work(
    setting: Setting,
    index: int,
    model: Model,
    on_progress: OnProgress,
    *,
    names: tuple[Stage, ...] = WORKERS["light"],
) -> None:
    """Make the missing artifacts of `pair`, `score` or both of an iteration."""
    iteration = setting.iteration(index, model)
    for name in names:
        found = survey(iteration, setting.repository.manifest)
        missing = found[name].missing
        if missing and name == "score" and not iteration.gold:
            about_translation = setting.spec.pairing.translation_prompt_ids
            pairs = [one for one in _pairs(setting, found) if one.id not in about_translation]
            grade_pairs.work(setting, index, pairs, found, on_progress)
            continue
        for target in missing:
            _MAKERS[name](setting, index, target, found)


def _pairs(setting: Setting, found: Survey) -> tuple[Pair, ...]:
    return setting.repository.rows(found["pair"].manifests[""], Pair, PAIRS)


def _pair(setting: Setting, index: int, target: Target, found: Survey) -> None:
    started = monotonic()
    texts = _texts(setting, index, found)
    identify = languages.identifier(setting.spec.languages.all())
    paired = pair.pair(texts, setting.spec, identify)
    manifest = manifest_of(
        target,
        seconds=_seconds_since(started),
        rows=len(paired.pairs),
        counts=_pair_counts(paired),
        drops=_drops_by_reason(paired.drops),
    )
    files = {PAIRS: lines(paired.pairs), DROPS: lines(paired.drops)}
    setting.repository.commit(manifest, files)


def _score(setting: Setting, index: int, target: Target, found: Survey) -> None:
    started = monotonic()
    gold = {
        language: {prompt.id: prompt.answer or "" for prompt in prompts}
        for language, prompts in setting.prompts_of(index).items()
    }
    scores = reward_accuracy.score(_pairs(setting, found), gold, setting.spec)
    made = manifest_of(
        target,
        seconds=_seconds_since(started),
        rows=len(scores),
        counts=reward_accuracy.counts(scores),
        measures=reward_accuracy.measures(scores),
    )
    setting.repository.commit(made, {SCORES: lines(scores)})


_MAKERS: Final[Mapping[str, Callable[[Setting, int, Target, Survey], None]]] = {
    "pair": _pair,
    "score": _score,
}


def _texts(setting: Setting, index: int, found: Survey) -> Texts:
    answers = {
        language: _by_id(setting.repository.rows(manifest, Answer))
        for language, manifest in found["generate"].manifests.items()
    }
    translations = {
        keys.languages_of(name): _by_id(setting.repository.rows(manifest, Translation))
        for name, manifest in found["translate"].manifests.items()
    }
    return Texts(setting.prompts_of(index), answers, translations)


def _seconds_since(started: float) -> dict[str, float]:
    return {"wall": round(monotonic() - started, 3)}


def _by_id(rows: Sequence[RowT]) -> Mapping[str, RowT]:
    return {row.id: row for row in rows}


def _pair_counts(paired: Paired) -> dict[str, int]:
    """Return `pairs`, `drops`, and by language `pairs.<l>` and `notIdentified.<l>`."""
    by_language = Counter(row.language for row in paired.pairs)
    return {
        "pairs": len(paired.pairs),
        "drops": len(paired.drops),
        **{f"pairs.{name}": by_language[name] for name in sorted(paired.not_identified)},
        **{f"notIdentified.{n}": count for n, count in paired.not_identified.items() if count},
    }


def _drops_by_reason(drops: Sequence[Drop]) -> dict[str, dict[str, int]]:
    languages_ = sorted({drop.language for drop in drops})
    return {
        language: dict(sorted(Counter(d.reason for d in drops if d.language == language).items()))
        for language in languages_
    }
