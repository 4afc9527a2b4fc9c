"""The demo as a test: M0 -> M1 -> M2 of the miniature model on real vLLM, TRL and DeepSpeed.

The judge here is the acceptance set under tests/data, which no stage has ever seen.
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from selfimprove_pipeline.contract.manifests import Manifest
from support.cli import MINIATURE, REPOSITORY, Cli

pytestmark = pytest.mark.e2e

ACCEPTANCE = REPOSITORY / "tests" / "data" / "miniature" / "acceptance"
OTHERS = ("es", "de")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, dict[str, Any]]:
    """Return the finished run, its file unchanged but for suites of the checker's own."""
    folder = tmp_path_factory.mktemp("miniature")
    cli = Cli(folder / "store", folder / "cache")
    cli.upload_miniature()
    uploaded = cli("upload", str(ACCEPTANCE), "s3://checker/acceptance", "--store", str(cli.store))
    assert uploaded.code == 0, uploaded.errors
    ran = cli("run", str(MINIATURE / "run.yaml"), "--store", str(cli.store), JUDGED)
    assert ran.code == 0, ran.errors
    return cli, cli.show(JUDGED.removeprefix("--set="))


JUDGED = (
    "--set=evaluation={baselines: [sft], "
    "suites: [{name: exactMatch, uri: 's3://checker/acceptance'}]}"
)


def scores(status: dict[str, Any]) -> list[dict[str, float]]:
    """Return the share of right answers by language, for M0, M1, M2."""
    return [
        {language: found["score"] for language, found in i["evaluation"]["exactMatch"].items()}
        for i in status["iterations"]
    ]


def mean_of_others(found: dict[str, float]) -> float:
    """Return the mean over the languages besides the dominant one."""
    return fmean(found[language] for language in OTHERS)


def test_weak_languages_gain_and_the_dominant_one_is_not_hurt(
    finished: tuple[Cli, dict[str, Any]],
) -> None:
    """M1 gains at least .12 in es and de, M2 loses nothing of it, en stays within .03."""
    m0, m1, m2 = scores(finished[1])

    assert mean_of_others(m1) - mean_of_others(m0) >= 0.12
    assert mean_of_others(m2) - mean_of_others(m1) >= 0
    assert all(m1[language] > m0[language] for language in OTHERS)
    assert m2["en"] >= m0["en"] - 0.03


def test_the_labels_agree_with_gold_answers_that_no_stage_saw(
    finished: tuple[Cli, dict[str, Any]],
) -> None:
    """Reward accuracy of the decided pairs is at least .80 in every language at M0."""
    cli, status = finished
    stages = {stage["name"]: stage for stage in status["iterations"][0]["stages"]}
    (artifact,) = stages["score"]["artifacts"].values()
    path = cli.store / "runs" / "artifacts" / "score" / artifact["key"] / "manifest.json"
    measures = Manifest.of_line(path.read_bytes()).measures

    accuracies = [measures[f"rewardAccuracy.{language}"] for language in ("de", "en", "es")]
    assert min(accuracies) >= 0.80


def test_the_run_is_described_in_the_stable_json(finished: tuple[Cli, dict[str, Any]]) -> None:
    """Index 0 is M0; the last model is evaluated, passes the gate and has no other stage."""
    _, status = finished

    assert (status["name"], status["outcome"]) == ("miniature", "Succeeded")
    assert [i["index"] for i in status["iterations"]] == [0, 1, 2]
    names = [[stage["name"] for stage in i["stages"]] for i in status["iterations"]]
    all_stages = ["evaluate", "generate", "translate", "pair", "score", "train"]
    assert names == [all_stages, ["evaluate", "gate", *all_stages[1:]], ["evaluate", "gate"]]
    gates = [{told["decision"] for told in i["gates"].values()} for i in status["iterations"]]
    assert gates == [{"Passed"}] * 3
    assert status["final"] == 2
    for stage in (stage for i in status["iterations"] for stage in i["stages"]):
        assert {"name", "state", "seconds", "cached", "digest", "counts"} <= set(stage)
        assert stage["state"] == "Succeeded"


