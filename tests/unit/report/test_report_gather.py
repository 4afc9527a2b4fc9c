"""What the report reads: a run written to a folder through the real repository."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.errors import ArtifactError, InputError
from selfimprove_pipeline.contract.manifests import Index, IterationIndex, Manifest, Overlaps, Stop
from selfimprove_pipeline.contract.rows import (
    Evaluated,
    GatedLanguage,
    Prompt,
    Row,
    Score,
    Verdict,
    canonical,
    lines,
)
from selfimprove_pipeline.measuring import reward_accuracy
from selfimprove_pipeline.measuring.intervals import Rate
from selfimprove_pipeline.measuring.judged import contests
from selfimprove_pipeline.report.forms import markdown, page
from selfimprove_pipeline.report.story.gather import gather
from selfimprove_pipeline.report.story.story import Change, Story
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository

LANGUAGES = ("en", "es", "de")
PROMPTS = 40
RIGHT = {
    (0, "en"): 30, (1, "en"): 31, (2, "en"): 32,
    (0, "es"): 10, (1, "es"): 16, (2, "es"): 20,
    (0, "de"): 12, (1, "de"): 20, (2, "de"): 28,
}  # fmt: skip
"""How many of the 40 prompts a model answers right: the first ones."""


def spec(**changes: Any) -> recipe.Spec:
    """Return a resolved spec of two iterations with one suite with gold answers."""
    run = {
        "apiVersion": recipe.API_VERSION,
        "kind": recipe.KIND,
        "metadata": {"name": "small"},
        "spec": {
            "model": {"uri": "s3://models/m0"},
            "languages": {"dominant": "en", "others": ["es", "de"]},
            "prompts": {"uri": "s3://prompts/sums", "perIteration": PROMPTS},
            "evaluation": {"suites": [{"name": "exactMatch", "uri": "s3://suites/sums"}]},
            "storage": {"bucket": "runs"},
            **changes,
        },
    }
    return recipe.resolve(recipe.Run.model_validate_json(json.dumps(run))).spec


@dataclass
class Writer:
    """Writes the artifacts of a run, and its index at the end."""

    repository: Repository
    keys: dict[int, dict[str, dict[str, str]]] = field(default_factory=dict)

    def artifact(
        self,
        iteration: int,
        stage: str,
        part: str,
        rows: Sequence[Row],
        **manifest: Any,
    ) -> None:
        """Write one artifact with rows under a key that says what it is."""
        key = f"{iteration}-{stage}-{part}"
        side_files = manifest.pop("side_files", {})
        self.repository.commit(
            Manifest(stage=stage, part=part, key=key, digest="", files=(), **manifest),
            {"rows.jsonl": lines(rows)},
            side_files=side_files,
        )
        self.keys.setdefault(iteration, {}).setdefault(stage, {})[part] = key

    def index(self, found: recipe.Spec, **changes: Any) -> None:
        """Write the index of everything so far."""
        iterations = tuple(
            IterationIndex(
                index=iteration,
                model_uri=f"s3://runs/model-{iteration}",
                model_digest=f"digest-{iteration}",
                keys=self.keys[iteration],
                computed=("0-evaluate-exactMatch.en", "0-pair-"),
            )
            for iteration in sorted(self.keys)
        )
        values: dict[str, Any] = {
            "name": "small",
            "outcome": "Succeeded",
            "recipe": found.model_dump(mode="json", by_alias=True),
            "iterations": iterations,
            **changes,
        }
        self.repository.write_index(Index(**values), None)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Give an empty repository in a folder."""
    store = FolderStore(tmp_path / "store")
    return Repository(store, bucket="runs", prefix="", cache=tmp_path / "cache")


def answer(number: int, language: str, *, is_right: bool, **changes: Any) -> Evaluated:
    """Return one evaluated answer of four characters."""
    values: dict[str, Any] = {
        "id": f"p{number:02}",
        "language": language,
        "prompt": f"{language}: {number} + 1?",
        "completion": f"{number + is_right:4}",
        "finish_reason": "stop",
        "completion_tokens": 2,
        "score": float(is_right),
        "identified": language,
        "is_off_target": False,
        "is_empty": False,
        "is_evasive": False,
        **changes,
    }
    return Evaluated(**values)


