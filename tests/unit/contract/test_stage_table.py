"""The table of stages, and what is derived from it."""

from typing import get_args

from selfimprove_operator.launches import units
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.stages import MEASURING, TABLE, WORKERS, Worker


def test_every_stage_has_one_row_but_the_pass_inside_of_training() -> None:
    """A stage that is forgotten here would never run."""
    names = [info.name for info in TABLE]
    assert sorted(names) == sorted({*get_args(Stage)} - {"reference"})


def test_workers_share_the_stages_and_the_judge_is_asked_when_the_engine_has_ended() -> None:
    """The engine holds all of the GPU's memory while answers wait for a judge."""
    assert WORKERS["inference"] == ("evaluate", "gate", "generate", "translate", "judge")
    assert WORKERS["light"] == ("pair", "score")
    assert WORKERS["training"] == ("train",)
    assert tuple(WORKERS) == get_args(Worker)


def test_the_last_model_is_only_measured() -> None:
    """On a cluster too: its unit has the same stages."""
    assert MEASURING == ("evaluate", "gate", "judge")
    assert units.STAGES["evaluate"] == MEASURING


def test_units_that_are_one_stage_each_cover_all_that_the_fused_ones_do() -> None:
    """A run may have `stagePods: Separate`."""
    fused = [stage for name in units.FUSED for stage in units.STAGES[name]]
    separate = [stage for name in units.SEPARATE for stage in units.STAGES[name]]
    assert sorted(fused) == sorted(separate)
