"""Judges behind the scripted endpoint: each is told what stands at A and at B."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from support.endpoint import Asked, Reply, Script, chat

Decide = Callable[[str, str], str]
"""What a judge writes about the texts at A and B."""

PARTS: Final = re.compile(
    r"<instruction>\n(.*)\n</instruction>\n\n<answer-A>\n(.*)\n</answer-A>"
    r"\n\n<answer-B>\n(.*)\n</answer-B>",
    re.DOTALL,
)


def parts(asked: Asked) -> tuple[str, str, str]:
    """Return the instruction and the texts at A and B."""
    found = PARTS.search(str(asked.body["messages"][-1]["content"]))
    assert found is not None
    return found[1], found[2], found[3]


def judging(decide: Decide) -> Script:
    """Return a judge that writes what it decides."""

    def script(asked: Asked) -> Reply:
        _, a, b = parts(asked)
        return chat(decide(a, b))

    return script


def longer(a: str, b: str) -> str:
    """Prefer the longer text, A of two that are as long."""
    return "A" if len(a) >= len(b) else "B"


def first(_: str, __: str) -> str:
    """Prefer whatever stands first."""
    return "A"


def with_candidates(text: str, candidates: Mapping[str, float]) -> Reply:
    """Return a completion with the log-probabilities of its first token's candidates."""
    reply = chat(text)
    top = [{"token": t, "logprob": p, "bytes": None} for t, p in candidates.items()]
    token = {"token": text[:1], "logprob": -0.1, "bytes": None, "top_logprobs": top}
    reply.body["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    return reply