def write_evaluation(writer: Writer, models: Sequence[int]) -> None:
    """Write the answers of models, and the suite's own files."""
    for model, language in product(models, LANGUAGES):
        right = RIGHT[model, language]
        rows = [answer(n, language, is_right=n < right) for n in range(PROMPTS)]
        writer.artifact(
            model,
            "evaluate",
            f"exactMatch.{language}",
            rows,
            seconds={"wall": 10.0, "engineStart": 2.0},
            counts={"promptTokens": 400, "completionTokens": 80},
            versions={"vllm": "0.32.0"},
        )
    for language in LANGUAGES:
        suite = [
            Prompt(id=f"p{n:02}", prompt=f"{language}: {n} + 1?", answer=str(n + 1))
            for n in range(PROMPTS)
        ]
        uri = f"s3://suites/sums/{language}.jsonl"
        writer.repository.store.write(uri, lines(suite))


def write_making(writer: Writer, iteration: int) -> None:
    """Write pairs, scores and training of an iteration."""
    writer.artifact(
        iteration,
        "pair",
        "",
        [],
        counts={"pairs": 60, "pairs.en": 25, "pairs.es": 20, "pairs.de": 15},
        drops={"es": {"identical": 3, "empty": 17}, "de": {"language": 25}},
        seconds={"wall": 1.5},
    )
    outcomes = [(1.0, 0.0)] * 6 + [(0.0, 1.0)] * 2 + [(1.0, 1.0)] * 4 + [(0.0, 0.0)] * 3
    scores = [
        Score(id=f"p{n}", language="de", partner="en", chosen=chosen, rejected=rejected)
        for n, (chosen, rejected) in enumerate(outcomes)
    ]
    writer.artifact(iteration, "score", "", scores, seconds={"wall": 0.5})
    steps = [
        {
            "step": step,
            "loss": 2.0 - step / 10,
            "rewards/margins": step / 5,
            "rewards/accuracies": 0.5 + step / 20,
            "tokens": 100.0,
            "seconds": 4.0,
            "epoch": 1,
        }
        for step in range(1, 6)
    ]
    metrics = b"".join(canonical(step) + b"\n" for step in steps)
    writer.artifact(
        iteration,
        "train",
        "",
        [],
        drops={"de": {"overlong": 2}},
        seconds={"wall": 120.0},
        side_files={"metrics.jsonl": metrics},
    )


def finished(repository: Repository) -> Story:
    """Return the story of a whole run of two iterations."""
    writer = Writer(repository)
    write_evaluation(writer, [0, 1, 2])
    for iteration in (0, 1):
        write_making(writer, iteration)
    writer.index(spec())
    return gather(repository, namespace=None, name="small")


def change(story: Story, before: int, after: int, language: str | None) -> Change:
    """Return one change of the first suite."""
    (found,) = [
        row
        for row in story.suites[0].changes
        if (row.before, row.after, row.language) == (before, after, language)
    ]
    return found


def test_rates_are_counted_by_model_and_language(repository: Repository) -> None:
    """Every cell has the successes that were written, and the properties beside them."""
    suite = finished(repository).suites[0]
    assert {place: found.score for place, found in suite.measured.items()} == {
        place: Rate(right, PROMPTS) for place, right in RIGHT.items()
    }
    assert suite.measured[2, "de"].off_target == Rate(0, PROMPTS)
    assert suite.measured[2, "de"].mean_length == 4


