"""The inference worker with an external translator: who is started when, and what is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.rows import Answer, Prompt, Translation, lines
from selfimprove_pipeline.contract.stages import WORKERS
from selfimprove_pipeline.engine import Engine
from selfimprove_pipeline.engine.transformers_engine import TransformersEngine
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import StageState, are_finished, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import inference
from selfimprove_pipeline.workers.inference import StartEngine
from support.endpoint import MODEL, Asked, Endpoint, Reply, Script, chat, refusal, serving
from support.models import tiny_qwen2
from support.runs import run

NUM_PROMPTS = 4
KEY = "sk-tests-0123456789"


class NotedEngine(TransformersEngine):
    """The engine of transformers that notes in a list when it starts and ends."""

    def __init__(self, folder: Path, notes: list[str]) -> None:
        # Nothing ends a turn, so that every answer of the random model has a text.
        super().__init__(folder, stop_token_ids=())
        self._notes = notes
        notes.append("engine started")

    @override
    def close(self) -> None:
        self._notes.append("engine ended")
        super().close()


def noted(notes: list[str]) -> StartEngine:
    return lambda folder, _: NotedEngine(folder, notes)


def no_engine(*_: object) -> Engine:
    pytest.fail("the engine was started")


def setting_of(root: Path, endpoint: Endpoint, **values: Any) -> Setting:
    """Return a run whose translator is the endpoint, with its model and prompts in a store."""
    described = {"kind": "openai", "baseUrl": endpoint.base_url, "model": MODEL}
    made = run(
        prompts__perIteration=NUM_PROMPTS,
        iterations=1,
        generation__maxTokens=12,
        evaluation={"suites": []},
        translation__translator="external",
        translation__external=described,
        **values,
    )
    store = FolderStore(root / "store")
    repository = Repository(store, bucket="runs", prefix="", cache=root / "cache")
    toolchain = devices.toolchain("transformers", 0)
    return Setting(made, store, repository, toolchain, "transformers", root / "cache")


@contextmanager
def running(root: Path, script: Script) -> Iterator[tuple[Endpoint, Setting]]:
    """Give an endpoint and a run that translates with it."""
    with serving(script) as endpoint:
        setting = setting_of(root, endpoint)
        setting.repository.upload_folder(tiny_qwen2(root / "m0"), "s3://models/m0")
        for language in setting.spec.languages.all():
            rows = [Prompt(id=f"p{n}", prompt=f"{language} {n}?") for n in range(NUM_PROMPTS)]
            setting.store.write(f"s3://prompts/set/{language}.jsonl", lines(rows))
        yield endpoint, setting


def work(setting: Setting, start: StartEngine) -> None:
    inference.work(setting, 0, setting.base, start, lambda _: None)


def stage(setting: Setting, name: Any) -> StageState:
    return survey(setting.iteration(0, setting.base), setting.repository.manifest)[name]


def hola(_: Asked) -> Reply:
    return chat("<translated>hola</translated>")


def test_the_engine_has_ended_when_the_translator_is_asked(tmp_path: Path) -> None:
    """One start for evaluate and generate; then the GPU is free for a translation model."""
    notes: list[str] = []

    def script(asked: Asked) -> Reply:
        notes.append("asked")
        return hola(asked)

    with running(tmp_path, script) as (_, setting):
        work(setting, noted(notes))
        assert notes[:2] == ["engine started", "engine ended"]
        assert notes[2:] == ["asked"] * 4 * NUM_PROMPTS

        for part, manifest in stage(setting, "translate").manifests.items():
            rows = setting.repository.rows(manifest, Translation)
            source, target = part.split("_")
            assert [(row.id, row.source, row.target, row.text) for row in rows] == [
                (f"p{n}", source, target, "hola") for n in range(NUM_PROMPTS)
            ]
            assert "openai" in manifest.versions
            assert manifest.counts["untranslated"] == 0


def test_each_direction_translates_the_answers_of_its_source(tmp_path: Path) -> None:
    """What stands between the sentence tags is the answer, and nothing else is sent."""
    with running(tmp_path, hola) as (endpoint, setting):
        work(setting, noted([]))
        answers = {
            part: [row.completion for row in setting.repository.rows(manifest, Answer)]
            for part, manifest in stage(setting, "generate").manifests.items()
        }
    expected = [*answers["en"], *answers["en"], *answers["es"], *answers["de"]]
    assert sorted(asked.text for asked in endpoint.asked) == sorted(expected)


def test_rows_of_a_failing_endpoint_are_kept_and_the_engine_is_not_needed_again(
    tmp_path: Path,
) -> None:
    """The same command asks only for what is missing, without loading the model."""
    is_well = False

    def script(asked: Asked) -> Reply:
        is_last = asked.number >= 4 * NUM_PROMPTS
        return hola(asked) if is_well or not is_last else refusal(500, "no", x_should_retry="false")

    with running(tmp_path, script) as (endpoint, setting):
        with pytest.raises(TryAgainError, match=endpoint.base_url):
            work(setting, noted([]))
        before, is_well = len(endpoint.asked), True
        work(setting, no_engine)

        assert before == 4 * NUM_PROMPTS
        assert len(endpoint.asked) == before + 1
        found = survey(setting.iteration(0, setting.base), setting.repository.manifest)
        assert are_finished(found, WORKERS["inference"])


def test_an_answer_without_tags_is_asked_for_again_and_then_counted(tmp_path: Path) -> None:
    """lidr-safe tries once more; after that the row has no text and a reason."""
    with running(tmp_path, lambda _: chat("hola")) as (endpoint, setting):
        work(setting, noted([]))
        manifests = stage(setting, "translate").manifests.values()
        rows = [row for m in manifests for row in setting.repository.rows(m, Translation)]

    assert {(row.text, row.error, row.attempts) for row in rows} == {(None, "unclosed", 2)}
    assert len(endpoint.asked) == 2 * len(rows) == 2 * 4 * NUM_PROMPTS


def test_the_key_is_in_no_file_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in rows nor in manifests, nor in what a refusal leaves behind."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def script(asked: Asked) -> Reply:
        told = asked.headers["authorization"]
        return hola(asked) if asked.number < 8 else refusal(401, f"bad key {told}")

    with (
        running(tmp_path, script) as (endpoint, setting),
        pytest.raises(InputError, match="OPENAI_API_KEY") as caught,
    ):
        work(setting, noted([]))

    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_translator_that_does_not_fit_is_refused_before_the_engine_starts(
    tmp_path: Path,
) -> None:
    """Hours of generation are not spent on a recipe whose translation cannot be made."""
    with running(tmp_path, hola) as (_, setting):
        described = {"kind": "transformers", "model": str(tmp_path / "absent")}
        values = {"translation__translator": "external", "translation__external": described}
        wrong = Setting(
            run(**values, prompts__perIteration=NUM_PROMPTS, iterations=1),
            setting.store,
            setting.repository,
            setting.toolchain,
            setting.engine,
            setting.cache,
        )
        with pytest.raises(InputError, match=r"translation\.external\.model"):
            work(wrong, no_engine)
