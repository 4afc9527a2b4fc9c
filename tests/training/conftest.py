"""All trainings of this folder run once, in one process that imports TRL once."""

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from filelock import FileLock

from selfimprove_pipeline.contract.rows import Pair, ReferenceLogps
from support.training import (
    SAMPLING,
    FolderVault,
    Training,
    some_pairs,
    tied_qwen2,
    train_all,
    write_pairs,
)

EXACT = {"checkpointSteps": 1}
NEVER = 1_000
"""A step that no training here comes to."""
SHAPES = {
    "micro1-ranks1-sequence": (1, 1, "sequence"),
    "micro2-ranks1-sequence": (2, 1, "sequence"),
    "micro4-ranks1-sequence": (4, 1, "sequence"),
    "micro1-ranks2-sequence": (1, 2, "sequence"),
    "micro4-ranks2-sequence": (4, 2, "sequence"),
    "micro1-ranks1-token": (1, 1, "token"),
    "micro4-ranks1-token": (4, 1, "token"),
    "micro3-ranks2-token": (3, 2, "token"),
}


class World(NamedTuple):
    """The trainings, what became of them, and what they were made from."""

    trainings: Mapping[str, Training]
    results: Mapping[str, Mapping[str, Any]]
    model: Path
    pairs: Mapping[str, tuple[Pair, ...]]


