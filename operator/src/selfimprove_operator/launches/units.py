"""Units of work: what one launch does, and the order of a run's units.

`check` comes first, once. Each iteration then has the units inference, light and training
(`Fused`), or one unit per stage (`Separate`). The last model is only evaluated and reported.
`iterations` may grow while a run is in progress: after `evaluate` or `report` of what was the last
iteration come its other units. That is why its evaluation is a unit with a name of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from selfimprove_operator.api.status import Role, UnitName
from selfimprove_pipeline.contract.keys import grades_pairs, is_gated
from selfimprove_pipeline.contract.recipe import Spec, Stage
from selfimprove_pipeline.contract.stages import MEASURING, ROWS, TABLE, WORKERS, Server

MEASURE: Final = "evaluate"

STAGES: Final[Mapping[UnitName, tuple[Stage, ...]]] = {
    "check": (),
    "inference": WORKERS["inference"],
    "light": WORKERS["light"],
    "training": WORKERS["training"],
    MEASURE: MEASURING,
    "generate": ("generate",),
    "translate": ("translate",),
    "pair": ("pair",),
    "score": ("score",),
    "train": ("train",),
    "report": (),
    "delete": (),
}
FUSED: Final[tuple[UnitName, ...]] = tuple(WORKERS)
SEPARATE: Final[tuple[UnitName, ...]] = (
    "evaluate",
    "generate",
    "translate",
    "pair",
    "score",
    "train",
)
LAST: Final[tuple[UnitName, ...]] = ("evaluate", "report")
LATER: Final[frozenset[UnitName]] = frozenset({*LAST, "delete"})
"""Units that a status may name although iterations before the last do not have them."""


@dataclass(frozen=True)
class Unit:
    """What one launch does."""

    name: UnitName
    role: Role
    """role whose image and pod settings it uses."""
    stages: tuple[Stage, ...]
    """stages that it runs, in this order; none for `check`, `report` and `delete`."""
    asks: frozenset[Server] = frozenset()
    """asks these servers outside the cluster, so its pods need their credentials."""

    @property
    def has_numbers(self) -> bool:
        """Whether the log of its first pod ends with numbers by language."""
        return any(ROWS[stage].has_numbers for stage in self.stages)

    @property
    def worker(self) -> str:
        """The argument of `selfimprove worker`."""
        return self.role if self.stages else self.name

    @property
    def is_part(self) -> bool:
        """Whether it runs only some of its worker's stages."""
        return self.worker != self.name


def units_of(spec: Spec, iteration: int) -> tuple[Unit, ...]:
    """Return the units of an iteration in order; iteration 0 begins with `check`."""
    if iteration >= spec.iterations:
        names = LAST
    else:
        names = FUSED if spec.stage_pods == "Fused" else SEPARATE
    units = tuple(_unit(name, spec) for name in names)
    wanted = tuple(found for found in units if found.stages or not STAGES[found.name])
    return (_unit("check", spec), *wanted) if iteration == 0 else wanted


def unit(name: UnitName, spec: Spec, iteration: int) -> Unit:
    """Return a unit of an iteration by its name, or one of `LATER`.

    LookupError means that the iteration has no such unit, whatever the status says.
    """
    names = {found.name for found in units_of(spec, iteration)}
    if name not in names | LATER:
        message = f"expected a unit of iteration {iteration} ({', '.join(names)}), found {name}"
        raise LookupError(message)
    return _unit(name, spec)


def first(spec: Spec) -> Unit:
    """Return the first unit of a run, in iteration 0."""
    return units_of(spec, 0)[0]


def following(spec: Spec, iteration: int, unit_name: str) -> tuple[int, Unit] | None:
    """Return iteration and unit after a finished unit, None after the last one."""
    if unit_name == "delete":
        return None
    units = units_of(spec, iteration)
    names: list[str] = [found.name for found in units]
    if unit_name not in names:  # it evaluated or reported what was the last model then
        return iteration, next(found for found in units if found.name != MEASURE)
    rest = units[names.index(unit_name) + 1 :]
    if rest:
        return iteration, rest[0]
    if iteration >= spec.iterations:
        return None
    return iteration + 1, units_of(spec, iteration + 1)[0]


def _unit(name: UnitName, spec: Spec) -> Unit:
    """Return a unit without stages that have nothing to do in this run."""
    suites = spec.evaluation.suites
    idle: set[Stage] = set()
    idle |= set() if is_gated(spec) else {"gate"}
    idle |= set() if suites else {"evaluate"}
    idle |= set() if any(suite.is_judged for suite in suites) else {"judge"}
    stages = tuple(stage for stage in STAGES[name] if stage not in idle)
    asking = (stage for stage in stages if stage != "score" or grades_pairs(spec))
    role: Role = next((info.worker for info in TABLE if info.name in STAGES[name]), "light")
    asks = frozenset(server for stage in asking if (server := ROWS[stage].asks))
    return Unit(name, role, stages, asks)
