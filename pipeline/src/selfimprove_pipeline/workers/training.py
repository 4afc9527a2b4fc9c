"""Train: pairs and M_t become M_(t+1), on as many ranks as there are devices.

The baseline `sft` comes after M_1 in the same processes.

`work` runs on every rank. Rank 0 alone writes to the store: reference log-probabilities while
it trains, the model at the end. Of checkpoints the first rank of each machine writes its part.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.manifests import File, Manifest
from selfimprove_pipeline.contract.rows import Pair, ReferenceLogps, lines
from selfimprove_pipeline.measuring import gates
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import manifest_of, manifests_of, survey
from selfimprove_pipeline.store.checkpoints import Checkpoints
from selfimprove_pipeline.store.repository import Repository, is_model_payload
from selfimprove_pipeline.train.data.rows import NO_PAIRS
from selfimprove_pipeline.train.loop import trackers
from selfimprove_pipeline.train.model.layout import Layout
from selfimprove_pipeline.workers.pairing import PAIRS
from selfimprove_pipeline.workers.tasks.collect import OnProgress, Progress

REFERENCE: Final = "logps.jsonl"
LAYOUT: Final = "layout"


@dataclass(frozen=True)
class StoreVault:
    """What a training keeps in the store while it runs (`train.Vault`)."""

    repository: Repository
    target: Target
    reference: Target
    scratch: Path

    def load_reference(self) -> tuple[ReferenceLogps, ...] | None:
        """Return the reference log-probabilities, None before they are computed."""
        manifest = self.repository.manifest("reference", self.reference.key)
        return None if manifest is None else self.repository.rows(manifest, ReferenceLogps)

    def save_reference(self, rows: Sequence[ReferenceLogps], layout: Layout) -> None:
        """Keep the reference log-probabilities as an artifact of their own.

        The layout stands beside its versions: it is outside its digest, as it is outside its key.
        """
        manifest = manifest_of(self.reference, rows=len(rows), versions={LAYOUT: layout})
        self.repository.commit(manifest, {REFERENCE: lines(rows)})

    def reference_layout(self) -> Layout | None:
        """Return the layout of the passes that made them, None where it is not known."""
        manifest = self.repository.manifest("reference", self.reference.key)
        found = None if manifest is None else manifest.versions.get(LAYOUT)
        return next((layout for layout in get_args(Layout) if layout == found), None)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints beside the artifact that they will become."""
        return self.repository.checkpoints(self.target.stage, self.target.key)

    def latest_checkpoint(self) -> tuple[int, str] | None:
        """Return step and label of the newest whole checkpoint, None when there is none."""
        found = self.checkpoints.latest()
        return None if found is None else (found.step, found.label)

    def fetch_checkpoint(self, step: int) -> Path:
        """Return a folder of this machine with a checkpoint's files."""
        folder = self.scratch / "resumed" / f"checkpoint-{step}"
        self.checkpoints.fetch(step, folder)
        return folder

    def drop_checkpoint(self, step: int) -> None:
        """Make a step count no longer before its files are replaced."""
        self.checkpoints.drop(step)

    def upload_checkpoint(self, step: int, folder: Path) -> tuple[File, ...]:
        """Upload this machine's files of a step."""
        return self.checkpoints.upload(step, folder)

    def finish_checkpoint(self, step: int, label: str, files: tuple[File, ...]) -> None:
        """Make a step count with the files of all machines; earlier ones go."""
        self.checkpoints.finish(step, label, files)


def check(setting: Setting, index: int, model: Model) -> None:
    """Raise InputError, before ranks start, where a training has no pairs or no tracker."""
    trackers.check(setting.spec.training.report_to)
    found = survey(setting.iteration(index, model), setting.repository.manifest)
    pairs = found["pair"].manifests.get("")
    if found["train"].missing and pairs is not None and pairs.rows == 0:
        raise InputError(NO_PAIRS)


def work(
    setting: Setting, index: int, model: Model, scratch: Path, on_progress: OnProgress
) -> None:
    """Train the next model of an iteration and a baseline beside it, unless the store has them."""
    from selfimprove_pipeline.train import stage  # noqa: PLC0415  torch, TRL and DeepSpeed

    iteration = setting.iteration(index, model)
    found = survey(iteration, setting.repository.manifest)
    iteration = gates.applied(iteration, manifests_of(found))
    for target in found["train"].missing:
        own = scratch / (target.part or "next")
        pairs = found["pair"].manifests[""]
        (reference,) = keys.targets("reference", iteration, {("pair", ""): pairs.digest}) or ()
        job = stage.Job(
            model=setting.folder(model),
            pairs=_pairs_file(setting, pairs, own, iteration.left_out),
            output=own / "model",
            scratch=own / "trainer",
            training=setting.spec.training,
            objective="sft" if target.part == keys.SFT else "dpo",
            chat=setting.spec.chat,
            lineage=_lineage(setting, iteration, model, pairs),
        )
        vault = StoreVault(setting.repository, target, reference, own)
        tracked = own / trackers.TENSORBOARD
        with trackers.tensorboard_in(tracked):
            report = stage.run(job, vault, on_step=_on_step(on_progress))
        if _is_first_rank():
            if tracked.exists():
                tracked.rename(job.output / trackers.TENSORBOARD)
            template = Renderer(job.model, job.chat).fingerprint
            versions = {"template": template, LAYOUT: report.layout}
            _commit(setting, target, job.output, report, versions)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            shutil.rmtree(own)  # checkpoints are as large as a model, and another may follow


def _commit(
    setting: Setting, target: Target, folder: Path, report: Any, versions: Mapping[str, str]
) -> None:
    manifest = manifest_of(
        target,
        versions=versions,
        counts=report.counts,
        drops=report.drops,
        measures=report.measures,
        seconds={"wall": sum(report.seconds.values()), **report.seconds},
    )
    setting.repository.commit_folder(manifest, folder, is_payload=is_model_payload)


def _pairs_file(
    setting: Setting, manifest: Manifest, scratch: Path, left_out: Sequence[str]
) -> Path:
    """Write this rank's copy of the pairs that are trained on, digests checked."""
    path = scratch / f"pairs-{os.environ.get('RANK', '0')}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = setting.repository.rows(manifest, Pair, PAIRS)
    path.write_bytes(lines(row for row in rows if row.language not in left_out))
    return path


def _lineage(
    setting: Setting, iteration: keys.Iteration, model: Model, pairs: Manifest
) -> dict[str, Any]:
    """Return what the model card says of where the model comes from."""
    languages = setting.spec.languages.all()
    return {
        "run": setting.run.metadata.name,
        "iteration": iteration.index + 1,
        "base": setting.spec.model.uri,
        "parent": model.digest,
        "languages": [language for language in languages if language not in iteration.left_out],
        "profile": setting.spec.profile,
        "pairs": pairs.digest,
        "leftOut": ", ".join(iteration.left_out) or None,
    }


def _on_step(on_progress: OnProgress) -> Any:
    progress = Progress(stage="train", total=0)

    def report(step: int, total: int, measures: dict[str, float]) -> None:
        progress.done, progress.total = step, total
        progress.completion_tokens += int(measures.get("tokens", 0))
        on_progress(progress)

    return report


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"