class Plan:
    """Collects trainings on one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = tied_qwen2(folder / "M0")
        (self.model / "generation_config.json").write_text(json.dumps(SAMPLING))
        templates = self.model / "additional_chat_templates"
        templates.mkdir()
        (templates / "tool_use.jinja").write_text(_TEMPLATE)
        self.pairs = {
            "97": some_pairs(97),
            "40": some_pairs(40, seed=1),
            "7": some_pairs(7, seed=3),
            "0": (),
        }
        self.pairs["flipped"] = tuple(
            pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen})
            for pair in self.pairs["40"]
        )
        self.trainings: dict[str, Training] = {}

    def add(self, name: str, pairs: str, ranks: int = 1, **more: Any) -> None:
        """Add a training; `recipe` holds what differs from `support.training.RECIPE`."""
        self.trainings[name] = Training(
            name=name,
            folder=self.folder / name,
            model=self.model,
            pairs=write_pairs(self.folder / f"{pairs}.jsonl", self.pairs[pairs]),
            ranks=ranks,
            **more,
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Run every training of the tests, once for all workers of xdist: one waits for the other."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _trained(tmp_path_factory.mktemp("training"))
    folder = tmp_path_factory.getbasetemp().parent / "training"  # of this run of the tests alone
    folder.mkdir(exist_ok=True)
    done = folder / "world.pickle"
    with FileLock(folder / "lock"):
        if not done.exists():
            done.write_bytes(pickle.dumps(_trained(folder)))
        found: World = pickle.loads(done.read_bytes())  # noqa: S301  written a moment ago
        return found


def _trained(folder: Path) -> World:
    plan = Plan(folder)
    _add_shapes(plan)
    _add_stored_references(plan)
    _add_methods(plan)
    _add_packing(plan)
    _add_resumptions(plan)
    _add_uploads(plan)
    results = train_all(list(plan.trainings.values()), plan.folder)
    return World(plan.trainings, results, plan.model, plan.pairs)


def _add_shapes(plan: Plan) -> None:
    for name, (micro, ranks, normalization) in SHAPES.items():
        shape = {"layout": "padded", "microBatchSize": micro, "nllNormalization": normalization}
        # Computing activations again must not change anything either.
        again = {"gradientCheckpointing": name == "micro2-ranks1-sequence"}
        plan.add(name, "97", ranks, recipe={**EXACT, **shape, **again})


def _add_stored_references(plan: Plan) -> None:
    for normalization in ("sequence", "token"):
        name = f"hand-{normalization}"
        recipe = {**EXACT, "nllNormalization": normalization, "microBatchSize": 2, "nllWeight": 0.7}
        recipe["epochs"] = 3  # step 2 waits for the checkpoint of step 1
        plan.add(name, "7", recipe=recipe)
        _store_references(plan, name, chosen=-20.0, rejected=-22.0, slope=3.0)


def _store_references(
    plan: Plan, name: str, *, chosen: float, rejected: float, slope: float = 0.0
) -> None:
    FolderVault(plan.folder / name / "vault").save_reference(
        tuple(
            ReferenceLogps(
                id=pair.id,
                language=pair.language,
                partner=pair.partner,
                chosen=chosen - number * slope,
                rejected=rejected,
            )
            for number, pair in enumerate(plan.pairs["7"])
        ),
        "packed",
    )


def _add_methods(plan: Plan) -> None:
    dpo = {"nllWeight": 0.0, "epochs": 2, "learningRate": 3e-3}
    plan.add("dpo", "40", recipe=dpo)
    plan.add("dpo-flipped", "flipped", recipe=dpo)
    tiny = {"precision": "bf16", "learningRate": 5e-7, "epochs": 3, "globalBatchSize": 7}
    for stage in (0, 2, 3):
        plan.add(f"bf16-zero{stage}", "7", recipe={**tiny, "zeroStage": stage})
    for stage in (0, 1, 2, 3):
        recipe = {"zeroStage": stage, "globalBatchSize": 4, "microBatchSize": 1}
        plan.add(f"fp32-zero{stage}", "7", 2, recipe=recipe)
    offload = {"zeroStage": 2, "offload": "optimizer", "globalBatchSize": 4, "microBatchSize": 1}
    plan.add("fp32-offload", "7", 2, recipe=offload)
    lora = {"method": "lora", "learningRate": 1e-2, "globalBatchSize": 4}
    plan.add("lora-zero0", "7", recipe=lora)
    plan.add("lora-zero3", "7", 2, recipe={**lora, "zeroStage": 3, "gradientCheckpointing": True})
    plan.add("sft", "7", recipe={**EXACT, "microBatchSize": 2, "epochs": 3}, objective="sft")
    plan.add("saved-bf16", "7", recipe={"saveDtype": "bfloat16"})
    plan.add("template", "7", chat={"template": _TEMPLATE})
    plan.add("overlong", "7", recipe={"maxLength": 42})
    plan.add("no-pairs", "0")
    plan.add("all-overlong", "7", recipe={"maxLength": 5})
    plan.add("not-finite", "7", recipe={"beta": 2.0})
    _store_references(plan, "not-finite", chosen=3e38, rejected=-3e38)


def _add_packing(plan: Plan) -> None:
    few = {"globalBatchSize": 4}
    plan.add("packed-padded", "7", recipe={**few, "layout": "padded"})
    plan.add("packed-budget", "7", recipe={**few, "tokensPerDevice": 128})
    plan.add("packed-two", "7", 2, recipe=few)
    for stage in (2, 3):
        plan.add(f"packed-zero{stage}", "7", 2, recipe={**few, "zeroStage": stage})
    plan.add("deaf", "7", recipe=few, deaf=True)


def _add_resumptions(plan: Plan) -> None:
    """Kill before the checkpoint of step 4, when that of step 2 is whole, or in its upload."""
    steps = {"checkpointSteps": 2, "globalBatchSize": 8, "lrScheduler": "cosine"}
    for name, ranks, zero in (("one", 1, 0), ("two", 2, 2)):
        recipe = {**steps, "zeroStage": zero}
        vault = plan.folder / f"{name}-killed" / "vault"
        plan.add(f"{name}-whole", "40", ranks, recipe=recipe)
        killed: dict[str, Any] = (
            {"kill_at": 5, "uploads": {4: NEVER}} if ranks > 1 else {"kill_at": 4}
        )
        plan.add(f"{name}-killed", "40", ranks, recipe=recipe, **killed)
        plan.add(f"{name}-resumed", "40", ranks, recipe=recipe, vault=vault)
    baseline = {**steps, "zeroStage": 3}
    again = plan.folder / "sft-killed" / "vault"
    plan.add("sft-whole", "40", 2, recipe=baseline, objective="sft")
    plan.add("sft-after", "40", 2, recipe=baseline, objective="sft", after=True)
    plan.add("sft-killed", "40", 2, recipe=baseline, objective="sft", after=True, kill_at=4)
    plan.add("sft-resumed", "40", 2, recipe=baseline, objective="sft", vault=again)
    plan.add("refused", "40", 1, recipe={**steps, "zeroStage": 2}, vault=vault)


def _add_uploads(plan: Plan) -> None:
    steps = {"checkpointSteps": 5, "globalBatchSize": 8}
    plan.add("slow", "97", recipe=steps, uploads={5: 9})
    plan.add("by-time", "40", 2, recipe={"globalBatchSize": 8, "zeroStage": 2}, clock=(400, 7200))
    each = {"checkpointSteps": 1, "globalBatchSize": 8}
    plan.add("again", "40", 2, recipe=each, machines=True, uploads={2: "again"})
    plan.add("broken", "40", recipe=each, uploads={2: "broken"})


_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
