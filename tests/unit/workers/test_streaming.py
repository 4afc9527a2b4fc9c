"""Translations join the stream as answers come, and nothing but the time is another one."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.rows import Ahead, Prompt, Translation, lines
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.method import translate
from selfimprove_pipeline.run.ledger import Ledger
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.run.survey import Survey, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import delete, inference, tasks
from selfimprove_pipeline.workers.tasks import collect
from selfimprove_pipeline.workers.tasks.collect import Progress
from selfimprove_pipeline.workers.tasks.wanted import Queue, Wanted, as_they_come, urgency
from support.dying import Killed
from support.models import tiny_qwen2
from support.runs import run
from support.streams import Ruled

NUM_PROMPTS = 12
STAGES: tuple[Stage, ...] = ("generate", "translate")
ROWS = 3 * NUM_PROMPTS + 4 * (NUM_PROMPTS - 1 + 3)
"""Answers, then translations: of each direction one answer has no text, and three are retried."""


class Place:
    """A bucket with a model and prompts, and what is done there."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        self.store = FolderStore(root / "store")
        self.repository_of(Repository).upload_folder(model, "s3://models/m0")
        for language in ("en", "es", "de"):
            rows = [Prompt(id=f"p{n}", prompt=f"{language} {n}?") for n in range(NUM_PROMPTS)]
            self.store.write(f"s3://prompts/set/{language}.jsonl", lines(rows))

    def repository_of(self, kind: type[Repository]) -> Repository:
        return kind(self.store, bucket="runs", prefix="", cache=self.root / "cache")

    def setting(self, repository: Repository | None = None, **changes: Any) -> Setting:
        made = run(prompts__perIteration=NUM_PROMPTS, iterations=1, evaluation={"suites": []})
        repository = repository or self.repository_of(Repository)
        toolchain = devices.toolchain("transformers", 0)
        setting = Setting(
            made, self.store, repository, toolchain, "transformers", self.root / "cache"
        )
        return replace(setting, **changes)

    def work(
        self,
        engine: Ruled,
        repository: Repository | None = None,
        names: tuple[Stage, ...] = STAGES,
        on_progress: Callable[[Progress], None] = lambda _: None,
        **changes: Any,
    ) -> None:
        setting = self.setting(repository, **changes)
        inference.work(setting, 0, setting.base, lambda *_: engine, on_progress, names=names)

    def found(self) -> Survey:
        setting = self.setting()
        return survey(setting.iteration(0, setting.base), setting.repository.manifest)

    def digests(self) -> dict[str, str]:
        found = self.found()
        return {
            f"{stage} {part}": manifest.digest
            for stage in STAGES
            for part, manifest in found[stage].manifests.items()
        }

    def counts(self, stage: Stage) -> dict[str, dict[str, int]]:
        return {part: m.counts for part, m in self.found()[stage].manifests.items()}

    def left_over(self) -> list[str]:
        """Return what serves the making of artifacts and lies there still."""
        artifacts = self.root / "store" / "runs" / "artifacts"
        parts = [str(path) for path in artifacts.rglob("parts/**/*.jsonl")]
        finished = {path.parent for path in artifacts.rglob("manifest.json")}
        folders = [str(path) for path in artifacts.glob("*/*") if path not in finished]
        return parts + folders


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen2(tmp_path_factory.mktemp("model") / "m0")


@pytest.fixture
def place(tmp_path: Path, model: Path) -> Place:
    return Place(tmp_path / "place", model)


