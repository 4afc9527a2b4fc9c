"""Pair: the imbalance between languages ranks the model's own answers, without a judge.

Pure: rows in, pairs and drops out. Every candidate becomes a pair or a drop with its reason,
and rows meet by prompt id alone. `candidates` holds the method's rule, `reasons` the filters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.rows import Drop, Message, Pair
from selfimprove_pipeline.method import conversation
from selfimprove_pipeline.method.pair.candidates import Candidate, Texts, candidates
from selfimprove_pipeline.method.pair.reasons import (
    Context,
    is_not_identified,
    median_ratios,
    reason_to_drop,
)
from selfimprove_pipeline.text.languages import Identify

__all__ = ["Paired", "Texts", "pair"]


@dataclass(frozen=True)
class Paired:
    """The outcome: pairs, drops, and how many chosen texts no detector could judge."""

    pairs: tuple[Pair, ...]
    drops: tuple[Drop, ...]
    not_identified: Mapping[str, int]
    """not_identified by language: too short, or a language that lingua lacks."""


def pair(texts: Texts, spec: Spec, identify: Identify) -> Paired:
    """Return the pairs of an iteration and the candidates that did not become one."""
    identify = cache(identify)  # a kept text is asked for twice: to judge it and to count it
    context = Context(spec, identify, median_ratios(texts))
    pairs, drops, not_identified = [], [], dict.fromkeys(spec.languages.all(), 0)
    for candidate in candidates(texts, spec):
        reason = reason_to_drop(candidate, context)
        if reason is not None:
            drops.append(_drop(candidate, reason))
            continue
        made = _pair(candidate, spec)
        pairs.append(made)
        if spec.pairing.filters.language and is_not_identified(candidate, identify):
            not_identified[candidate.language] += 1
    return Paired(tuple(pairs), tuple(drops), not_identified)


def _pair(candidate: Candidate, spec: Spec) -> Pair:
    return Pair(
        prompt=conversation.of_prompt(candidate.prompt.prompt, candidate.language, spec),
        chosen=(Message(role="assistant", content=candidate.preferred or ""),),
        rejected=(Message(role="assistant", content=candidate.dispreferred or ""),),
        id=candidate.prompt.id,
        language=candidate.language,
        partner=candidate.partner,
    )


def _drop(candidate: Candidate, reason: str) -> Drop:
    return Drop(
        id=candidate.prompt.id,
        language=candidate.language,
        partner=candidate.partner,
        reason=reason,
        chosen=candidate.preferred,
        rejected=candidate.dispreferred,
    )
