"""A pool deals requests to processes, believes none of them, and leaves none behind."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from selfimprove_pipeline.contract.errors import InputError, SelfImproveError, TryAgainError
from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.engine import Completion, Request, pool
from selfimprove_pipeline.engine.pool.jobs import Job
from support import echo_engine
from support.echo_engine import GATE, NAME, START, WINDOW

JOB = Job(
    engine="echo",
    model=Path("model"),
    inference=Inference(),
    dtype="auto",
    stop_token_ids=(),
)


@contextmanager
def started(*environments: dict[str, str]) -> Iterator[pool.EnginePool]:
    """Give a pool of engines that answer with their names."""
    named = [{NAME: str(place), **one} for place, one in enumerate(environments)]
    before = set(psutil.Process().children())
    engines = pool.start(JOB, named, command=echo_engine.COMMAND)
    own = set(psutil.Process().children()) - before
    assert len(own) == len(environments)
    try:
        yield engines
    finally:
        engines.close()
    assert not any(process.is_running() for process in own)


def request(row: int, order: str = "") -> Request:
    return Request(key=f"row {row}", group=order, prompt=(row,), max_tokens=1)


def makers(completions: list[Completion]) -> Counter[str]:
    """Return how many rows each engine has completed."""
    return Counter(completion.text.partition(":")[0] for completion in completions)


@pytest.fixture(scope="module")
def two() -> Iterator[pool.EnginePool]:
    """Start two engines that obey nothing."""
    with started({}, {}) as engines:
        yield engines


def test_every_row_is_completed_once_under_its_own_key(two: pool.EnginePool) -> None:
    """By whichever engine; the pool tells what its engines say of themselves."""
    found = list(two.complete(request(row) for row in range(50)))
    assert {row.key: row.text.partition(":")[2] for row in found} == {
        f"row {row}": str(row) for row in range(50)
    }
    assert len(found) == 50
    assert set(makers(found)) == {"0", "1"}
    assert (two.engines, two.max_model_len) == (2, 100)
    assert (two.start_seconds, two.versions) == (1.5, {"echo": "1"})
    assert not two.has_fixed_batches


def test_fewer_requests_than_engines_are_spread() -> None:
    """Each goes to an engine that has none; the last engine stays idle, and no one waits."""
    with started({}, {}, {}) as engines:
        assert makers(list(engines.complete([request(0), request(1)]))) == {"0": 1, "1": 1}
        assert list(engines.complete([])) == []


def test_requests_are_taken_only_as_engines_have_room(two: pool.EnginePool) -> None:
    """At no time are more taken than completed, plus what keeps the engines busy."""
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for taken in range(1, 41):
            yield request(taken)

    for completed, _ in enumerate(two.complete(requests())):
        assert taken <= completed + 2 * WINDOW
    assert taken == 40


def test_options_of_one_text_go_to_one_engine(two: pool.EnginePool) -> None:
    """It reads the text once for all of them; other texts go to the other engine as well."""
    asked = [
        Request(key=f"{text}/{token}", group="", prompt=(text, 7, token), max_tokens=1, scored=1)
        for text in range(12)
        for token in range(3)
    ]
    found = list(two.complete(asked))
    assert len(found) == len(asked)
    told = {(row.key.partition("/")[0], row.text.partition(":")[0]) for row in found}
    assert len(told) == 12
    assert {name for _, name in told} == {"0", "1"}


def test_a_fast_engine_takes_what_a_slow_one_has_no_room_for(tmp_path: Path) -> None:
    """The slow one holds its window and no more, until it goes on."""
    gate = tmp_path / "gate"
    with started({GATE: str(gate)}, {}) as engines:
        completions = engines.complete(request(row) for row in range(40))
        first = [next(completions) for _ in range(40 - WINDOW)]
        assert makers(first) == {"1": 40 - WINDOW}
        gate.touch()
        assert makers(list(completions)) == {"0": WINDOW}


def test_a_request_may_follow_from_a_completion(two: pool.EnginePool) -> None:
    """The giver has none until then, and is asked again when it has seen one."""
    done: set[str] = set()

    def requests() -> Iterator[Request | None]:
        for row in range(6):
            while row and f"row {row - 1}" not in done:
                yield None
            yield request(row)

    for completion in two.complete(requests()):
        done.add(completion.key)
    assert len(done) == 6
    with pytest.raises(RuntimeError, match="none is under way"):
        list(two.complete([None]))


def test_an_abandoned_call_disturbs_no_later_one(tmp_path: Path) -> None:
    """Its rows are given up by the engines, and none of them turns up under another's key."""
    gate = tmp_path / "gate"
    with started({GATE: str(gate)}, {}) as engines:
        abandoned = engines.complete(request(row) for row in range(20))
        next(abandoned)
        abandoned.close()  # type: ignore[attr-defined]  # it is a generator
        gate.touch()
        found = list(engines.complete(request(row) for row in range(100, 120)))
    assert sorted(row.text.partition(":")[2] for row in found) == [
        str(row) for row in range(100, 120)
    ]