@pytest.fixture(scope="module")
def in_rounds(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Place:
    """Return what an engine with fixed batches makes of the same texts, round after round."""
    one = Place(tmp_path_factory.mktemp("rounds"), model)
    engine = Ruled(has_fixed_batches=True)
    one.work(engine)
    assert engine.calls == 3
    assert len(engine.asked) == ROWS
    return one


@pytest.fixture(autouse=True)
def _each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write every fourth row at once, and look for other pods often."""
    monkeypatch.setattr(tasks, "FLUSH_ROWS", 4)
    monkeypatch.setattr(collect, "POLL_SECONDS", 0.02)


def test_a_stream_makes_the_artifacts_of_rounds(place: Place, in_rounds: Place) -> None:
    """Keys, digests and counts are the same; the engine is asked once, and idle at the end only."""
    engine = Ruled()
    place.work(engine)

    assert engine.calls == 1
    assert place.digests() == in_rounds.digests()
    assert len(place.digests()) == 7
    assert [place.counts(stage) for stage in STAGES] == [in_rounds.counts(s) for s in STAGES]
    assert place.left_over() == in_rounds.left_over() == []
    assert engine.asked[: 3 * NUM_PROMPTS] == [r for r in engine.asked if "generate" in r.group]
    assert sum(engine.idle) < engine.window**2


def test_fixed_batches_are_asked_in_the_order_of_the_rows(place: Place) -> None:
    """A row meets the same neighbours whenever its artifact is made again."""
    engine = Ruled(has_fixed_batches=True)
    place.work(engine)

    names = [f"p{n}" for n in range(NUM_PROMPTS)]
    groups = [f"generate/{language}" for language in ("en", "es", "de")]
    asked = [(request.group, request.key.partition("/")[2]) for request in engine.asked]
    assert asked[: 3 * NUM_PROMPTS] == [(group, name) for group in groups for name in names]
    directions = run().spec.languages.directions()
    parts = [f"translate/{source}_{target}" for source, target in directions]
    firsts = [(f"{part}#1", name) for part in parts for name in names if name != "p6"]
    again = [(f"{part}#2", name) for part in parts for name in ("p0", "p5", "p10")]
    assert asked[3 * NUM_PROMPTS :] == [*firsts, *again]


class Stopped(Exception):  # noqa: N818  it is no error, it is a kill
    """The process ends here, in whichever thread."""


class Stopping(Repository):
    """A repository whose process is killed when it has kept so many rows."""

    lives = 0
    one_at_a_time = threading.Lock()

    @override
    def append_part(self, stage: str, key: str, part_name: str, rows: Any) -> None:
        with self.one_at_a_time:
            super().append_part(stage, key, part_name, rows[: self.lives])
            self.lives -= min(len(rows), self.lives)
            if rows and not self.lives:
                raise Stopped


@pytest.mark.parametrize("lives", [0, 1, 9, 33, 36, 40, 60, 80, ROWS - 1])
def test_a_kill_loses_only_the_rows_in_flight(place: Place, in_rounds: Place, lives: int) -> None:
    """Whatever is in the store is not asked again, be its key known or not."""
    dying = place.repository_of(Stopping)
    assert isinstance(dying, Stopping)
    dying.lives = lives
    with pytest.raises(Stopped):
        place.work(Ruled(), dying)
    kept = len(stored(place))
    again = Ruled()
    place.work(again)

    assert kept == lives
    assert again.calls == 1
    assert len(again.asked) + kept == ROWS
    assert place.digests() == in_rounds.digests()
    assert place.left_over() == []
    counts = [c for stage in STAGES for c in place.counts(stage).values()]
    assert sum(c["resumedRows"] for c in counts) == kept
    assert sum(c["requests"] for c in counts) == len(again.asked)


def stored(place: Place) -> list[str]:
    """Return the rows that lie in parts."""
    root = place.root / "store" / "runs" / "artifacts"
    return [
        line
        for path in sorted(root.rglob("parts/**/*.jsonl"))
        for line in path.read_text().splitlines()
    ]


class Uncommitted(Repository):
    """A repository whose process is killed before it commits an artifact of a stage."""

    stage: Stage = "generate"
    part = ""
    taken_over = 0

    @override
    def append_part(self, stage: str, key: str, part_name: str, rows: Any) -> None:
        if self.part == "taken over" and rows and isinstance(rows[0], Translation):
            self.taken_over += 1
            if self.taken_over > 1:
                raise Killed
        super().append_part(stage, key, part_name, rows)

    @override
    def discard(self, stage: str, key: str) -> None:
        super().discard(stage, key)
        if self.part == "discarded":
            raise Killed

    @override
    def commit(self, manifest: Manifest, *args: Any, **named: Any) -> Manifest:
        if manifest.stage == self.stage and self.part in ("", manifest.part):
            raise Killed
        return super().commit(manifest, *args, **named)


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("generate", ""),
        ("generate", "es"),
        ("translate", "taken over"),
        ("translate", "discarded"),
        ("translate", ""),
        ("translate", "es_en"),
    ],
)
def test_a_kill_at_a_commit_asks_nothing_again(
    place: Place, in_rounds: Place, stage: Stage, part: str
) -> None:
    """Not with all translations done and no answers committed, and not after that."""
    dying = place.repository_of(Uncommitted)
    assert isinstance(dying, Uncommitted)
    dying.stage, dying.part = stage, part
    first, second = Ruled(), Ruled()
    with pytest.raises(Killed):
        place.work(first, dying)
    place.work(second)

    assert (len(first.asked), second.asked) == (ROWS, [])
    assert place.digests() == in_rounds.digests()
    assert place.left_over() == []


@pytest.mark.parametrize("pods", [(STAGES,), (("generate",), ("translate",))])
def test_a_translation_of_another_answer_is_made_again(
    place: Place, tmp_path: Path, model: Path, pods: tuple[tuple[Stage, ...], ...]
) -> None:
    """Two runs may share a key, and the answers of one alone become the artifact."""
    ours, theirs = place.repository_of(Uncommitted), Ruled(salt="other ")
    with pytest.raises(Killed):
        place.work(Ruled(), ours)
    answers = place.root / "store" / "runs" / "artifacts" / "generate"
    for part in answers.rglob("parts/**/*.jsonl"):
        part.unlink()
    for names in pods:
        place.work(theirs, names=names)
    undisturbed = Place(tmp_path / "undisturbed", model)
    undisturbed.work(Ruled(salt="other "))

    assert len(theirs.asked) == ROWS
    assert place.digests() == undisturbed.digests()
    assert place.left_over() == []


class Watched(Repository):
    """A repository that looks whether the answer of each early translation is stored."""

    seen = 0

    @override
    def append_part(self, stage: str, key: str, part_name: str, rows: Any) -> None:
        early = [row for row in rows if isinstance(row, Ahead)]
        if early:
            answers = self.uri("generate", "").removesuffix("/")
            uris = [entry.uri for entry in self.store.entries(answers)]
            stored = b"".join(self.store.read(uri) or b"" for uri in uris)
            for row in early:
                answer = f'"id":"{row.id}","language":"{row.translation.source}"'
                assert answer.encode() in stored
        type(self).seen += len(early)
        super().append_part(stage, key, part_name, rows)


def test_an_answer_is_stored_before_its_translations(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a kill might leave translations of answers that are made anew."""
    is_of_followers = property(lambda one: one.needs is not None)
    monkeypatch.setattr(tasks.Open, "is_due", is_of_followers)  # answers never are by themselves
    Watched.seen = 0
    place.work(Ruled(), place.repository_of(Watched))
    assert Watched.seen == ROWS - 3 * NUM_PROMPTS


def test_a_deleted_run_leaves_no_early_translations(place: Place) -> None:
    """Its index names where they lie while their own key is not known."""
    dying = place.repository_of(Uncommitted)
    setting = place.setting(dying)
    found = place.found()
    Ledger(setting).enter(0, setting.base, found)
    with pytest.raises(Killed):
        place.work(Ruled(), dying)
    assert stored(place)
    delete.work(place.repository_of(Repository), None, "test", lambda *_: None)
    assert place.left_over() == []


def test_pods_that_share_the_rows_stream_their_own(place: Place, in_rounds: Place) -> None:
    """Each translates its own answers as they come; whoever sees all rows commits."""
    engines = [Ruled(), Ruled()]
    pods = [
        threading.Thread(target=place.work, args=(engine,), kwargs={"share": Share(number, 2)})
        for number, engine in enumerate(engines)
    ]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join(120)

    asked = [{(r.group, r.key.partition("/")[2]) for r in engine.asked} for engine in engines]
    assert place.digests() == in_rounds.digests()
    assert sum(len(engine.asked) for engine in engines) == ROWS
    assert [len(own) for own in asked] == [len(engine.asked) for engine in engines]
    assert not asked[0] & asked[1]
    assert all(engine.calls == 1 for engine in engines)
    assert place.left_over() == []


def test_a_pod_for_each_stage_makes_the_same(place: Place, in_rounds: Place) -> None:
    """One that generates alone translates nothing; retries of the other go in at once."""
    first, second = Ruled(), Ruled()
    place.work(first, names=("generate",))
    assert len(first.asked) == 3 * NUM_PROMPTS
    place.work(second, names=("translate",))

    assert (len(second.asked), second.calls) == (ROWS - len(first.asked), 1)
    assert place.digests() == in_rounds.digests()
    assert place.left_over() == []


def test_requests_are_made_as_they_are_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering thousands of them first would let the engine wait."""
    engine, rendered = Ruled(window=3), [0]
    request = translate.request

    def counted(*args: Any) -> Any:
        rendered[0] += 1
        return request(*args)

    monkeypatch.setattr(translate, "request", counted)
    most = []
    done = []

    def on_progress(progress: Progress) -> None:
        done.append(progress.stage)
        most.append(rendered[0] - done.count("translate"))

    place.work(engine, on_progress=on_progress)
    assert 1 < max(most) <= engine.window


def test_progress_ends_with_all_rows_of_each_stage(place: Place) -> None:
    """Its totals are counted before anything is rendered, and grow with each retry."""
    seen: dict[str, list[tuple[int, int]]] = {}

    def on_progress(progress: Progress) -> None:
        seen.setdefault(progress.stage, []).append((progress.done, progress.total))

    place.work(Ruled(), on_progress=on_progress)
    answers, translations = 3 * NUM_PROMPTS, ROWS - 3 * NUM_PROMPTS
    assert seen["generate"] == [(n, answers) for n in range(1, answers + 1)]
    assert seen["translate"][-1] == (translations, translations)
    assert all(done < total for done, total in seen["translate"][:-1])


def test_the_engines_that_shared_the_work_are_told_outside_the_digest(
    place: Place, in_rounds: Place
) -> None:
    """One is not worth a word."""
    place.work(Ruled(engines=2))
    assert {c["engines"] for s in STAGES for c in place.counts(s).values()} == {2}
    assert not any("engines" in c for s in STAGES for c in in_rounds.counts(s).values())
    assert place.digests() == in_rounds.digests()


def taken(queue: Queue[int]) -> Iterator[int]:
    while (found := queue.take()) is not None:
        yield found[0]


def test_what_others_wait_for_goes_first_and_then_the_longest() -> None:
    """What is equally urgent, and all where order counts, goes as it came."""
    sizes = [(5, False), (9, False), (1, True), (9, False), (2, True)]
    queues = [Queue[int](urgency), Queue[int](as_they_come)]
    for queue in queues:
        for number, (size, leads) in enumerate(sizes):
            queue.put(number, Wanted(pytest.fail, size=size, leads=leads))
    assert [list(taken(queue)) for queue in queues] == [[4, 2, 1, 3, 0], [0, 1, 2, 3, 4]]


class Counting(FolderStore):
    """A folder that counts what is read and listed."""

    reads = 0
    lists = 0

    @override
    def read(self, uri: str) -> bytes | None:
        self.reads += 1
        return super().read(uri)

    @override
    def entries(self, prefix: str) -> Any:
        self.lists += 1
        return super().entries(prefix)


def test_a_part_is_read_once_and_written_without_a_look(tmp_path: Path) -> None:
    """A pod that waits for others reads what is new; one that keeps each row lists once."""
    store = Counting(tmp_path)
    own = Repository(store, bucket="runs", prefix="", cache=tmp_path / "cache")
    other = Repository(FolderStore(tmp_path), bucket="runs", prefix="", cache=tmp_path / "cache")
    target = Target("generate", "en", "0" * 32, {}, {}, {})
    idle: tasks.Asking[Prompt] = tasks.Asking(
        target=target, kind=Prompt, pending=lambda *_: (), row=lambda *_: rows[0]
    )
    one = tasks.Open(idle, own, Share(0, 2))
    rows = [Prompt(id=f"p{n}", prompt="?") for n in range(20)]
    other.append_part(target.stage, target.key, tasks.PART, rows[:3])
    assert (one.load(), one.load(), store.reads) == (3, 0, 1)
    store.lists = 0
    for row in rows[3:]:
        own.append_part(target.stage, target.key, tasks.PART, [row])
    assert store.lists == 1
    assert (one.load(), store.reads) == (17, 18)
    assert set(one.rows) == {row.id for row in rows}
