"""Units: the order of a run's work, with and without suites, fused, separate, and grown."""

from typing import Any

import pytest

from selfimprove_operator.api.status import UnitName
from selfimprove_operator.launches import units
from selfimprove_pipeline.contract.recipe import Spec
from support import runs

SUITES: dict[str, Any] = {"suites": [{"name": "exactMatch", "uri": "s3://suites/exact"}]}


def walk(spec: Spec) -> list[tuple[int, str]]:
    """Return iteration and unit from the first to the last."""
    position: tuple[int, units.Unit] | None = (0, units.first(spec))
    walked: list[tuple[int, str]] = []
    while position:
        iteration, unit = position
        walked.append((iteration, unit.name))
        position = units.following(spec, iteration, unit.name)
    return walked


def test_a_fused_run_goes_from_the_check_to_the_report() -> None:
    """Three units an iteration follow the check; the last model is measured and reported."""
    spec = runs.run(iterations=2, evaluation=SUITES).spec

    assert walk(spec) == [
        (0, "check"),
        (0, "inference"),
        (0, "light"),
        (0, "training"),
        (1, "inference"),
        (1, "light"),
        (1, "training"),
        (2, "evaluate"),
        (2, "report"),
    ]


def test_a_separate_run_gives_each_stage_its_own_unit() -> None:
    """Separate stage pods have one unit a stage, in the order of the table of stages."""
    spec = runs.run(iterations=1, evaluation=SUITES, stagePods="Separate").spec

    assert walk(spec) == [
        (0, "check"),
        (0, "evaluate"),
        (0, "generate"),
        (0, "translate"),
        (0, "pair"),
        (0, "score"),
        (0, "train"),
        (1, "evaluate"),
        (1, "report"),
    ]


@pytest.mark.parametrize("stage_pods", ["Fused", "Separate"])
def test_without_suites_no_pod_measures_anything(stage_pods: str) -> None:
    """No unit evaluates, and the last iteration consists of the report."""
    spec = runs.run(iterations=1, stagePods=stage_pods).spec
    stages = [stage for unit in units.units_of(spec, 0) for stage in unit.stages]

    assert "evaluate" not in stages
    assert [unit.name for unit in units.units_of(spec, 1)] == ["report"]


@pytest.mark.parametrize("stage_pods", ["Fused", "Separate"])
@pytest.mark.parametrize("done", ["evaluate", "report"])
def test_a_run_that_grows_goes_on_with_the_rest_of_its_last_iteration(
    stage_pods: str, done: UnitName
) -> None:
    """After iterations grew, what was the last iteration still generates, pairs and trains."""
    grown = runs.run(iterations=3, evaluation=SUITES, stagePods=stage_pods).spec

    found = units.following(grown, 2, done)

    assert units.unit(done, grown, 2).name == done
    assert found is not None
    iteration, unit = found
    assert iteration == 2
    assert "generate" in unit.stages


def test_deletion_is_in_no_sequence_and_is_found_by_its_name() -> None:
    """Nothing follows delete, and no iteration has it."""
    spec = runs.run().spec

    assert units.following(spec, 0, "delete") is None
    assert units.unit("delete", spec, 1).role == "light"
    assert all(unit.name != "delete" for t in range(3) for unit in units.units_of(spec, t))


@pytest.mark.parametrize(
    ("name", "iteration"),
    [("training", 2), ("check", 1), ("generate", 0)],
    ids=["training of the last model", "a second check", "a stage of its own in a fused run"],
)
def test_a_unit_that_the_iteration_has_not_is_refused(name: UnitName, iteration: int) -> None:
    """A status that names work that the run does not have starts nothing."""
    with pytest.raises(LookupError, match=f"found {name}"):
        units.unit(name, runs.run(iterations=2).spec, iteration)


@pytest.mark.parametrize(
    ("name", "role", "worker", "is_part"),
    [
        ("check", "light", "check", False),
        ("inference", "inference", "inference", False),
        ("light", "light", "light", False),
        ("training", "training", "training", False),
        ("evaluate", "inference", "inference", True),
        ("generate", "inference", "inference", True),
        ("translate", "inference", "inference", True),
        ("pair", "light", "light", True),
        ("score", "light", "light", True),
        ("train", "training", "training", True),
        ("report", "light", "report", False),
        ("delete", "light", "delete", False),
    ],
)
def test_each_unit_has_its_role_and_worker(
    name: UnitName, role: str, worker: str, is_part: bool
) -> None:
    """A unit runs in the image of its stages, as a worker that may do a part of its stages."""
    stage_pods = "Fused" if name in units.FUSED else "Separate"
    spec = runs.run(evaluation=SUITES, stagePods=stage_pods).spec

    unit = units.unit(name, spec, 0)

    assert (unit.role, unit.worker, unit.is_part) == (role, worker, is_part)


@pytest.mark.parametrize("stage_pods", ["Fused", "Separate"])
def test_the_judge_is_asked_in_the_launch_that_evaluates(stage_pods: str) -> None:
    """Of the last model too; a run without judged suites has no such stage."""
    judged = {
        "suites": [{"name": "headToHead", "uri": "s3://suites/questions"}],
        "judge": {"baseUrl": "http://judge/v1", "model": "judge"},
    }
    spec = runs.run(iterations=1, evaluation=judged, stagePods=stage_pods).spec
    plain = runs.run(iterations=1, evaluation=SUITES, stagePods=stage_pods).spec

    found = [unit for t in (0, 1) for unit in units.units_of(spec, t) if "judge" in unit.stages]
    assert all("evaluate" in unit.stages for unit in found)
    assert [unit.name for unit in found] == [
        "inference" if stage_pods == "Fused" else "evaluate",
        "evaluate",
    ]
    assert all("judge" not in unit.stages for unit in units.units_of(plain, 0))
    shown = [name for unit in units.units_of(spec, 0) for name in unit.stages or (unit.name,)]
    assert len(shown) <= 12, "the status has room for no more stages of an iteration"