def test_changes_equal_those_by_hand(repository: Repository) -> None:
    """Each model against the one before, the last against M0, and the gain without English."""
    story = finished(repository)
    assert change(story, 0, 1, "es").value == pytest.approx(6 / 40)
    assert change(story, 1, 2, "de").value == pytest.approx(8 / 40)
    assert change(story, 0, 2, "en").value == pytest.approx(2 / 40)
    gain = change(story, 0, 2, None)
    assert gain.value == pytest.approx((10 / 40 + 16 / 40) / 2)
    assert gain.difference is not None
    assert gain.difference.value == pytest.approx(gain.value)
    assert gain.difference.interval.low < gain.value < gain.difference.interval.high
    assert gain.difference.sign == 1
    english = change(story, 0, 2, "en").difference
    assert english is not None
    assert english.sign == 0
    assert story.suites[0].means == pytest.approx({0: 22 / 80, 1: 36 / 80, 2: 48 / 80})


def test_the_last_model_is_told_from_m0_that_knows_the_language(repository: Repository) -> None:
    """What M2 has over the request to answer in the language, with the paired interval."""
    writer = Writer(repository)
    write_evaluation(writer, range(3))
    for language, right in {"en": 30, "es": 20, "de": 18}.items():
        rows = [answer(n, language, is_right=n < right) for n in range(PROMPTS)]
        writer.artifact(0, "evaluate", f"exactMatch+languageInstruction.{language}", rows)
    suites = [{"name": "exactMatch", "uri": "s3://suites/sums"}]
    writer.index(spec(evaluation={"suites": suites, "baselines": ["languageInstruction"]}))
    story = gather(repository, namespace=None, name="small")
    (baseline,) = story.suites[0].baselines
    found = {change.language: change for change in baseline.changes}

    assert {change.after for change in baseline.changes} == {2}
    assert {tag: round(change.value * PROMPTS, 6) for tag, change in found.items()} == {
        "es": 0, "de": 10, "en": 2, None: 5,
    }  # fmt: skip
    assert found["de"].difference is not None
    assert found["de"].difference.sign == 1
    assert baseline.mean == pytest.approx(38 / 80)
    assert change(story, 0, 2, "de").value == pytest.approx(16 / 40)
    shown = markdown.render(story)
    assert "| M0, told the language | M2 | de | better | +.25 |" in shown
    assert "languageInstruction" not in shown.split("## How to make it again")[0]
    assert page.render(story) == page.render(story)


def test_pairs_that_a_gate_left_out_were_not_trained_on(repository: Repository) -> None:
    """The training was not given them, so its own drops do not tell."""
    writer = Writer(repository)
    write_evaluation(writer, [0, 1])
    write_making(writer, 0)
    scores = [
        Score(id=f"p{n}", language="de", partner="en", chosen=0.0, rejected=1.0) for n in range(60)
    ]
    told = {"measures": reward_accuracy.measures(scores), "counts": reward_accuracy.counts(scores)}
    writer.artifact(0, "score", "de", scores, **told)
    writer.index(spec())
    story = gather(repository, namespace=None, name="small")
    found = {row.language: (row.kept, row.untrained) for row in story.pairs}

    assert found["de"] == (15, 15)
    assert found["es"] == (20, 0)


def test_the_trained_baseline_stands_below_the_models(repository: Repository) -> None:
    """Measured beside M1 it is no M1: a row, a level and a curve of its own."""
    writer = Writer(repository)
    write_evaluation(writer, range(3))
    write_making(writer, 0)
    steps = [{"step": step, "loss": 3.0 - step, "nll": 3.0 - step} for step in (1, 2)]
    metrics = b"".join(canonical(step) + b"\n" for step in steps)
    writer.artifact(0, "train", "sft", [], side_files={"metrics.jsonl": metrics})
    for language, right in {"en": 28, "es": 15, "de": 18}.items():
        rows = [answer(n, language, is_right=n < right) for n in range(PROMPTS)]
        writer.artifact(1, "evaluate", f"exactMatch+sft.{language}", rows)
    suites = [{"name": "exactMatch", "uri": "s3://suites/sums"}]
    writer.index(spec(evaluation={"suites": suites, "baselines": ["sft"]}))
    story = gather(repository, namespace=None, name="small")
    (baseline,) = story.suites[0].baselines

    assert baseline.measured["es"].score == Rate(15, PROMPTS)
    assert story.suites[0].measured[1, "es"].score == Rate(RIGHT[1, "es"], PROMPTS)
    assert {(found.before, found.after) for found in baseline.changes} == {(0, 2)}
    (german,) = [found for found in baseline.changes if found.language == "de"]
    assert german.value == pytest.approx(10 / 40)
    assert [(row.iteration, row.is_baseline) for row in story.training] == [(0, False), (0, True)]
    shown, drawn = markdown.render(story), page.render(story)
    assert "| M0, SFT on the chosen texts | .38 (" in shown
    assert "| SFT | 2 | 1 |" in shown
    assert drawn.count('class="level sft"') == len(LANGUAGES)
    assert "M1 from 1.9 to 1.5, SFT from 2 to 1" in drawn


