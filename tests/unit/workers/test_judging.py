"""The judge in the inference worker: its verdicts are kept, resumed, and never asked for twice."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline import __main__ as command_line
from selfimprove_pipeline.cli import head_to_head, show
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Judge, Stage, Suite
from selfimprove_pipeline.contract.rows import Evaluated, Prompt, Verdict, lines
from selfimprove_pipeline.engine import Engine
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.measuring.intervals import wilson
from selfimprove_pipeline.report.models import contenders
from selfimprove_pipeline.report.models.contenders import Contender
from selfimprove_pipeline.report.story.story import Judged
from selfimprove_pipeline.run import status
from selfimprove_pipeline.run.ledger import Ledger
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.shards import WHOLE, Share
from selfimprove_pipeline.run.survey import StageState, Survey, manifest_of, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.workers import inference
from support.dying import DyingRepository, Killed
from support.endpoint import Asked, Endpoint, Reply, Script, refusal, serving
from support.judges import first, judging, longer, parts
from support.runs import run

KEY = "sk-tests-0123456789"
COUNT = 6
LANGUAGES = ("en", "es", "de")
M0 = Model("s3://models/m0", "digest-of-m0", ())
M1 = Model("s3://models/m1", "digest-of-m1", ())


def no_engine(*_: object) -> Engine:
    pytest.fail("the engine was started")


def evaluated(number: int, language: str, text: str, **values: Any) -> Evaluated:
    return Evaluated(
        id=str(number),
        language=language,
        prompt=f"{language} {number}?",
        completion=text,
        finish_reason="stop",
        completion_tokens=3,
        score=None,
        identified=None,
        is_off_target=values.get("is_off_target", False),
        is_empty=not text,
        is_evasive=False,
    )


def setting_of(root: Path, endpoint: Endpoint, kind: str, **judge: Any) -> Setting:
    """Return a run of one iteration with a judged suite, its inputs in a store."""
    suite = {"name": kind, "uri": "s3://eval/set"}
    if kind == "xAlpacaEval":
        suite["referenceUri"] = "s3://eval/reference"
    described = {"baseUrl": endpoint.base_url, "model": "judge", **judge}
    made = run(
        iterations=1,
        prompts__perIteration=1,
        evaluation={"suites": [suite], "judge": described},
    )
    store = FolderStore(root / "store")
    repository = DyingRepository(store, bucket="runs", prefix="", cache=root / "cache")
    toolchain = devices.toolchain("transformers", 0)
    for language in LANGUAGES:
        items = [{"instruction": f"{language} {n}?", "id": n} for n in range(COUNT)]
        outputs = [
            {**item, "output": f"no words: {item['id']} 0123456789", "generator": "r"}
            for item in items
        ]
        prompts = [Prompt(id=str(n), prompt=f"{language} {n}?") for n in range(COUNT)]
        store.write(f"s3://eval/set/{language}.json", json.dumps(items).encode())
        store.write(f"s3://eval/reference/{language}.json", json.dumps(outputs).encode())
        store.write(f"s3://eval/set/{language}.jsonl", lines(prompts))
        store.write(f"s3://prompts/set/{language}.jsonl", lines(prompts))
    return Setting(made, store, repository, toolchain, "transformers", root / "cache")


@contextmanager
def judged_run(
    root: Path, script: Script, kind: str = "xAlpacaEval", **judge: Any
) -> Iterator[tuple[Endpoint, Setting]]:
    """Give an endpoint and a run that is judged by it."""
    with serving(script) as endpoint:
        yield endpoint, setting_of(root, endpoint, kind, **judge)


def with_suites(setting: Setting, suites: Sequence[Suite], name: str) -> Setting:
    """Return another run with suites of its own."""
    spec, metadata = setting.spec, setting.run.metadata
    evaluation = spec.evaluation.model_copy(update={"suites": tuple(suites)})
    run = setting.run.model_copy(
        update={
            "metadata": metadata.model_copy(update={"name": name}),
            "spec": spec.model_copy(update={"evaluation": evaluation}),
        }
    )
    return replace(setting, run=run)


def answer(
    setting: Setting, index: int, model: Model, texts: Mapping[int, str], *, count: int = COUNT
) -> None:
    """Put a model's evaluation into the store, as the worker would."""
    found = survey(setting.iteration(index, model), setting.repository.manifest)
    for target in found["evaluate"].missing:
        language = target.part.split(".")[1]
        rows = [evaluated(n, language, texts.get(n, f"text {n}")) for n in range(count)]
        files = {f"{language}.jsonl": lines(rows)}
        setting.repository.commit(manifest_of(target, rows=COUNT), files)
    noted(setting, index, model)


