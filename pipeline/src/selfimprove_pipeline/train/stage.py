"""One training: pairs in, reference pass, DPO with checkpoints, the next model's folder out.

`run` is called on every rank; under torchrun the ranks find each other by its environment, and
without it there is one rank. Rank 0 writes the model, has a meaningful report, and with the
first rank of each other machine talks to the vault. The parts are `rows`, `plan`, `trainer`,
`checkpoints` and `folder`.
"""

import json
import logging
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils.logging import disable_progress_bar
from trl.trainer.dpo_config import DPOConfig

from selfimprove_pipeline.contract import rows as row_files
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.objectives import ObjectiveName
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.contract.recipe.training import Training
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.train.data.plan import Batches, Plan, global_batches, packed, padded
from selfimprove_pipeline.train.data.rows import NO_PAIRS, Rows, TokenRow, tokenize
from selfimprove_pipeline.train.loop import checkpoints, objective, trackers
from selfimprove_pipeline.train.loop import configuration as config
from selfimprove_pipeline.train.loop.checkpoints import OnStep, Vault
from selfimprove_pipeline.train.loop.objective import Objective
from selfimprove_pipeline.train.loop.pace import Clock, Pace
from selfimprove_pipeline.train.loop.trainer import (
    PairTrainer,
    References,
    Skeleton,
    Work,
    skeleton_of,
)
from selfimprove_pipeline.train.model.activations import recomputes
from selfimprove_pipeline.train.model.card import model_card
from selfimprove_pipeline.train.model.folder import (
    Changed,
    Masters,
    Target,
    copy_tokenizer,
    masters,
    open_to_readers,
    save_full,
    save_merged,
)
from selfimprove_pipeline.train.model.layout import Layout, packable
from selfimprove_pipeline.train.processes import ranks

METRICS = "metrics.jsonl"
MOST_APART: Final = {"bf16": 0.02, "fp32": 1e-4}
"""How many nats a token the layouts may differ by precision, before packing is given up."""

log = logging.getLogger(__name__)


class Job(BaseModel):
    """What to train and where to put it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    """model is the folder of M_t."""
    pairs: Path
    """pairs is a JSONL file of `rows.Pair`."""
    output: Path
    """output is the folder of M_(t+1); it must be empty."""
    scratch: Path
    """scratch holds checkpoints until the vault has them."""
    training: Training
    objective: ObjectiveName = "dpo"
    """objective of the training; `sft` makes the baseline."""
    chat: Chat
    lineage: dict[str, Any] = Field(default_factory=dict)
    """lineage goes into the model card, see `card.model_card`."""


class Report(BaseModel):
    """How a training went, in the terms of `manifests.Manifest`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: dict[str, int]
    """counts: `pairs` read, `trained` of them, optimizer `steps`."""
    drops: dict[str, dict[str, int]]
    measures: dict[str, float]
    seconds: dict[str, float]
    layout: Layout
    """layout of the passes."""