def verdict(number: int, language: str, preference: float | None) -> Verdict:
    """Return a verdict on four characters against six."""
    return Verdict(
        id=f"p{number:02}",
        language=language,
        preference=preference,
        characters=4,
        opponent_characters=6,
    )


def write_verdicts(writer: Writer, suite: str, model: int, won: dict[str, int]) -> None:
    """Write the answers of a model and the verdicts on them: won, then tied, one undecided."""
    for language, count in won.items():
        part = f"{suite}.{language}"
        answers = [answer(n, language, is_right=False, score=None) for n in range(PROMPTS)]
        writer.artifact(model, "evaluate", part, answers)
        if suite == "headToHead" and model == 0:
            continue
        preferences = [1.0] * count + [0.5] * (PROMPTS - 1 - count)
        rows = [verdict(n, language, found) for n, found in enumerate([*preferences, None])]
        writer.artifact(
            model,
            "judge",
            part,
            rows,
            measures=contests.measures(rows),
            counts=contests.counts(rows),
        )


def judged_story(repository: Repository, suite: str) -> Story:
    """Return a run of two iterations of which M0, M1 and M2 win 0, 12 and 20 of 39 in Spanish."""
    writer = Writer(repository)
    for model, won in enumerate((0, 12, 20)):
        write_verdicts(writer, suite, model, {"es": won, "de": 1, "en": 0})
    uris = {"uri": "s3://suites/x"}
    if suite == "xAlpacaEval":
        uris["referenceUri"] = "s3://suites/y"
    judge = {"baseUrl": "http://judge/v1", "model": "m"}
    writer.index(spec(evaluation={"judge": judge, "suites": [{"name": suite, **uris}]}))
    return gather(repository, namespace=None, name="small")


def test_win_rates_and_their_changes_equal_those_by_hand(repository: Repository) -> None:
    """A win counts one, a tie half, what is undecided nothing; the pair of models is paired."""
    suite = judged_story(repository, "xAlpacaEval").suites[0]
    assert suite.verdicts is not None
    (m1, m2) = (suite.estimate(model, "es") for model in (1, 2))
    assert m1 is not None
    assert m2 is not None
    assert m1.value == pytest.approx((12 + 27 / 2) / 39)
    assert (m1.n, m2.n) == (39, 39)
    changes = {(c.before, c.after, c.language): c for c in suite.shown_changes}
    spanish = changes[1, 2, "es"]
    assert spanish.value == pytest.approx(8 / 2 / 39)
    assert spanish.difference is not None
    assert spanish.difference.n == 39
    # Eight of 39 rose by one half, none fell: 2 of 2^8 signs are as far.
    assert spanish.p == pytest.approx(2 / 2**8)
    assert spanish.adjusted == pytest.approx(3 * 2 / 2**8)
    assert changes[0, 1, "de"].sign == 0
    mean = suite.mean(2)
    assert mean == pytest.approx((m2.value + (1 + 38 / 2) / 39) / 2)
    assert suite.verdicts.opponent_lengths == {"de": 6, "en": 6, "es": 6}


