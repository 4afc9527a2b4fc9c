"""One machine of a training, and one rank of it, for `test_multinode`.

`python node.py FOLDER PROCESSES` is what a pod does: it launches the ranks with the environment
that an Indexed Job gives. `python node.py FOLDER PROCESSES rank SCRATCH` is one rank.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from selfimprove_pipeline.train.processes import launch
from selfimprove_pipeline.train.processes.nodes import nodes_of


def one_machine(folder: Path, processes: int) -> int:
    """Launch the ranks of this machine, with work files that no other one sees."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        argv = [__file__, str(folder), str(processes), "rank", scratch]
        ended = launch.launch(argv, processes=processes, nodes=nodes_of(os.environ))
    print(ended.line, flush=True)  # noqa: T201  what the test reads
    return ended.code


def one_rank(folder: Path, scratch: Path) -> None:
    """Train and commit as the training worker does."""
    from selfimprove_pipeline.contract.keys import Target  # noqa: PLC0415
    from selfimprove_pipeline.contract.recipe import sources  # noqa: PLC0415  the launcher needs no torch
    from selfimprove_pipeline.contract.recipe.training import Training  # noqa: PLC0415
    from selfimprove_pipeline.run.survey import manifest_of  # noqa: PLC0415
    from selfimprove_pipeline.store.folder import FolderStore  # noqa: PLC0415
    from selfimprove_pipeline.store.repository import Repository, is_model_payload  # noqa: PLC0415
    from selfimprove_pipeline.train import stage  # noqa: PLC0415
    from selfimprove_pipeline.train.processes import ranks  # noqa: PLC0415
    from selfimprove_pipeline.workers.training import StoreVault  # noqa: PLC0415
    from support.training import RECIPE  # noqa: PLC0415

    store = FolderStore(folder / "store")
    repository = Repository(store, bucket="runs", prefix="", cache=scratch / "cache")
    target = Target("train", "", "0" * 32, {}, {}, {})
    reference = Target("reference", "", "0" * 32, {}, {}, {})
    steps = {"checkpointSteps": 2, "globalBatchSize": 8, "zeroStage": 2}
    job = stage.Job(
        model=folder / "M0",
        pairs=folder / "pairs.jsonl",
        output=scratch / "model",
        scratch=scratch / "trainer",
        training=Training.model_validate({**RECIPE, **steps}),
        chat=sources.Chat(),
    )

    def on_step(step: int, _: int, __: dict[str, float]) -> None:
        with (folder / "steps").open("a") as file:
            file.write(f"{step}\n")
        # The checkpoint of step 4 is about to be saved, and has waited for that of step 2.
        while step == 4 and (folder / "held").exists():
            time.sleep(0.05)

    report = stage.run(job, StoreVault(repository, target, reference, scratch), on_step=on_step)
    if ranks.is_first():
        manifest = manifest_of(target, counts=report.counts)
        repository.commit_folder(manifest, job.output, is_payload=is_model_payload)


if __name__ == "__main__":
    if "rank" in sys.argv:
        with launch.worker():
            one_rank(Path(sys.argv[1]), Path(sys.argv[4]))
    else:
        sys.exit(one_machine(Path(sys.argv[1]), int(sys.argv[2])))