@pytest.mark.parametrize(
    ("order", "kind", "expected"),
    [
        ("refuses", InputError, "inference.extraArgs: expected others, found these; change them"),
        ("breaks", SelfImproveError, "an engine failed, its log has more: RuntimeError: a defect"),
        ("is killed", TryAgainError, "found it killed, most likely for lack of memory"),
        ("writes nonsense", SelfImproveError, "expected a message of an engine, found"),
        ("ends", SelfImproveError, "ended with exit code 3; its log has more"),
    ],
)
def test_the_end_of_an_engine_is_one_line(
    order: str, kind: type[SelfImproveError], expected: str
) -> None:
    """Of the class that it had in its own process; the others end with it."""
    before = set(psutil.Process().children())
    requests = [request(0), request(1, order), *map(request, range(2, 90))]

    def work() -> None:
        with started({}, {}) as engines:
            list(engines.complete(requests))

    with pytest.raises(SelfImproveError, match=expected) as raised:
        work()
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert set(psutil.Process().children()) == before


@pytest.mark.parametrize(
    ("order", "kind", "expected"),
    [
        (echo_engine.REFUSES, InputError, "inference.extraArgs: expected others, found these;"),
        (echo_engine.IS_KILLED, TryAgainError, "engine 1: .* found it killed, most likely for"),
    ],
)
def test_an_engine_that_does_not_start_ends_the_others(
    order: str, kind: type[SelfImproveError], expected: str
) -> None:
    """Whichever is ready by then."""
    before = set(psutil.Process().children())
    with pytest.raises(kind, match=expected):
        pool.start(JOB, [{}, {START: order}], command=echo_engine.COMMAND)
    assert set(psutil.Process().children()) == before


def test_rows_that_are_done_come_before_the_end_of_an_engine() -> None:
    """What was completed is kept; what the other engine still had is for another start."""
    with started({}) as engines:
        completions = engines.complete([request(0), request(1), request(2, "is killed")])
        assert [next(completions).key for _ in range(2)] == ["row 0", "row 1"]
        with pytest.raises(TryAgainError):
            next(completions)


def test_engines_of_other_versions_are_no_pool() -> None:
    """Whose output a row is would be chance: no manifest could name its versions."""
    with pytest.raises(SelfImproveError, match="expected equal engines in one pool, found"):
        pool.start(JOB, [{}, {START: echo_engine.IS_OTHER}], command=echo_engine.COMMAND)


PARENT = """
import sys
from pathlib import Path
from selfimprove_pipeline.engine import pool
from selfimprove_pipeline.engine.pool.jobs import Job
from selfimprove_pipeline.contract.recipe.sampling import Inference

job = Job(engine="", model=Path(), inference=Inference(), dtype="auto", stop_token_ids=())
pool.start(job, [{}, {}], command=(sys.executable, sys.argv[1]))
print("started", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux alone")
def test_engines_die_with_a_killed_worker() -> None:
    """After kill -9 nothing of the pool is left."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, echo_engine.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, GATE: "/nowhere"},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        engines = psutil.Process(parent.pid).children(recursive=True)
        assert len(engines) == 2
        parent.kill()
    _, alive = psutil.wait_procs(engines, timeout=60)
    assert alive == []