@pytest.mark.parametrize("suite", ["xAlpacaEval", "headToHead"])
def test_a_judged_baseline_has_its_row_and_changes_no_model(
    repository: Repository, suite: str
) -> None:
    """It stands below the models with its own win rate, and is no step of the run."""
    plain = judged_story(repository, suite).suites[0]
    writer = Writer(repository)
    for model, won in enumerate((0, 12, 20)):
        write_verdicts(writer, suite, model, {"es": won, "de": 1, "en": 0})
    write_verdicts(writer, f"{suite}+sft", 1, {"es": 6, "de": 2, "en": 0})
    uris = {"uri": "s3://suites/x"} | (
        {"referenceUri": "s3://suites/y"} if suite == "xAlpacaEval" else {}
    )
    judge = {"baseUrl": "http://judge/v1", "model": "m"}
    described = {"judge": judge, "suites": [{"name": suite, **uris}], "baselines": ["sft"]}
    writer.index(spec(evaluation=described))
    story = gather(repository, namespace=None, name="small")
    found = story.suites[0]
    own = found.estimate("sft", "es")

    assert own is not None
    assert own.value == pytest.approx((6 + 33 / 2) / 39)
    assert found.mean("sft") == pytest.approx(((6 + 33 / 2) + (2 + 37 / 2)) / 39 / 2)
    assert found.shown_changes == plain.shown_changes
    assert [found.mean(model) for model in (1, 2)] == [plain.mean(model) for model in (1, 2)]
    assert "M0, SFT on the chosen texts" in markdown.render(story)
    assert "Not judged" not in page.render(story)


def test_head_to_head_is_measured_from_one_half(repository: Repository) -> None:
    """M0 has no verdicts: a model's change since M0 is what it wins above one half."""
    suite = judged_story(repository, "headToHead").suites[0]
    changes = {(c.before, c.after, c.language): c for c in suite.shown_changes}

    assert suite.estimate(0, "es") is None
    assert changes[0, 1, "es"].value == pytest.approx((12 + 27 / 2) / 39 - 0.5)
    assert changes[0, 2, "es"].value == pytest.approx((20 + 19 / 2) / 39 - 0.5)
    assert changes[0, 2, "en"].value == 0
    assert changes[0, 2, "es"].sign == 1
    assert changes[0, 2, "de"].sign == 0


def test_of_many_languages_one_change_needs_more_to_be_real(repository: Repository) -> None:
    """Six of forty more have p .03 alone, and .06 among two languages by Holm's correction."""
    writer = Writer(repository)
    for model, right in ((0, 10), (1, 16)):
        for language in ("es", "de"):
            count = right if language == "es" else 10
            rows = [answer(n, language, is_right=n < count) for n in range(PROMPTS)]
            writer.artifact(model, "evaluate", f"exactMatch.{language}", rows)
    writer.index(spec())
    found = change(gather(repository, namespace=None, name="small"), 0, 1, "es")

    assert found.p == pytest.approx(2 / 2**6)
    assert found.adjusted == pytest.approx(4 / 2**6)
    assert found.sign == 0
    assert found.difference is not None
    assert found.difference.interval.low > 0  # of one language alone it would be better


def test_properties_of_answers_are_counted(repository: Repository) -> None:
    """Off-target, evasive, empty and truncated answers each have their own rate."""
    writer = Writer(repository)
    rows = [
        answer(0, "es", is_right=False, is_off_target=True, identified="en"),
        answer(1, "es", is_right=False, is_evasive=True),
        answer(2, "es", is_right=False, is_empty=True, completion=""),
        answer(3, "es", is_right=True, finish_reason="length", completion="12345678"),
    ]
    writer.artifact(0, "evaluate", "exactMatch.es", rows)
    writer.index(spec())
    found = gather(repository, namespace=None, name="small").suites[0].measured[0, "es"]
    assert found.off_target == found.evasive == found.empty == found.truncated == Rate(1, 4)
    assert found.mean_length == (4 + 4 + 0 + 8) / 4


def test_pairs_and_drops_are_told_by_language(repository: Repository) -> None:
    """Counts come from the pairs' manifest, and what training left out from its own."""
    pairs = {row.language: row for row in finished(repository).pairs if row.iteration == 0}
    assert {language: row.kept for language, row in pairs.items()} == {"en": 25, "es": 20, "de": 15}
    assert pairs["es"].drops == {"identical": 3, "empty": 17}
    assert {language: row.untrained for language, row in pairs.items()} == {
        "en": 0,
        "es": 0,
        "de": 2,
    }


