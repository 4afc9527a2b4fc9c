"""Score: do the labels of the pairs agree with gold answers, or a judge? Reads pairs alone.

A text is right if it comes to the number of its gold answer, or equals one without a number. The
reward accuracy of the labels is the share of decided pairs (one text right, the other
wrong) whose chosen text is the right one. A judge's grades (`pairs`) decide in the same way.
"""

from collections.abc import Mapping, Sequence

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.rows import Pair, Score
from selfimprove_pipeline.measuring.intervals import wilson
from selfimprove_pipeline.text.matching import is_right


def score(
    pairs: Sequence[Pair], gold: Mapping[str, Mapping[str, str]], spec: Spec
) -> tuple[Score, ...]:
    """Return 1 or 0 for each text of each pair; gold holds the answers by language and id."""
    return tuple(_score(pair, gold[pair.language][pair.id], spec) for pair in pairs)


def measures(scores: Sequence[Score]) -> dict[str, float]:
    """Return the reward accuracy of the decided pairs, absent where none is decided.

    By language `rewardAccuracy.<language>`, and the bounds of its Wilson interval as
    `rewardAccuracyLow.<language>` and `rewardAccuracyHigh.<language>`.
    """
    found = {}
    for language in sorted({score.language for score in scores}):
        own = [score.is_right for score in scores if score.language == language]
        decided = [is_right for is_right in own if is_right is not None]
        if decided:
            agreeing = sum(decided)
            interval = wilson(agreeing, len(decided))
            found[f"rewardAccuracy.{language}"] = agreeing / len(decided)
            found[f"rewardAccuracyLow.{language}"] = interval.low
            found[f"rewardAccuracyHigh.{language}"] = interval.high
    return found


def counts(scores: Sequence[Score]) -> dict[str, int]:
    """Return the number of `pairs` and of `decided.<language>` ones."""
    decided = [score.language for score in scores if score.is_right is not None]
    by_language = {f"decided.{name}": decided.count(name) for name in sorted(set(decided))}
    return {"pairs": len(scores), **by_language}


def _score(pair: Pair, answer: str, spec: Spec) -> Score:
    # Of a prompt that is about translation the chosen text is the dominant answer as it is.
    is_untranslated = (
        pair.id in spec.pairing.translation_prompt_ids and pair.language != spec.languages.dominant
    )
    written = pair.partner if is_untranslated else pair.language
    chosen, rejected = pair.chosen[0].content, pair.rejected[0].content
    return Score(
        id=pair.id,
        language=pair.language,
        partner=pair.partner,
        chosen=float(is_right(chosen, answer, language=pair.language, written=written)),
        rejected=float(is_right(rejected, answer, language=pair.language)),
    )