@dataclass(frozen=True)
class _Setting:
    """What `run` works out before the model is loaded."""

    job: Job
    config: dict[str, Any]
    """config is M_t's config.json."""
    skeleton: Skeleton
    objective: Objective
    pairs: int
    rows: Rows
    renderer: Renderer

    def plan(self, layout: Layout, *, micro: int) -> Plan:
        """Return all passes in a layout, those padded with `micro` pairs."""
        training = self.job.training
        rows, size = self.rows.kept, training.global_batch_size
        batches = Batches(
            rows=rows,
            steps=global_batches(len(rows), size=size, epochs=training.epochs, seed=training.seed),
            first_epoch=-(-len(rows) // size),
            world=ranks.world_size(),
            normalization=training.nll_normalization,
            compares=self.objective.compares,
        )
        if layout == "packed":
            return packed(batches, budget=training.tokens_per_device)
        return padded(batches, micro=micro)

    def dpo_config(self, plan: Plan) -> DPOConfig:
        """Return TRL's settings for a plan; making them starts the process group."""
        training = self.job.training
        folder = self.job.scratch / "trainer"
        args = config.dpo_config(training, folder=folder, model=self.config, plan=plan)
        size, world = self.skeleton.parameters, plan.batches.world
        args.gradient_checkpointing = ranks.any_of(
            recomputes(training, self.config, tokens=plan.largest, parameters=size, world=world)
        )
        return args


def run(
    job: Job, vault: Vault, on_step: OnStep | None = None, *, clock: Clock = time.monotonic
) -> Report:
    """Train and write the model folder; raise InputError when no pair is short enough.

    `clock` is what checkpoints by time go by.
    """
    started = time.monotonic()
    ranks.free_memory()
    trackers.check(job.training.report_to)
    ranks.describe_single_rank()
    ranks.use_plain_collectives()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    ranks.connect_cpus(config.COLLECTIVE_SECONDS)
    training = job.training
    setting = _prepare(job)
    trainer = _trainer(setting, vault)
    plan = trainer.work.plan
    referenced = time.monotonic()
    if trainer.work.references is None and ranks.is_first():
        found = checkpoints.reference_rows(setting.rows.kept, trainer.references)
        vault.save_reference(found, plan.layout)
    label = config.label(training, plan)
    checkpoint = _checkpoint(vault, label)
    with checkpoints.Checkpoints(
        vault,
        pace=Pace(training.checkpoint_steps, clock),
        label=label,
        on_step=on_step,
        resumed=checkpoint,
    ) as kept:
        trainer.add_callback(kept)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trained = time.monotonic()
        report = _report(setting, trainer)
        shares = _write(setting, trainer, report)
    trainer.release()
    seconds = {
        "reference": referenced - started,
        "train": trained - referenced,
        "save": time.monotonic() - trained,
    }
    return report.model_copy(update={"measures": report.measures | shares, "seconds": seconds})


def _prepare(job: Job) -> _Setting:
    pairs = row_files.rows(row_files.Pair, job.pairs.read_bytes())
    renderer = Renderer(job.model, job.chat)
    rows = tokenize(pairs, renderer, max_length=job.training.max_length)
    if not pairs:
        raise InputError(NO_PAIRS)
    if not rows.kept:
        msg = (
            f"expected pairs of at most training.maxLength {job.training.max_length} tokens, "
            f"found none among {len(pairs)}; raise it or look at the pairs"
        )
        raise InputError(msg)
    return _Setting(
        job=job,
        config=json.loads((job.model / "config.json").read_text()),
        skeleton=skeleton_of(str(job.model)),
        objective=objective.BY_NAME[job.objective].of(job.training),
        pairs=len(pairs),
        rows=rows,
        renderer=renderer,
    )


def _trainer(setting: _Setting, vault: Vault) -> PairTrainer:
    """Return the trainer, its references computed: packed where it may, else padded."""
    job, training = setting.job, setting.job.training
    layout: Layout = "padded"
    if training.layout != "padded" and packable(setting.config):
        layout = "packed"
    plan = setting.plan(layout, micro=training.micro_batch_size)
    args = setting.dpo_config(plan)
    if training.zero_stage:
        ranks.connect_deepspeed()
    if ranks.from_first(lambda: job.output.is_dir() and any(job.output.iterdir())):
        msg = f"expected an empty output folder, found files in {job.output.name}"
        raise InputError(msg)
    references = _references(vault, setting.rows.kept) if setting.objective.compares else {}
    known = ranks.from_first(vault.reference_layout) if references else None
    if layout == "packed" and known != "padded":
        most_apart = None if known else MOST_APART[training.precision]
        trainer = _try(setting, args, plan, references, most_apart)
        if not trainer.refused:
            return trainer
        log.warning(
            "expected equal log-probabilities of the packed and the padded layout, found others "
            "with this model's attention; training goes on padded, one pair at a time"
        )
        trainer.release()
        del trainer
        ranks.free_memory()
    if layout == "packed":
        # microBatchSize is not in the key of a packed run, so its fall-back must not read it.
        plan = setting.plan("padded", micro=1)
        args = setting.dpo_config(plan)
    return _try(setting, args, plan, references, None)


def _try(
    setting: _Setting,
    args: DPOConfig,
    plan: Plan,
    references: References | None,
    most_apart: float | None,
) -> PairTrainer:
    work = Work(
        plan=plan,
        most_apart=most_apart,
        references=references,
        buffers=setting.skeleton.buffers,
    )
    return PairTrainer(
        str(setting.job.model),
        args=args,
        work=work,
        objective=setting.objective,
        lora=config.lora_config(setting.job.training),
    )


def _references(vault: Vault, rows: tuple[TokenRow, ...]) -> References | None:
    """Return the stored log-probabilities on every rank, None where some are missing."""
    return ranks.from_first(lambda: checkpoints.known_references(vault, rows))


def _checkpoint(vault: Vault, label: str) -> Path | None:
    """Return this machine's folder of the checkpoint that all ranks go on from, if any."""
    step = ranks.from_first(lambda: checkpoints.resumable(vault, label))
    if step is None:
        return None
    return ranks.from_each_node(lambda: vault.fetch_checkpoint(step))[ranks.node()]


def _report(setting: _Setting, trainer: PairTrainer) -> Report:
    history = _history(trainer)
    seconds = sum(row["seconds"] for row in history)
    return Report(
        counts={
            "pairs": setting.pairs,
            "trained": len(setting.rows.kept),
            "steps": len(history),
        },
        drops=setting.rows.drops,
        measures={
            "firstLoss": history[0]["loss"],
            "lastLoss": history[-1]["loss"],
            "trainLoss": sum(row["loss"] for row in history) / len(history),
            **(_rewards(history[-1]) if setting.objective.compares else {}),
            "tokensPerSecond": sum(row["tokens"] for row in history) / seconds,
            "usefulTokens": trainer.work.plan.useful,
        },
        seconds={},
        layout=trainer.work.plan.layout,
    )


def _rewards(step: dict[str, float]) -> dict[str, float]:
    return {"rewardAccuracy": step["rewards/accuracies"], "rewardMargin": step["rewards/margins"]}


def _history(trainer: PairTrainer) -> list[dict[str, float]]:
    """Return one row a step, those before a resumption included."""
    return [row for row in trainer.state.log_history if "loss" in row]


def _write(setting: _Setting, trainer: PairTrainer, report: Report) -> dict[str, float]:
    """Write the model folder on the first rank; return the shares of changed weights."""
    weights = masters(trainer.policy)
    shares = {}
    # From here on from_pretrained means whole weights, not ZeRO-3 parts: for the first rank now,
    # for all when another training follows in this process.
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    if not ranks.is_first():
        deque(weights, maxlen=0)  # gathers are collective
    else:
        shares = _write_model(setting, weights).shares()
        _write_beside(setting, trainer, report)
        open_to_readers(setting.job.output)
    ranks.meet()
    return shares


def _write_model(setting: _Setting, weights: Masters) -> Changed:
    job, training = setting.job, setting.job.training
    target = Target(
        folder=job.output,
        dtype=config.DTYPES[training.save_dtype],
        end_of_turn_ids=setting.renderer.end_of_turn_ids,
    )
    job.output.mkdir(parents=True, exist_ok=True)
    lora = config.lora_config(training)
    if lora is not None:
        return save_merged(job.model, weights, lora=lora, target=target)
    compute = config.compute_dtype(training) if training.zero_stage else torch.float32
    return save_full(job.model, weights, start_dtype=compute, target=target)


def _write_beside(setting: _Setting, trainer: PairTrainer, report: Report) -> None:
    job = setting.job
    copy_tokenizer(job.model, job.output, template=job.chat.template)
    columns = _columns(setting.objective)
    lines = [json.dumps({name: row[name] for name in columns}) for row in _history(trainer)]
    (job.output / METRICS).write_text("".join(f"{line}\n" for line in lines))
    card = model_card(
        job.lineage,
        training=job.training,
        counts=report.counts,
        drops=report.drops,
        objective=job.objective,
    )
    (job.output / "README.md").write_text(card)


def _columns(objective: Objective) -> tuple[str, ...]:
    """Return the columns of metrics.jsonl, one line a step; sums over all ranks."""
    return (
        *("step", "loss", *objective.measures),
        *("learning_rate", "grad_norm", "seconds", "tokens"),
    )