def noted(setting: Setting, index: int, model: Model) -> Survey:
    """Note in the run's index what an iteration has, as the runner does, and return it."""
    found = survey(setting.iteration(index, model), setting.repository.manifest)
    Ledger(setting).enter(index, model, found)
    return found


def judge(setting: Setting, index: int = 1, model: Model = M1) -> StageState:
    """Run the worker, which needs no engine, and return what it has judged."""
    names: tuple[Stage, ...] = ("evaluate", "judge")
    inference.work(setting, index, model, no_engine, lambda _: None, names=names)
    return noted(setting, index, model)["judge"]


def rows_of(setting: Setting, manifest: Manifest) -> tuple[Verdict, ...]:
    return setting.repository.rows(manifest, Verdict)


LONG = {n: f"the much longer answer of the model itself {n}" for n in range(COUNT // 2)}


def test_answers_are_judged_against_the_references(tmp_path: Path) -> None:
    """Half of them are longer than the reference's, half are shorter."""
    with judged_run(tmp_path, judging(longer)) as (endpoint, setting):
        answer(setting, 1, M1, LONG)
        found = judge(setting)

        assert set(found.manifests) == {f"xAlpacaEval.{language}" for language in LANGUAGES}
        for part, manifest in found.manifests.items():
            measures = manifest.measures
            assert (measures["win"], measures["lose"], measures["winRate"]) == (0.5, 0.5, 0.5)
            assert measures["winRateLow"] < 0.5 < measures["winRateHigh"]
            assert manifest.counts["questions"] == 2 * COUNT
            language = part.split(".")[1]
            assert [(row.id, row.language) for row in rows_of(setting, manifest)] == [
                (str(n), language) for n in range(COUNT)
            ]
        asked = {parts(one)[0] for one in endpoint.asked}
        assert asked == {f"{language} {n}?" for language in LANGUAGES for n in range(COUNT)}
        assert len(endpoint.asked) == len(LANGUAGES) * 2 * COUNT


def test_a_model_meets_the_answers_of_m0(tmp_path: Path) -> None:
    """M0 meets nobody; M1 is compared with what M0 has answered to the same prompts."""
    with judged_run(tmp_path, judging(longer), "headToHead") as (endpoint, setting):
        answer(setting, 0, M0, {})
        assert survey(setting.iteration(0, M0), setting.repository.manifest)["judge"].is_finished
        answer(setting, 1, M1, LONG)
        found = judge(setting)

        for manifest in found.manifests.values():
            shares = [manifest.measures[name] for name in ("win", "tie", "lose", "winRate")]
            assert shares == [0.5, 0.5, 0.0, 0.75]
            assert manifest.counts["byRule"] == COUNT // 2
        texts = {text for one in endpoint.asked for text in parts(one)[1:]}
        assert texts == {*LONG.values(), *(f"text {n}" for n in range(COUNT // 2))}


def test_a_baseline_meets_the_same_opponent_as_the_model_beside_it(tmp_path: Path) -> None:
    """Its answers have verdicts of their own, and the model's keys are what they were."""
    with judged_run(tmp_path, judging(longer)) as (endpoint, plain):
        run_ = plain.run
        evaluation = run_.spec.evaluation.model_copy(update={"baselines": ("languageInstruction",)})
        spec = run_.spec.model_copy(update={"evaluation": evaluation})
        setting = replace(plain, run=run_.model_copy(update={"spec": spec}))
        answer(plain, 0, M0, LONG)
        alone = judge(plain, 0, M0)
        answer(setting, 0, M0, {})
        found = judge(setting, 0, M0)

    own = {part: manifest for part, manifest in found.manifests.items() if "+" in part}
    assert set(own) == {f"xAlpacaEval+languageInstruction.{language}" for language in LANGUAGES}
    assert {part: found.manifests[part].key for part in alone.manifests} == {
        part: manifest.key for part, manifest in alone.manifests.items()
    }
    assert [manifest.measures["winRate"] for manifest in own.values()] == [0.0] * 3
    assert len(endpoint.asked) == 2 * len(LANGUAGES) * 2 * COUNT


def test_m0_is_not_met_before_it_is_evaluated(tmp_path: Path) -> None:
    """Without its answers nothing is known of what is to be judged, and nothing is asked."""
    with judged_run(tmp_path, judging(longer), "headToHead") as (endpoint, setting):
        answer(setting, 1, M1, {})

        assert judge(setting).targets is None
        assert not endpoint.asked


def test_a_rerun_asks_nothing(tmp_path: Path) -> None:
    """Neither the same run nor another one of the same answers, wherever the judge is."""
    with judged_run(tmp_path, judging(longer)) as (endpoint, setting):
        answer(setting, 1, M1, LONG)
        judge(setting)
        asked = len(endpoint.asked)
        judge(setting)
        assert len(endpoint.asked) == asked

    with judged_run(tmp_path, judging(first), maxConcurrency=2) as (endpoint, setting):
        assert judge(setting).is_finished
        assert not endpoint.asked


@pytest.mark.parametrize("lives", [0, 1, 7, 20])
def test_a_killed_run_asks_at_most_what_was_under_way_again(tmp_path: Path, lives: int) -> None:
    """Each verdict is in the store before more is asked, and the numbers are the same."""
    with judged_run(tmp_path, judging(longer), maxConcurrency=3) as (endpoint, setting):
        answer(setting, 1, M1, LONG)
        repository = setting.repository
        assert isinstance(repository, DyingRepository)
        repository.lives = lives
        with pytest.raises(Killed):
            judge(setting)
        assert len(endpoint.asked) <= lives + 3
        repository.lives = 10**6
        found = judge(setting)

        total = len(LANGUAGES) * 2 * COUNT
        assert total <= len(endpoint.asked) <= total + 3
        assert {m.measures["winRate"] for m in found.manifests.values()} == {0.5}
        assert sum(m.counts["questions"] for m in found.manifests.values()) == total


def test_a_budget_holds_over_kills_and_models_and_can_be_raised(tmp_path: Path) -> None:
    """What earlier processes have spent counts; a higher budget asks for the rest alone."""
    total = len(LANGUAGES) * 2 * COUNT
    with judged_run(tmp_path, judging(longer), budget={"requests": 10}) as (endpoint, setting):
        answer(setting, 1, M1, LONG)
        for _ in range(2):
            with pytest.raises(InputError, match=f"10 requests.* and {total - 10} questions left"):
                judge(setting)
            assert len(endpoint.asked) == 10

    with judged_run(tmp_path, judging(longer), budget={"requests": total}) as (endpoint, setting):
        assert judge(setting).is_finished
        assert len(endpoint.asked) == total - 10
        answer(setting, 0, M0, {})
        with pytest.raises(InputError, match=f"found {total} requests"):
            judge(setting, 0, M0)
        assert len(endpoint.asked) == total - 10


def test_of_several_pods_the_first_one_asks_for_all(tmp_path: Path) -> None:
    """It waits for no other; the budget and the number of requests at a time are the run's."""
    with judged_run(tmp_path, judging(longer)) as (endpoint, setting):
        answer(setting, 1, M1, LONG)
        judge(replace(setting, share=Share(0, 2)))
        asked = len(endpoint.asked)
        assert judge(replace(setting, share=Share(1, 2))).is_finished

        assert asked == len(endpoint.asked) == len(LANGUAGES) * 2 * COUNT


def test_the_key_is_in_no_file_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in rows nor in manifests, nor in what a refusal leaves behind."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def script(asked: Asked) -> Reply:
        told = asked.headers["authorization"]
        return judging(longer)(asked) if asked.number < 8 else refusal(401, f"bad key {told}")

    with judged_run(tmp_path, script) as (endpoint, setting):
        answer(setting, 1, M1, LONG)
        with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
            judge(setting)

    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_reference_in_the_wrong_language_loses_by_rule(tmp_path: Path) -> None:
    """It is identified as the answers are; nothing is asked about it."""
    spanish = "Me gusta leer libros por la noche antes de dormir en mi habitación."
    with judged_run(tmp_path, judging(longer)) as (endpoint, setting):
        for language in LANGUAGES:
            outputs = [{"instruction": f"{language} {n}?", "output": spanish} for n in range(COUNT)]
            uri = f"s3://eval/reference/{language}.json"
            setting.store.write(uri, json.dumps(outputs).encode())
        answer(setting, 1, M1, LONG)
        found = judge(setting)

    rates = {part: m.measures["win"] for part, m in found.manifests.items()}
    assert rates["xAlpacaEval.de"] == rates["xAlpacaEval.en"] == 1.0
    assert {parts(one)[0][:2] for one in endpoint.asked} == {"es"}


def test_a_difficulty_that_is_given_later_asks_nothing(tmp_path: Path) -> None:
    """It changes what the verdicts amount to, in its language alone, and so the key there."""
    with judged_run(tmp_path, judging(longer)) as (endpoint, setting):
        answer(setting, 1, M1, LONG)
        before = judge(setting).manifests
        asked = len(endpoint.asked)
        hard = [{"instruction": f"de {n}?", "instruction_difficulty": n} for n in range(COUNT)]
        setting.store.write("s3://eval/reference/de.difficulty.json", json.dumps(hard).encode())
        later = replace(setting, share=WHOLE)  # reads its inputs anew
        after = judge(later).manifests

    assert len(endpoint.asked) == asked
    changed = {part for part in before if before[part].key != after[part].key}
    assert changed == {"xAlpacaEval.de"}
    one, other = before["xAlpacaEval.de"], after["xAlpacaEval.de"]
    assert rows_of(setting, one) == rows_of(setting, other)
    assert one.counts["questions"] == other.counts["questions"]
    assert "scikit-learn" in other.versions.keys() - one.versions.keys()
    assert one.measures.pop("lcWinRate") != other.measures.pop("lcWinRate")
    assert one.measures == other.measures


def test_show_tells_the_win_rate_with_its_interval(tmp_path: Path) -> None:
    """In the JSON by suite and language, and in the lines for people."""
    with judged_run(tmp_path, judging(longer)) as (_, setting):
        answer(setting, 1, M1, LONG)
        found = judge(setting)
        index = setting.read_index()
        assert index is not None
        told = status.status(index, setting.repository)

    measured = told["iterations"][0]["evaluation"]["xAlpacaEval"]["de"]
    manifest = found.manifests["xAlpacaEval.de"]
    assert {name: measured[name] for name in manifest.measures} == manifest.measures
    assert (measured["judged"], measured["malformed"], measured["n"]) == (COUNT, 0, COUNT)
    assert [stage["name"] for stage in told["iterations"][0]["stages"]] == [
        "evaluate",
        "gate",
        "judge",
    ]
    low, high = manifest.measures["winRateLow"], manifest.measures["winRateHigh"]
    assert f"de 0.500 [{low:.3f}, {high:.3f}] (n {COUNT})" in "\n".join(show.key_numbers(told))


def contender(setting: Setting, model: Model) -> Contender:
    return contenders.of_digest(model.uri, setting.repository, model.digest)


def meet(
    setting: Setting, endpoint: Endpoint, a: Model, b: Model
) -> Mapping[tuple[str, str], Judged]:
    """Return what a judge prefers of B to A, by suite and language."""
    found = head_to_head.meet(
        contender(setting, a),
        contender(setting, b),
        Judge(base_url=endpoint.base_url, model="judge"),
        setting.toolchain,
        lambda _: None,
    )
    return {(one.suite, one.language): one for one in found}


def test_any_two_models_meet_without_a_run_and_a_run_finds_it(tmp_path: Path) -> None:
    """The verdicts are those of headToHead, under its keys: nobody asks for them again."""
    with judged_run(tmp_path, judging(longer), "headToHead") as (endpoint, setting):
        answer(setting, 0, M0, {})
        answer(setting, 1, M1, LONG)
        found = meet(setting, endpoint, M0, M1)
        asked = len(endpoint.asked)
        again = meet(setting, endpoint, M0, M1)
        by_run = judge(setting)

    assert asked == len(endpoint.asked) == len(LANGUAGES) * COUNT
    assert set(found) == {("headToHead", language) for language in LANGUAGES}
    assert found == again
    for part, manifest in by_run.manifests.items():
        told = found["headToHead", part.split(".")[1]]
        assert told.measures == manifest.measures
        assert [told.measures[name] for name in ("win", "tie", "lose")] == [0.5, 0.5, 0.0]
        assert told.decided == COUNT


def test_exchanged_models_turn_a_win_rate_into_one_minus_it(tmp_path: Path) -> None:
    """Wins and losses change places."""
    with judged_run(tmp_path, judging(longer), "headToHead") as (endpoint, setting):
        answer(setting, 0, M0, {0: "the longest of all the answers, by far, if not further"})
        answer(setting, 1, M1, LONG)
        here = meet(setting, endpoint, M0, M1)
        there = meet(setting, endpoint, M1, M0)

    for part, one in here.items():
        other = there[part].measures
        assert 0.5 < one.measures["winRate"] == pytest.approx(1 - other["winRate"])
        assert (one.measures["win"], one.measures["lose"]) == (other["lose"], other["win"])


def test_a_killed_meeting_keeps_what_was_answered(tmp_path: Path) -> None:
    """As in a run, each verdict is in the store before more is asked."""
    with judged_run(tmp_path, judging(longer), "headToHead") as (endpoint, setting):
        answer(setting, 0, M0, {})
        answer(setting, 1, M1, LONG)
        repository = setting.repository
        assert isinstance(repository, DyingRepository)
        repository.lives = 4
        with pytest.raises(Killed):
            meet(setting, endpoint, M0, M1)
        repository.lives = 10**6
        meet(setting, endpoint, M0, M1)

    assert len(endpoint.asked) <= len(LANGUAGES) * COUNT + 8


def test_only_common_prompts_of_open_suites_are_judged(tmp_path: Path) -> None:
    """Right answers need no judge, and a prompt that one has not seen is no contest."""
    with judged_run(tmp_path, judging(longer), "headToHead") as (endpoint, setting):
        answer(setting, 0, M0, {})
        suites = setting.spec.evaluation.suites
        limited = with_suites(setting, [suites[0].model_copy(update={"limit": 4})], "other")
        answer(limited, 1, M1, {3: "a longer text"}, count=4)
        found = meet(setting, endpoint, M0, M1)
        asked = len(endpoint.asked)
        exchanged = meet(setting, endpoint, M1, M0)
        for language in LANGUAGES:
            rows = [Prompt(id=str(n), prompt=f"{language} {n}?", answer="1") for n in range(COUNT)]
            setting.store.write(f"s3://eval/gold/{language}.jsonl", lines(rows))
        gold = [Suite(name="headToHead", kind="exactMatch", uri="s3://eval/gold")]

        assert {one.decided for one in (*found.values(), *exchanged.values())} == {4}
        assert {one.measures["win"] for one in found.values()} == {0.25}
        assert asked == len(LANGUAGES) * 2
        pair = [replace(model, digest=f"another {model.digest}") for model in (M0, M1)]
        for index, model in enumerate(pair):
            answer(with_suites(setting, gold, "gold"), index, model, {})
        assert meet(setting, endpoint, *pair) == {}
        assert len(endpoint.asked) == 2 * asked


def test_compare_tells_wins_ties_and_losses_with_their_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people on the terminal and in Markdown, for programs in JSON and a CSV of its own."""
    monkeypatch.setenv("SELFIMPROVE_CACHE", str(tmp_path / "cache"))
    with judged_run(tmp_path, judging(longer), "headToHead") as (endpoint, setting):
        answer(setting, 0, M0, {})
        answer(setting, 1, M1, LONG)
        file, out = tmp_path / "run.json", tmp_path / "out"
        file.write_text(setting.run.model_dump_json(by_alias=True, exclude_none=True))
        place = ("--store", str(tmp_path / "store"), "--out", str(out))
        command = ("compare", f"{file}@0", str(file), *place)
        judged = ("--judge-url", endpoint.base_url, "--judge-model", "judge")
        codes = [command_line.main([*command, *given]) for given in (judged, judged[:2], ())]

    assert codes == [0, 2, 2]
    assert len(endpoint.asked) == len(LANGUAGES) * COUNT
    written = json.loads((out / "comparison.json").read_text())
    told = written["headToHead"]["headToHead"]["es"]
    half = wilson(3, COUNT)
    for share in ("win", "tie"):
        assert told[share] == {"value": 0.5, "n": COUNT, "low": half.low, "high": half.high}
    assert told["lose"]["high"] == wilson(0, COUNT).high
    assert told["winRate"]["value"] == 0.75
    assert (out / "head-to-head.csv").read_text().startswith("suite,language,measure,value,n,low")
    shown = capsys.readouterr()
    assert "headToHead: B head to head with A" in shown.out
    assert "with a model that it serves, found http" in shown.err
    page = (out / "comparison.md").read_text()
    assert f"| es | .75 ({wilson(4.5, COUNT).low:.2f}".replace("0.", ".") in page
