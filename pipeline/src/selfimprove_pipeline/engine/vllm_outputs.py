"""What vLLM says of a request, as completions."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast, get_args

from selfimprove_pipeline.contract.rows import FinishReason
from selfimprove_pipeline.engine import Completion, Request

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.logprobs import FlatLogprobs


def overlong(request: Request) -> Completion:
    """Return what comes of a prompt that leaves no room for a token."""
    return Completion(
        key=request.key,
        text="",
        finish_reason="overlong",
        prompt_tokens=len(request.prompt),
        completion_tokens=0,
    )


def completions(requests: Sequence[Request], output: "RequestOutput") -> Iterator[Completion]:
    """Yield the completions of requests that were one for vLLM: options of a text, or one alone."""
    if requests[0].scored == 1:
        yield from _options(requests, output)
        return
    (request,) = requests
    yield (_scored if request.scored else _written)(request, output)


def _written(request: Request, output: "RequestOutput") -> Completion:
    result = output.outputs[0]
    if result.finish_reason not in get_args(FinishReason):
        msg = f"vLLM ended request {request.key} with {result.finish_reason}"
        raise RuntimeError(msg)
    return Completion(
        key=request.key,
        text=result.text,
        finish_reason=cast("FinishReason", result.finish_reason),
        stop_text=result.stop_reason if isinstance(result.stop_reason, str) else None,
        prompt_tokens=len(request.prompt),
        completion_tokens=len(result.token_ids),
    )


def _options(requests: Sequence[Request], output: "RequestOutput") -> Iterator[Completion]:
    """Yield what each option is worth as the next token.

    vLLM tells first of the token that it chose, the likeliest one, and its rank alone is one among
    all tokens: 1 unless another is as likely. Then come the options in their order.
    """
    told = cast("FlatLogprobs", output.outputs[0].logprobs)
    worth = dict(zip(told.token_ids, told.logprobs, strict=True))
    likeliest = told.token_ids[0] if told.ranks[0] == 1 else None
    for request in requests:
        token = request.prompt[-1]
        yield _likelihood(request, worth[token], is_greedy=token == likeliest)


def _scored(request: Request, output: "RequestOutput") -> Completion:
    """Return the log-likelihood of a prompt's last tokens; rank 1 is the likeliest."""
    places = (output.prompt_logprobs or [])[-request.scored :]
    tokens = request.prompt[-request.scored :]
    found = [place[token] for place, token in zip(places, tokens, strict=True) if place is not None]
    if len(found) != request.scored:
        msg = f"vLLM scored {len(found)} of {request.scored} tokens of request {request.key}"
        raise RuntimeError(msg)
    total = sum(token.logprob for token in found)
    return _likelihood(request, total, is_greedy=all(token.rank == 1 for token in found))


def _likelihood(request: Request, log_likelihood: float, *, is_greedy: bool) -> Completion:
    return Completion(
        key=request.key,
        text="",
        finish_reason="length",
        prompt_tokens=len(request.prompt),
        completion_tokens=0,
        log_likelihood=log_likelihood,
        is_greedy=is_greedy,
    )
