"""vLLM as an `Engine`: the product's way to make text, and the only importer of vLLM.

The engine core runs in this process, without vLLM's usual child: there is nothing to leave behind
when this process is killed, and a kill for memory is reported as what it is. On GPUs this process
is one of a `pool`. Only tensor parallelism starts more; `vllm_worker` ties them to this one. vLLM
reads its settings from the environment when it is imported, so it is imported when an engine
starts.
"""

import dataclasses
import gc
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.engine import Completion, Request, faults, vllm_outputs
from selfimprove_pipeline.engine.intake import take
from selfimprove_pipeline.engine.options import by_context

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

_ENVIRONMENT: Final = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    # FlashInfer builds its sampler with nvcc, which the image has not. Rows with a seed of their
    # own, as ours are, are not sampled by it anyway.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
"""Settings that the machine's own environment may overrule."""

_NEEDED: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # A worker that is forked after CUDA has been looked at cannot use it.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # Looking for GPUs by NVML leaves CUDA alone.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
_LARGE_GPU: Final = 100e9
_MOST_ROWS: Final = 512
"""Rows that a GPU below 100 GB has at a time: its cache holds hardly more of 8 billion parameters,
and throughput grows little beyond."""
_KV_CACHE_GIB: Final = "1"


def start(
    model: Path,
    *,
    inference: Inference,
    dtype: str,
    stop_token_ids: Sequence[int],
    seed: int = 0,
) -> "VllmEngine":
    """Start vLLM on a model's folder.

    `dtype` is one of vLLM's names or `auto`, which keeps float32 weights as they are on a CPU.
    Arguments that vLLM does not know or refuses raise `InputError`; a device that is occupied or
    fails raises `TryAgainError`.
    """
    began = time.perf_counter()
    _set_environment(inference)
    # Imported here because vLLM reads the environment above as it is imported.
    from vllm import EngineArgs  # noqa: PLC0415
    from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415
    from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415

    arguments = _arguments(model, inference=inference, dtype=dtype, seed=seed)
    unknown = arguments.keys() - {field.name for field in dataclasses.fields(EngineArgs)}
    if unknown:
        msg = (
            "inference.extraArgs: expected engine arguments of this vLLM, "
            f"found {', '.join(sorted(unknown))}; correct or remove them"
        )
        raise InputError(msg)
    try:
        # As vLLM's own class for offline work: more rows and longer steps than a server's.
        config = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
        engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
    except Exception as error:
        line = _in_one_line(error)
        kind = faults.kind_of(line) or (InputError if isinstance(error, ValueError) else None)
        if kind is None:
            raise
        msg = f"inference: vLLM cannot start {model.name}: {line}"
        raise kind(msg) from error
    return VllmEngine(
        engine, stop_token_ids=stop_token_ids, start_seconds=time.perf_counter() - began
    )


class VllmEngine:
    """A started vLLM that holds one model; one `complete` at a time."""

    def __init__(
        self, engine: "LLMEngine", *, stop_token_ids: Sequence[int], start_seconds: float
    ) -> None:
        """Take over a started engine."""
        self._engine: LLMEngine | None = engine
        self._max_model_len: int = engine.vllm_config.model_config.max_model_len
        rows = engine.vllm_config.scheduler_config.max_num_seqs
        self._window: int = rows + rows // 4
        self._stop_token_ids = list(stop_token_ids)
        self._start_seconds = start_seconds
        self._workers = multiprocessing.active_children()

    @property
    def start_seconds(self) -> float:
        """Seconds that the start took, imports and weights included."""
        return self._start_seconds

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of vLLM, torch and transformers."""
        import torch  # noqa: PLC0415 - vLLM has imported it when there is an engine
        import transformers  # noqa: PLC0415 - likewise
        import vllm  # noqa: PLC0415 - likewise

        modules = (vllm, torch, transformers)
        return {module.__name__: str(module.__version__) for module in modules}

    @property
    def max_model_len(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self._max_model_len

    @property
    def has_fixed_batches(self) -> bool:
        """False: requests come and go one by one."""
        return False

    @property
    def engines(self) -> int:
        """One."""
        return 1

    @property
    def window(self) -> int:
        """Rows that it works on at a time, and a quarter more to go on with."""
        return self._window

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Yield completions as they finish; requests are taken as there is room for them.

        An engine that died raises. Requests that nobody waits for any more are given up.
        """
        engine = self._running()
        waiting = by_context(requests)
        unfinished: dict[str, tuple[Request, ...]] = {}
        try:
            while True:
                while len(unfinished) < self._window and (
                    together := take(waiting, under_way=len(unfinished))
                ):
                    if len(together[0].prompt) >= self._max_model_len:
                        yield from map(vllm_outputs.overlong, together)
                    else:
                        self._add(engine, together)
                        unfinished[together[0].key] = together
                if not unfinished:
                    return
                for output in self._step(engine):
                    together = unfinished.pop(output.request_id)
                    yield from vllm_outputs.completions(together, output)
        finally:
            engine.abort_request(list(unfinished))

    def close(self) -> None:
        """End the engine and its workers and free the memory it took; more than once is fine."""
        if self._engine is None:
            return
        import torch  # noqa: PLC0415 - vLLM has imported it when there is an engine

        self._engine.engine_core.shutdown()
        self._engine = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _step(self, engine: "LLMEngine") -> "Sequence[RequestOutput]":
        """Return what one step has finished; say so if a worker process or a device failed."""
        try:
            return cast("Sequence[RequestOutput]", engine.step())
        except Exception as error:
            if any(worker.exitcode == -signal.SIGKILL for worker in self._workers):
                msg = (
                    "expected vLLM's worker processes to live, found one killed, most likely for "
                    "lack of memory; give the pod more, or lower inference.gpuMemoryUtilization"
                )
                raise TryAgainError(msg) from error
            line = _in_one_line(error)
            kind = faults.kind_of(line)
            if kind is None:
                raise
            msg = f"inference: vLLM cannot go on: {line}"
            raise kind(msg) from error

    def _running(self) -> "LLMEngine":
        if self._engine is None:
            msg = "the engine is closed"
            raise RuntimeError(msg)
        return self._engine

    def _add(self, engine: "LLMEngine", together: Sequence[Request]) -> None:
        """Add one request to vLLM: for a text, or for what its options are worth."""
        from vllm.inputs.engine import tokens_input  # noqa: PLC0415 - see `start`

        first = together[0]
        if first.scored == 1:
            prompt, params = first.context, _next_token(together)
        else:
            room = self._max_model_len - len(first.prompt)
            prompt = first.prompt
            params = _sampling(first, room=room, stop_token_ids=self._stop_token_ids)
        engine.add_request(first.key, tokens_input(list(prompt)), params)


