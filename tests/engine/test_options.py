"""Options of one token, asked of real engines that hold the miniature: equal numbers, one reading.

The reference reads each prompt alone, without cache and padding, in double precision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
import torch
import transformers

from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.engine import Completion, Engine, Request, vllm_engine
from selfimprove_pipeline.engine.transformers_engine import TransformersEngine
from selfimprove_pipeline.method.rendering import Renderer
from support.cli import MINIATURE

M0: Final = MINIATURE / "m0"
NUMBERS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
OTHERS: Final = (300, 500, 700)
"""Tokens that are options beside the likeliest one."""
BLOCK: Final = 128
"""Tokens that vLLM keeps together on processors."""

Asked = tuple[list[Request], dict[str, tuple[float, bool]]]
"""Requests, and what each is worth and whether it is the likeliest."""


@dataclass(frozen=True)
class Reference:
    """What the model makes of one prompt alone."""

    model: Any

    @torch.inference_mode()
    def next_token(self, tokens: Sequence[int]) -> tuple[list[float], int]:
        """Return the log-probability of each token as the next one, and the likeliest."""
        logits = self.model(torch.tensor([tokens])).logits[0, -1]
        told = torch.log_softmax(logits.double(), dim=-1)
        return told.tolist(), int(told.argmax())


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Load the model."""
    return Reference(transformers.AutoModelForCausalLM.from_pretrained(M0))


@pytest.fixture(scope="module")
def asked(reference: Reference) -> Asked:
    """Return four options of each question after the same examples, and what they are worth."""
    renderer = Renderer(M0, Chat())
    examples = "".join(f"What is {one} plus two?\nThe sum is ten.\n" for one in NUMBERS * 2)
    requests, expected = [], {}
    for first in NUMBERS:
        text = f"{examples}What is {first} plus four?\nThe sum is"
        context = tuple(renderer.text_ids(text))
        told, best = reference.next_token(context)
        for token in (*OTHERS, best):
            key = f"{first}/{token}"
            requests.append(
                Request(key=key, group="g", prompt=(*context, token), max_tokens=1, scored=1)
            )
            expected[key] = (told[token], token == best)
    return requests, expected


@pytest.fixture(
    scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.engine)]
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Start each engine once."""
    started: Engine = (
        TransformersEngine(M0, stop_token_ids=(2,))
        if request.param == "transformers"
        else vllm_engine.start(M0, inference=Inference(), dtype="auto", stop_token_ids=(2,))
    )
    yield started
    started.close()


def completed(engine: Engine, requests: Sequence[Request]) -> dict[str, Completion]:
    return {row.key: row for row in engine.complete(requests)}


def test_an_option_is_worth_what_it_is_alone(engine: Engine, asked: Asked) -> None:
    """Together, by itself and as the last of two tokens; the likeliest alone is greedy."""
    requests, expected = asked
    found = completed(engine, requests)
    alone = {r.key: completed(engine, [r])[r.key] for r in requests[:8]}
    for rows in (found, alone):
        told = {key: one.log_likelihood for key, one in rows.items()}
        assert told == pytest.approx({key: expected[key][0] for key in rows}, abs=1e-4)
        assert all(one.is_greedy == expected[key][1] for key, one in rows.items())
    last = requests[3]
    both = completed(engine, [replace(last, scored=2)])[last.key]
    before = completed(engine, [replace(last, key="b", prompt=last.context, scored=1)])["b"]
    assert before.log_likelihood is not None
    assert both.log_likelihood == pytest.approx(
        before.log_likelihood + expected[last.key][0], abs=1e-4
    )
    assert {(one.finish_reason, one.text, one.completion_tokens) for one in found.values()} == {
        ("length", "", 0)
    }
    assert {r.key: len(r.prompt) for r in requests} == {
        k: c.prompt_tokens for k, c in found.items()
    }


def test_each_text_is_read_once(
    engine: Engine, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many options follow it; of what texts begin with alike vLLM reads the first alone."""
    requests, _ = asked
    is_vllm = not engine.has_fixed_batches
    seen: list[Any] = []
    owner, name = (vars(engine)["_engine"], "step") if is_vllm else (engine, "_model")
    original = getattr(owner, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        seen.extend(made if is_vllm else kwargs["input_ids"])
        return made

    monkeypatch.setattr(owner, name, noted)
    assert len(completed(engine, requests)) == len(requests) == 4 * len(NUMBERS)
    assert len(seen) == len(NUMBERS)
    if is_vllm:
        assert all(cached >= BLOCK for cached in sorted(one.num_cached_tokens for one in seen)[1:])


def test_options_without_room_are_told_each(engine: Engine) -> None:
    """They stop nobody else."""
    longest = engine.max_model_len
    options = [
        Request(key=str(token), group="g", prompt=(*(65,) * length, token), max_tokens=1, scored=1)
        for token, length in (
            (3, longest - 1),
            (4, longest - 1),
            (5, longest - 2),
            (6, longest - 2),
        )
    ]
    found = completed(engine, options)
    assert {key: row.finish_reason for key, row in found.items()} == {
        "3": "overlong",
        "4": "overlong",
        "5": "length",
        "6": "length",
    }


def test_more_options_than_are_told_at_once(engine: Engine, reference: Reference) -> None:
    """Each is worth what it is, an option that is asked for twice as well."""
    context = (70, 80, 90, 100)
    told, best = reference.next_token(context)
    tokens = [*range(10, 210), best, best]
    options = [
        Request(key=str(place), group="g", prompt=(*context, token), max_tokens=1, scored=1)
        for place, token in enumerate(tokens)
    ]
    found = completed(engine, options)
    expected = [told[token] for token in tokens]
    assert [found[row.key].log_likelihood for row in options] == pytest.approx(expected, abs=1e-4)
    assert [found[row.key].is_greedy for row in options] == [token == best for token in tokens]
