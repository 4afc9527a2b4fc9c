"""Rows dealt out to several pods meet in the store, and the artifact is that of one pod."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.rows import Answer, Prompt
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.run.shards import WHOLE, Share, share_of
from selfimprove_pipeline.store import Entry
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers.tasks import Made, Rows, Task, as_they_are, collect
from selfimprove_pipeline.workers.tasks.collect import Collector, Progress
from selfimprove_pipeline.workers.tasks.wanted import Wanted, ready

IDS = [f"p{number}" for number in range(40)]
TARGET = Target("generate", "en", "0" * 32, {}, {}, {})


@dataclass
class Echo:
    """A completer that answers with the key, after a gate has opened."""

    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    start_seconds: float = 0.0

    @property
    def versions(self) -> Mapping[str, str]:
        return {}

    def complete(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            assert self.gate.wait(60)
            self.asked.append(request.key.partition("/")[2])
            yield Completion(
                key=request.key,
                text=f"answer to {self.asked[-1]}",
                finish_reason="stop",
                prompt_tokens=1,
                completion_tokens=1,
            )

    def close(self) -> None:
        """Hold nothing."""


def task() -> Task[Answer]:
    def pending(done: Rows[Answer], share: Share) -> Iterator[Wanted]:
        for name in IDS:
            if name not in done and share.owns(name):
                request = Request(key=name, group="", prompt=(1,), max_tokens=1)
                yield from ready([request])

    def row(completion: Completion, _: Rows[Answer]) -> Answer:
        return Answer(
            id=completion.key,
            language="en",
            completion=completion.text,
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1,
        )

    def make(made: Sequence[Answer]) -> Made:
        return as_they_are("en.jsonl", made, {})

    return Task(target=TARGET, kind=Answer, order=IDS, pending=pending, row=row, make=make)


def repository(folder: Path) -> Repository:
    return Repository(FolderStore(folder), bucket="runs", prefix="", cache=folder / "cache")


@dataclass
class Pod:
    """One of several pods at work in a thread of its own."""

    folder: Path
    share: Share
    engine: Echo = field(default_factory=Echo)
    totals: set[int] = field(default_factory=set)
    made: list[Manifest] = field(default_factory=list)

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        def on_progress(progress: Progress) -> None:
            self.totals.add(progress.total)

        collector = Collector(self.engine, repository(self.folder), on_progress, self.share)
        self.made += collector.collect([task()])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every twentieth of a second: a store on this machine has no price."""
    monkeypatch.setattr(collect, "POLL_SECONDS", 0.05)


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("parts/**/*.jsonl"))


def alone(folder: Path) -> Manifest:
    """Return what one pod makes."""
    one = Pod(folder, WHOLE)
    one.engine.gate.set()
    one.start().join(60)
    return one.made[0]


def test_two_pods_make_the_artifact_of_one(tmp_path: Path) -> None:
    """Each asks for its own rows alone; the slower one commits what both have made."""
    pods = [Pod(tmp_path / "both", Share(number, 2)) for number in range(2)]
    threads = [pod.start() for pod in pods]
    for pod, thread in zip(pods, threads, strict=True):
        pod.engine.gate.set()
        if pod is pods[0]:
            while not parts(tmp_path / "both"):
                thread.join(0.05)
            assert thread.is_alive()
    for thread in threads:
        thread.join(60)

    asked = [set(pod.engine.asked) for pod in pods]
    assert asked[0] | asked[1] == set(IDS)
    assert not asked[0] & asked[1]
    assert all(asked)
    assert [pod.totals for pod in pods] == [{len(found)} for found in asked]
    expected = alone(tmp_path / "one")
    assert [pod.made[0].digest for pod in pods] == [expected.digest] * 2
    assert parts(tmp_path / "both") == []


def test_rows_of_another_number_of_pods_are_kept(tmp_path: Path) -> None:
    """A launch with other shards goes on with all rows that are there."""
    first = Pod(tmp_path, Share(0, 3))
    first.engine.gate.set()
    first.start()
    while not parts(tmp_path):
        threading.Event().wait(0.01)
    kept = repository(tmp_path).parts("generate", TARGET.key, "rows", Answer)
    whole = Pod(tmp_path, WHOLE)
    whole.engine.gate.set()
    whole.start().join(60)

    assert {row.id for row in kept} == {name for name in IDS if Share(0, 3).owns(name)}
    assert len(whole.engine.asked) == len(IDS) - len(kept)
    assert whole.made[0].digest == alone(tmp_path / "one").digest


class Late(FolderStore):
    """A folder as a pod sees it that has listed it before another one wrote."""

    @override
    def entries(self, prefix: str) -> tuple[Entry, ...]:
        return ()


def test_parts_of_two_writers_do_not_replace_each_other(tmp_path: Path) -> None:
    """Both may see the same last part and choose the same number."""
    for writer in ("0", "1"):
        late = Repository(Late(tmp_path), bucket="runs", prefix="", cache=tmp_path / "cache")
        late.append_part("generate", "k", "rows", [Prompt(id=f"of {writer}", prompt="?")])
    found = repository(tmp_path).parts("generate", "k", "rows", Prompt)
    assert {row.id for row in found} == {"of 0", "of 1"}


def test_a_later_row_of_an_id_counts_whoever_wrote_it(tmp_path: Path) -> None:
    """Launches with other numbers of pods follow each other; their parts keep that order."""
    for text in ("first", "second", "third"):
        kept = repository(tmp_path)
        for _ in range(2):
            kept.append_part("generate", "k", "rows", [Prompt(id="p", prompt=text)])
    found = repository(tmp_path).parts("generate", "k", "rows", Prompt)[1::2]
    assert [row.prompt for row in found] == ["first", "second", "third"]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_row_is_one_pods(count: int) -> None:
    """And the pods' shares are of like size."""
    shares = [Share(number, count) for number in range(count)]
    owned = [sum(share.owns(f"row {n}") for n in range(7000)) for share in shares]
    assert sum(owned) == 7000
    assert max(owned) - min(owned) < 7000 / count * 0.2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, WHOLE, id="no Indexed Job"),
        pytest.param({"JOB_COMPLETION_INDEX": "3"}, WHOLE, id="machines of a training"),
        pytest.param(
            {"SELFIMPROVE_SHARDS": "4", "JOB_COMPLETION_INDEX": "3"}, Share(3, 4), id="one of four"
        ),
    ],
)
def test_the_share_is_told_by_the_environment(environment: dict[str, str], expected: Share) -> None:
    """As an Indexed Job sets it."""
    assert share_of(environment) == expected


@pytest.mark.parametrize("number", ["4", None])
def test_a_share_that_is_none_of_them_is_refused(number: str | None) -> None:
    """Its rows would be nobody's."""
    environment = {"SELFIMPROVE_SHARDS": "4"} | ({"JOB_COMPLETION_INDEX": number} if number else {})
    with pytest.raises(InputError, match="expected 0 to 3 with SELFIMPROVE_SHARDS=4"):
        share_of(environment)
