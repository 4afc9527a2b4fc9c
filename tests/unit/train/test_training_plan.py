"""The passes of a training: every pair once an epoch, within the budget, in step on all ranks."""

from collections import Counter
from itertools import chain, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove_pipeline.train.data.plan import Batches, Plan, global_batches, packed, padded
from selfimprove_pipeline.train.data.rows import TokenRow
from selfimprove_pipeline.train.model.layout import has_soft_cap, packable

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 300), st.integers(1, 300))


def _batches(sizes: list[tuple[int, int, int]], *, world: int, size: int, epochs: int) -> Batches:
    rows = [
        TokenRow((str(number), "de", "en"), (1,) * prompt, (2,) * chosen, (3,) * rejected)
        for number, (prompt, chosen, rejected) in enumerate(sizes)
    ]
    return Batches(
        rows=rows,
        steps=global_batches(len(rows), size=size, epochs=epochs, seed=1),
        first_epoch=-(-len(rows) // size),
        world=world,
        normalization="sequence",
    )


def _real(plan: Plan, step: int) -> list[int]:
    slots = chain.from_iterable(chain.from_iterable(plan.passes[step]))
    return [slot.row for slot in slots if slot.weight > 0]


@given(
    sizes=st.lists(SIZES, min_size=1, max_size=30),
    world=st.integers(1, 4),
    size=st.integers(1, 16),
    epochs=st.integers(1, 2),
    budget=st.integers(100, 2000),
)
def test_packed_passes_hold_every_pair_once_an_epoch(
    sizes: list[tuple[int, int, int]], world: int, size: int, epochs: int, budget: int
) -> None:
    """Weights sum to 1, ranks stay in step, and only a pair alone is above the budget."""
    batches = _batches(sizes, world=world, size=size, epochs=epochs)
    plan = packed(batches, budget=budget)
    seen: Counter[int] = Counter()
    for step, batch in enumerate(batches.steps):
        assert len(plan.passes[step]) == plan.accumulation
        assert sorted(_real(plan, step)) == sorted(batch)
        seen.update(_real(plan, step))
        slots = [slot for ranks in plan.passes[step] for own in ranks for slot in own]
        assert sum(slot.weight for slot in slots) == pytest.approx(1)
        nll = sum(slot.nll_weight * len(batches.rows[slot.row].chosen_ids) for slot in slots)
        assert nll == pytest.approx(1)
        for ranks in plan.passes[step]:
            assert len(ranks) == world
            for own in ranks:
                assert own
                assert len(own) == 1 or plan.token_slots(own) <= budget
    assert set(seen.values()) == {epochs}
    first = [slot.row for rank in range(world) for own in plan.of_rank(rank)[: plan.first_epoch]
             for slot in own if slot.weight > 0]  # fmt: skip
    assert sorted(first) == list(range(len(sizes)))


@given(sizes=st.lists(SIZES, min_size=2, max_size=6), world=st.integers(2, 3))
def test_ranks_share_the_tokens_as_lpt_promises(
    sizes: list[tuple[int, int, int]], world: int
) -> None:
    """The largest share is at most 4/3 - 1/3m of the best one there is."""
    batches = _batches(sizes, world=world, size=len(sizes), epochs=1)
    plan = packed(batches, budget=1_000_000)
    tokens = [batches.tokens(row) for row in range(len(sizes))]
    best = min(
        max(sum(t for t, r in zip(tokens, ranks, strict=True) if r == one) for one in range(world))
        for ranks in product(range(world), repeat=len(sizes))
    )
    (step,) = plan.passes
    largest = max(
        sum(batches.tokens(slot.row) for ranks in step for slot in ranks[rank] if slot.weight > 0)
        for rank in range(world)
    )
    assert largest <= best * (4 / 3 - 1 / (3 * world)) + 1e-9


def test_packing_wastes_little_where_padding_wastes_much() -> None:
    """Pairs of very unlike lengths on one rank: nearly all token slots are of use."""
    sizes = [(20, 10 + 37 * number % 400, 10 + 91 * number % 300) for number in range(64)]
    batches = _batches(sizes, world=1, size=16, epochs=1)
    assert packed(batches, budget=2048).useful > 0.95
    assert padded(batches, micro=4).useful < 0.9


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama"}, True),
        ({"model_type": "qwen2", "sliding_window": 99, "use_sliding_window": True}, True),
        ({"model_type": "gemma3", "text_config": {"layer_types": ["sliding_attention"]}}, True),
        ({"model_type": "gemma2", "attn_logit_softcapping": 50.0}, False),
        ({"model_type": "new", "layer_types": ["linear_attention", "full_attention"]}, False),
        ({"model_type": "new", "ssm_state_size": 16}, False),
        ({"model_type": "mamba"}, False),
        ({"model_type": "bloom"}, False),
        ({"model_type": "gpt_oss"}, False),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, False),
        ({"model_type": "phimoe", "sliding_window": 2047}, False),
    ],
)
def test_only_causal_softmax_attention_is_packed(config: dict[str, object], expected: bool) -> None:
    """A config tells soft caps, states, windows that the mask alone knows, and other attention."""
    assert packable(config) is expected


def test_soft_caps_are_found_where_a_config_nests_them() -> None:
    """A model of text and images holds them in its text part."""
    assert has_soft_cap({"text_config": {"attn_logit_softcapping": 30.0}})
    assert not has_soft_cap({"attn_logit_softcapping": None})