def _set_environment(inference: Inference) -> None:
    """Set what vLLM and torch read when they are imported or first used."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ |= _NEEDED
    import torch  # noqa: PLC0415 - takes seconds, and may look for GPUs only now

    has_gpus = torch.accelerator.is_available()
    if inference.batch_invariant and not has_gpus:
        msg = (
            "inference.batchInvariant: expected GPUs, found processors, on which vLLM's rows "
            "depend on their batch; leave it out here"
        )
        raise InputError(msg)
    if inference.batch_invariant:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    if not has_gpus:
        # On processors all runs eagerly, but what ranks scored tokens; images have no compiler.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def _arguments(model: Path, *, inference: Inference, dtype: str, seed: int) -> dict[str, Any]:
    """Return vLLM's engine arguments; those of the recipe's extraArgs come on top of ours."""
    from vllm import EngineArgs  # noqa: PLC0415 - see `start`
    from vllm.platforms import current_platform  # noqa: PLC0415 - see `start`
    from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415 - see `start`

    # vLLM would take sampling defaults from the model's folder unless told not to.
    given = {"model": str(model), "seed": seed, "generation_config": "vllm"}
    given |= {"tensor_parallel_size": inference.tensor_parallel_size}
    given |= {"gpu_memory_utilization": inference.gpu_memory_utilization}
    given |= {"dtype": dtype, "max_model_len": inference.max_model_len}
    given["logprobs_mode"] = "raw_logprobs"  # else options would not be told their log-likelihood
    if inference.tensor_parallel_size > 1:
        given["worker_extension_cls"] = "selfimprove_pipeline.engine.vllm_worker.Tied"
    defaults = {"disable_log_stats": True, "use_tqdm_on_load": False}
    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", _KV_CACHE_GIB)
        defaults["enforce_eager"] = True
        # Of a prompt that is read in parts vLLM takes back what its generator has drawn, which
        # generators of processors cannot do: a sampled row would end the engine.
        defaults["enable_chunked_prefill"] = False
        if dtype == "auto" and _stored_dtype(model) == "float32":
            given["dtype"] = "float32"
    else:
        _, rows = EngineArgs.get_batch_defaults(inference.tensor_parallel_size)
        memory = current_platform.get_device_total_memory()
        defaults |= _fewer_rows(rows[UsageContext.LLM_CLASS], memory=memory)
    if taken := given.keys() & inference.extra_args.keys():
        msg = (
            "inference.extraArgs: expected no argument that the recipe sets itself, "
            f"found {', '.join(sorted(taken))}; use the recipe's own field"
        )
        raise InputError(msg)
    return {**defaults, **given, **inference.extra_args}


def _fewer_rows(most: int, *, memory: int) -> dict[str, Any]:
    """Return how many rows a GPU of so many bytes has at a time, if not vLLM's own `most`."""
    return {} if memory >= _LARGE_GPU or most <= _MOST_ROWS else {"max_num_seqs": _MOST_ROWS}


def _stored_dtype(model: Path) -> str:
    """Return the dtype that a model's config.json names; float32 when it names none."""
    config = json.loads((model / "config.json").read_text())
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _next_token(options: Sequence[Request]) -> "SamplingParams":
    """Return what asks for the worth of options as the next token.

    They are no tokens of a prompt, for whose worth vLLM would not use its prefix cache.
    """
    from vllm import SamplingParams  # noqa: PLC0415 - see `start`
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415 - see `start`

    return SamplingParams(
        max_tokens=1,
        temperature=0,
        logprob_token_ids=list(dict.fromkeys(option.prompt[-1] for option in options)),
        # Otherwise an option that is the likeliest would hide its rank among all tokens.
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _sampling(request: Request, *, room: int, stop_token_ids: Sequence[int]) -> "SamplingParams":
    from vllm import SamplingParams  # noqa: PLC0415 - see `start`
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415 - see `start`

    if request.scored:
        # Of each token of the prompt alone, with its rank; one new token is vLLM's least.
        return SamplingParams(
            max_tokens=1,
            temperature=0,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    return SamplingParams(
        max_tokens=min(request.max_tokens, room),
        temperature=request.temperature,
        top_p=request.top_p,
        repetition_penalty=request.repetition_penalty,
        seed=request.seed if request.temperature > 0 else None,
        stop=list(request.stop),
        stop_token_ids=list(stop_token_ids),
        # Of the ids that end a turn vLLM would add its own finds to those that it is given.
        ignore_eos=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