def test_models_open_unchanged_and_an_engine_starts_once_a_model(
    finished: tuple[Cli, dict[str, Any]],
) -> None:
    """`from_pretrained` opens M2's folder; one artifact of each model waited for an engine.

    There are M0, M1, M2 and the baseline.
    """
    import transformers  # noqa: PLC0415  heavy, and needed here alone

    cli, status = finished
    folder = status["iterations"][2]["model"]["uri"]
    transformers.AutoModelForCausalLM.from_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(folder)

    manifests = [
        Manifest.of_line(path.read_bytes())
        for path in cli.store.rglob("artifacts/*/*/manifest.json")
    ]
    waited = [m for m in manifests if m.seconds.get("engineStart")]
    assert len(waited) == len({m.inputs["model"] for m in waited}) == 4


def test_the_baseline_trains_once_and_is_measured_beside_m1(
    finished: tuple[Cli, dict[str, Any]], tmp_path: Path
) -> None:
    """SFT of M0 on the same pairs, in as many steps: another model, better than M0 in es and de."""
    cli, status = finished
    trained = {s["name"]: s for s in status["iterations"][0]["stages"]}["train"]["artifacts"]
    folders = {part: cli.store / f"runs/artifacts/train/{m['key']}" for part, m in trained.items()}
    m1, sft = (Manifest.of_line((folders[p] / "manifest.json").read_bytes()) for p in ("", "sft"))

    assert set(trained) == {"", "sft"}
    assert m1.inputs == sft.inputs
    assert m1.counts == sft.counts
    assert m1.digest != sft.digest
    measured = [set(i["evaluation"]) - {"gain"} for i in status["iterations"]]
    assert measured == [{"exactMatch"}, {"exactMatch", "exactMatch+sft"}, {"exactMatch"}]
    found = status["iterations"][1]["evaluation"]["exactMatch+sft"]
    scores_of_sft = {language: measures["score"] for language, measures in found.items()}
    assert mean_of_others(scores_of_sft) - mean_of_others(scores(status)[0]) >= 0.05

    common = (str(MINIATURE / "run.yaml"), "--store", str(cli.store), JUDGED)
    exported = cli("export", "model", *common, "--baseline", "sft", "--out", str(tmp_path / "sft"))
    assert exported.code == 0, exported.errors
    weights = [folder / "model.safetensors" for folder in (tmp_path / "sft", folders["sft"])]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    ran = cli("run", *common)
    assert "nothing to do, everything is in the store" in ran.output


def test_one_template_renders_what_is_asked_and_what_is_trained(
    finished: tuple[Cli, dict[str, Any]],
) -> None:
    """Every manifest of a stage that renders names the same template."""
    cli, _ = finished
    paths = cli.store.rglob("artifacts/*/*/manifest.json")
    manifests = [Manifest.of_line(path.read_bytes()) for path in paths]
    found = {m.stage: m.versions["template"] for m in manifests if "template" in m.versions}

    assert set(found) == {"evaluate", "generate", "translate", "train"}
    assert len(set(found.values())) == 1


def test_report_and_exports_of_a_finished_run(
    finished: tuple[Cli, dict[str, Any]], tmp_path: Path
) -> None:
    """The report is one page; pairs load as a ranking set; a model is a plain folder."""
    cli, _ = finished
    common = (str(MINIATURE / "run.yaml"), "--store", str(cli.store), JUDGED)
    assert cli("report", *common, "--out", str(tmp_path / "report")).code == 0
    page = (tmp_path / "report" / "miniature.html").read_text()
    assert "M0, SFT on the chosen texts" in page

    exported = cli("export", "pairs", *common, "--iteration", "0", "--out", str(tmp_path / "pairs"))
    assert exported.code == 0, exported.errors
    info = json.loads((tmp_path / "pairs" / "dataset_info.json").read_text())["selfimprove"]
    rows = json.loads((tmp_path / "pairs" / info["file_name"]).read_text())
    assert info["ranking"] is True
    assert {"conversations", "chosen", "rejected"} <= set(rows[0])

    exported = cli("export", "model", *common, "--out", str(tmp_path / "m2"))
    assert exported.code == 0, exported.errors
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in (tmp_path / "m2").iterdir()
    }
    assert not (tmp_path / "m2" / "manifest.json").exists()
