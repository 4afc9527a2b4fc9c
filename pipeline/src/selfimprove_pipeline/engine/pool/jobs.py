"""What an engine is started on, in this process or in another one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.engine import Engine


class Single(Engine, Protocol):
    """An engine in one process."""

    @property
    def window(self) -> int:
        """Requests that keep it busy: those it works on, and some to go on with."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An engine that is to hold a model. It is pickled for the processes of a pool."""

    engine: str
    """engine is `vllm` or `transformers`."""
    model: Path
    """model is the folder."""
    inference: Inference
    dtype: str
    stop_token_ids: tuple[int, ...]
    seed: int = 0

    def start(self) -> Single:
        """Start the engine here; each is imported when it is chosen."""
        if self.engine == "vllm":
            from selfimprove_pipeline.engine import vllm_engine  # noqa: PLC0415  heavy

            return vllm_engine.start(
                self.model,
                inference=self.inference,
                dtype=self.dtype,
                stop_token_ids=self.stop_token_ids,
                seed=self.seed,
            )
        from selfimprove_pipeline.engine import transformers_engine  # noqa: PLC0415  heavy

        return transformers_engine.TransformersEngine(
            self.model,
            stop_token_ids=self.stop_token_ids,
            dtype="float32" if self.dtype == "auto" else self.dtype,
            max_model_len=self.inference.max_model_len,
        )
