"""vLLM as it comes, for `data.py`: processes that do nothing but `LLM.generate`.

Each is told a list of texts to make, the tokens of the prompts and how many to write, and says
when it is done. Nothing is read, kept or written down, and no text stops before its length.
"""

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self


class Text(NamedTuple):
    """A text to make."""

    prompt: tuple[int, ...]
    tokens: int
    """tokens to write, no more and no fewer."""
    sampling: Mapping[str, Any]
    """sampling are vLLM's parameters of that name, without those of the length."""


class Bare:
    """One process for each of some environments, all with the same model."""

    def __init__(
        self, arguments: Mapping[str, Any], environments: Sequence[Mapping[str, str]]
    ) -> None:
        """Start them all and return when they are ready; `arguments` are those of `vllm.LLM`."""
        spawn = multiprocessing.get_context("spawn")
        pipes = [spawn.Pipe() for _ in environments]
        self._connections = [own for own, _ in pipes]
        self._processes = [
            spawn.Process(target=_serve, args=(theirs, dict(arguments), dict(environment)))
            for (_, theirs), environment in zip(pipes, environments, strict=True)
        ]
        for process, (_, theirs) in zip(self._processes, pipes, strict=True):
            process.start()
            theirs.close()  # so that a process that dies is an end of file here
        for connection in self._connections:
            connection.recv()

    def seconds(self, texts: Sequence[Text]) -> tuple[float, int]:
        """Make all texts, each process its share; return the seconds and the tokens written."""
        shares = [
            texts[number :: len(self._connections)] for number in range(len(self._connections))
        ]
        for connection, share in zip(self._connections, shares, strict=True):
            connection.send(("take", share))
            connection.recv()
        began = time.perf_counter()
        for connection in self._connections:
            connection.send(("make", None))
        tokens = sum(connection.recv() for connection in self._connections)
        return time.perf_counter() - began, tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes."""
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.close()
            process.join()


def _serve(connection: Connection, arguments: dict[str, Any], environment: dict[str, str]) -> None:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **environment}
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    llm = LLM(**arguments)
    connection.send("ready")
    prompts: list[TokensPrompt] = []
    parameters: list[SamplingParams] = []
    while True:
        try:
            order, texts = connection.recv()
        except EOFError:
            return
        if order == "take":
            prompts = [TokensPrompt(prompt_token_ids=list(text.prompt)) for text in texts]
            parameters = [
                SamplingParams(max_tokens=text.tokens, ignore_eos=True, **text.sampling)
                for text in texts
            ]
            connection.send("taken")
        else:
            made = llm.generate(prompts, parameters, use_tqdm=False)
            connection.send(sum(len(one.outputs[0].token_ids) for one in made))