def test_agreement_counts_decided_pairs_alone(repository: Repository) -> None:
    """Six of eight decided pairs agree; seven ties decide nothing."""
    (first, _) = finished(repository).agreements
    assert (first.iteration, first.language) == (0, "de")
    assert (first.accuracy, first.ties) == (Rate(6, 8), 7)


def test_texts_are_told_by_where_they_come_from(repository: Repository) -> None:
    """Chosen is a translation in German and the model's own text in English, the dominant one."""
    writer = Writer(repository)
    worths = {"de": (1.0, 0.0), "en": (1.0, 0.25)}
    rows = [
        Score(id="p1", language=tag, partner="en", chosen=chosen, rejected=rejected)
        for tag, (chosen, rejected) in worths.items()
    ]
    writer.artifact(0, "score", "", rows)
    writer.index(spec())
    german, english = gather(repository, namespace=None, name="small").agreements
    assert (german.language, german.generation, german.translation) == ("de", 0.0, 1.0)
    assert (english.language, english.generation, english.translation) == ("en", 1.0, 0.25)
    assert not german.is_graded


def test_a_run_that_a_gate_has_stopped_awaits_no_more_models(repository: Repository) -> None:
    """M1 is refused: it is shown with the gate's numbers, and M2 is not said to come."""
    writer = Writer(repository)
    write_evaluation(writer, [0, 1])
    row = GatedLanguage(language="de", decision="Worse", n=40, change=-0.2, low=-0.3, high=-0.1)
    writer.artifact(1, "gate", "", [row])
    stop = Stop(reason="StoppedByGate", message="M1 is refused", iteration=1, final=0)
    writer.index(spec(gates={"mode": "Enforced"}), stop=stop, message=stop.message)
    story = gather(repository, namespace=None, name="small")

    assert list(story.planned) == [0, 1]
    assert [(found.model, found.languages) for found in story.promotions] == [(1, (row,))]
    assert "M1 is refused" in page.render(story)
    assert "| M2 |" not in markdown.render(story)


@pytest.mark.parametrize("mode", ["Enforced", "Disabled"])
def test_reward_accuracy_has_the_decision_of_its_gate(repository: Repository, mode: str) -> None:
    """Eight decided pairs are too few for a gate, and gates that are disabled decide nothing."""
    writer = Writer(repository)
    scores = [
        Score(id=f"p{n}", language="de", partner="en", chosen=1.0 * (n < 6), rejected=1.0 * (n > 5))
        for n in range(8)
    ]
    written = {
        "measures": reward_accuracy.measures(scores),
        "counts": reward_accuracy.counts(scores),
    }
    writer.artifact(0, "score", "", scores, **written)
    writer.index(spec(gates={"mode": mode}))
    (found,) = gather(repository, namespace=None, name="small").agreements
    assert found.accuracy == Rate(6, 8)
    assert found.decision == ("NotMeasured" if mode == "Enforced" else None)


def test_training_is_read_from_its_metrics(repository: Repository) -> None:
    """Each step with its measures; columns that nobody shows are no error."""
    first, second = finished(repository).training
    assert (first.iteration, second.iteration) == (0, 1)
    assert [step.loss for step in first.steps] == pytest.approx([1.9, 1.8, 1.7, 1.6, 1.5])
    assert first.steps[-1].margins == 1.0
    assert first.steps[-1].accuracies == 0.75
    assert (first.tokens, first.seconds) == (500, 20)


def test_work_is_summed_over_parts(repository: Repository) -> None:
    """Three languages of an evaluation are one line, with what this run computed itself."""
    work = {(row.iteration, row.stage): row for row in finished(repository).work}
    evaluate = work[0, "evaluate"]
    assert (evaluate.wall, evaluate.engine_start) == (30, 6)
    assert (evaluate.prompt_tokens, evaluate.completion_tokens) == (1200, 240)
    assert (evaluate.artifacts, evaluate.computed) == (3, 1)
    assert (work[1, "pair"].artifacts, work[1, "pair"].computed) == (1, 0)
    assert [stage for iteration, stage in work if iteration == 0] == [
        "evaluate",
        "pair",
        "score",
        "train",
    ]


def test_artifacts_are_named_with_their_digests(repository: Repository) -> None:
    """Every finished artifact with the key and the digest of its manifest."""
    found = {(row.iteration, row.stage, row.part): row for row in finished(repository).artifacts}
    assert len(found) == 3 * 3 + 2 * 3
    manifest = repository.manifest("pair", "1-pair-")
    assert manifest is not None
    assert (found[1, "pair", ""].key, found[1, "pair", ""].digest) == ("1-pair-", manifest.digest)


def test_samples_are_the_same_prompts_everywhere(repository: Repository) -> None:
    """Three ids, the same in each language, with all models' answers and the gold answer."""
    samples = finished(repository).samples
    by_language = {
        language: [sample.id for sample in samples if sample.language == language]
        for language in LANGUAGES
    }
    assert by_language["en"] == by_language["es"] == by_language["de"]
    assert len(set(by_language["en"])) == 3
    for sample in samples:
        assert sample.gold == str(int(sample.id[1:]) + 1)
        assert list(sample.answers) == [0, 1, 2]
        assert {row.id for row in sample.answers.values()} == {sample.id}


def test_samples_do_not_depend_on_the_answers(repository: Repository, tmp_path: Path) -> None:
    """A run whose models answer everything wrong shows the same prompts."""
    shown = [sample.id for sample in finished(repository).samples]
    other = Repository(FolderStore(tmp_path / "b"), bucket="runs", prefix="", cache=tmp_path / "c")
    writer = Writer(other)
    for language in LANGUAGES:
        rows = [answer(n, language, is_right=False) for n in reversed(range(PROMPTS))]
        writer.artifact(0, "evaluate", f"exactMatch.{language}", rows)
    writer.index(spec())
    story = gather(other, namespace=None, name="small")
    assert [sample.id for sample in story.samples] == shown


def test_missing_suite_files_cost_only_the_gold_answers(repository: Repository) -> None:
    """The suite was moved since: the samples stay, and the report says why gold is absent."""
    finished(repository)
    uris = [f"s3://suites/sums/{language}.jsonl" for language in LANGUAGES]
    repository.store.delete(uris)
    story = gather(repository, namespace=None, name="small")
    assert len(story.samples) == 9
    assert {sample.gold for sample in story.samples} == {None}
    assert "s3://suites/sums/en.jsonl" in story.notes[0]


def test_a_report_tells_of_prompts_that_were_trained_on(repository: Repository) -> None:
    """Beside what it cannot tell, with the ids, on the page and in Markdown."""
    writer = Writer(repository)
    write_evaluation(writer, [0])
    warning = "exactMatch in de: found 2 of 40 prompts there: p01 (row p07), p02 (nearly row p09)"
    writer.index(spec(), overlaps=Overlaps(inputs="d", warnings=(warning,)))
    story = gather(repository, namespace=None, name="small")
    assert story.notes == (f"How much of a score is memory: {warning}",)
    assert warning in page.render(story)
    assert warning in markdown.render(story)


def test_a_run_in_progress_has_what_is_there(repository: Repository) -> None:
    """M0 is measured in one language, nothing else is: no failure, and no invented zero."""
    writer = Writer(repository)
    rows = [answer(n, "es", is_right=n < 10) for n in range(PROMPTS)]
    writer.artifact(0, "evaluate", "exactMatch.es", rows)
    writer.keys[0]["evaluate"]["exactMatch.de"] = "0-not-finished"
    writer.keys[0]["pair"] = {"": "0-not-finished"}
    writer.index(spec(), outcome="Running")
    story = gather(repository, namespace=None, name="small")
    assert list(story.suites[0].measured) == [(0, "es")]
    assert story.suites[0].means == {}
    assert story.suites[0].changes == ()
    assert story.pairs == ()
    assert list(story.planned) == [0, 1, 2]
    assert "not yet" in page.render(story)
    assert "not yet" in markdown.render(story)


def test_a_suite_without_gold_answers_is_judged_by_language(repository: Repository) -> None:
    """Its measure is the share in a wrong language, where a lower one is better."""
    writer = Writer(repository)
    for model, wrong in ((0, 30), (1, 3)):
        rows = [
            answer(n, "es", is_right=False, score=None, is_off_target=n < wrong)
            for n in range(PROMPTS)
        ]
        writer.artifact(model, "evaluate", "offTarget.es", rows)
    suites = [{"name": "offTarget", "uri": "s3://suites/any"}]
    writer.index(spec(evaluation={"suites": suites}))
    suite = gather(repository, namespace=None, name="small").suites[0]
    assert suite.measure == "offTarget"
    assert suite.measured[0, "es"].score is None
    assert [row.value for row in suite.changes] == [pytest.approx(-27 / 40)]


def test_a_suite_about_languages_shows_them_though_it_has_gold(repository: Repository) -> None:
    """Rows with answers may serve `offTarget` too: below its heading stand no right answers."""
    writer = Writer(repository)
    rows = [answer(n, "es", is_right=n < 30, is_off_target=n < 4) for n in range(PROMPTS)]
    writer.artifact(0, "evaluate", "offTarget.es", rows)
    writer.index(spec(evaluation={"suites": [{"name": "offTarget", "uri": "s3://suites/any"}]}))
    suite = gather(repository, namespace=None, name="small").suites[0]
    estimate = suite.estimate(0, "es")
    assert suite.shown == "offTarget"
    assert estimate is not None
    assert estimate.value == pytest.approx(4 / PROMPTS)


def test_a_language_that_nobody_identified_has_no_wrong_language_rate(
    repository: Repository,
) -> None:
    """Where no detector knows the language, zero off-target answers would be a lie."""
    writer = Writer(repository)
    rows = [answer(n, "es", is_right=True, identified=None) for n in range(PROMPTS)]
    writer.artifact(0, "evaluate", "exactMatch.es", rows)
    writer.index(spec())
    story = gather(repository, namespace=None, name="small")
    assert story.suites[0].measured[0, "es"].off_target is None
    assert "a wrong language in es" in markdown.render(story)


def test_languages_with_different_ids_have_a_gain_without_interval(
    repository: Repository,
) -> None:
    """The mean is still the mean; drawing the languages' prompts together has no meaning."""
    writer = Writer(repository)
    for model, right in ((0, 10), (1, 20)):
        spanish = [answer(n, "es", is_right=n < right) for n in range(40)]
        german = [answer(n, "de", is_right=n < 50) for n in range(40, 60)]
        writer.artifact(model, "evaluate", "exactMatch.es", spanish)
        writer.artifact(model, "evaluate", "exactMatch.de", german)
    writer.index(spec())
    gain = change(gather(repository, namespace=None, name="small"), 0, 1, None)
    assert gain.value == pytest.approx((10 / 40 + 0) / 2)
    assert gain.difference is None


def test_an_unknown_run_is_named(repository: Repository) -> None:
    """A report of a run that was never started is wrong input and says what to do."""
    with pytest.raises(InputError, match=r"team\.other.*selfimprove run"):
        gather(repository, namespace="team", name="other")


def test_altered_rows_are_not_reported(repository: Repository) -> None:
    """A changed score is found by its checksum, not shown."""
    finished(repository)
    uri = f"{repository.uri('evaluate', '0-evaluate-exactMatch.es')}rows.jsonl"
    content = repository.store.read(uri)
    assert content is not None
    repository.store.write(uri, content.replace(b'"score":0.0', b'"score":1.0', 1))
    with pytest.raises(ArtifactError):
        gather(repository, namespace=None, name="small")


def test_the_page_of_a_written_run_is_repeatable(repository: Repository) -> None:
    """Reading the same store twice gives the same bytes in both formats."""
    first = finished(repository)
    second = gather(repository, namespace=None, name="small")
    assert page.render(first) == page.render(second)
    assert markdown.render(first) == markdown.render(second)
