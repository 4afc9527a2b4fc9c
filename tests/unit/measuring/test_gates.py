"""What passes a gate and what does not, case by case."""

from typing import Any

import pytest

from selfimprove_pipeline.contract.keys import Iteration, Toolchain
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Gates, Spec
from selfimprove_pipeline.contract.rows import Evaluated, GatedLanguage
from selfimprove_pipeline.measuring import gates
from support import runs

SUITES = [{"name": "exactMatch", "uri": "s3://suites/set"}]
NOTHING = Toolchain(inference=None, light=None, training=None, translation=None)


def spec(**chosen: Any) -> Spec:
    return runs.run(evaluation__suites=SUITES, gates=chosen).spec


def answers(language: str, scores: list[float | None], *, off: int = 0) -> dict[str, Evaluated]:
    """Return a model's answers with scores, the first `off` of them in a wrong language."""
    return {
        f"q{number}": Evaluated(
            id=f"q{number}",
            language=language,
            prompt=f"prompt {number}",
            completion="an answer",
            finish_reason="stop",
            completion_tokens=2,
            score=score,
            identified="en" if number < off else language,
            is_off_target=number < off,
            is_empty=False,
            is_evasive=False,
        )
        for number, score in enumerate(scores)
    }


def right(count: int, of: int = 60) -> list[float | None]:
    return [float(number < count) for number in range(of)]


def decided(**languages: tuple[float, int]) -> Manifest:
    """Return the manifest of scores: reward accuracy and decided pairs by language."""
    return manifest(
        "score",
        counts={f"decided.{tag}": n for tag, (_, n) in languages.items()},
        measures={f"rewardAccuracy.{tag}": value for tag, (value, _) in languages.items()},
    )


def manifest(stage: str, **described: Any) -> Manifest:
    return Manifest(stage=stage, key=stage, digest=stage, files=(), **described)


def iteration(**chosen: Any) -> Iteration:
    return Iteration(index=1, spec=spec(**chosen), model="m", toolchain=NOTHING)


@pytest.mark.parametrize(
    ("before", "now", "decision"),
    [
        pytest.param(right(40), right(20), "Worse", id="far worse"),
        pytest.param(right(40), right(39), "Passed", id="one prompt worse is chance"),
        pytest.param(right(40), right(40), "Passed", id="equal"),
        pytest.param(right(20), right(40), "Passed", id="better"),
        pytest.param(right(9, 9), right(0, 9), "Passed", id="nine prompts are too few"),
        pytest.param(right(10, 10), right(0, 10), "Worse", id="ten prompts can tell"),
        pytest.param([], right(40), "NotMeasured", id="M_(t-1) was not measured"),
        pytest.param(right(40), [], "NotMeasured", id="M_t was not measured"),
    ],
)
def test_a_language_is_worse_when_its_interval_lies_below_zero(
    before: list[float | None], now: list[float | None], decision: str
) -> None:
    """What was not measured, or not well enough, is not worse."""
    found = gates.compare({"es": answers("es", before)}, {"es": answers("es", now)}, ["es"])

    assert [row.decision for row in found] == [decision]


def test_of_many_languages_one_that_looks_worse_by_chance_passes() -> None:
    """Holm's correction: p .03 is worse alone, and not among twenty."""
    before, now = right(40), right(34)
    alone = gates.compare({"es": answers("es", before)}, {"es": answers("es", now)}, ["es"])
    tags = [f"{letter}a" for letter in "bcdfghijklmnopqrstuv"]
    same = {tag: answers(tag, before) for tag in tags}
    many = gates.compare(
        {**same, "es": answers("es", before)}, {**same, "es": answers("es", now)}, ["es", *tags]
    )

    assert alone[0].p == pytest.approx(2 / 2**6)
    assert (alone[0].decision, many[0].decision) == ("Worse", "Passed")
    assert many[0].p == pytest.approx(min(1, 21 * 2 / 2**6))


def test_without_gold_answers_more_answers_in_a_wrong_language_are_worse() -> None:
    """The change is that of the share in the right language, so that less is always worse."""
    unscored: list[float | None] = [None] * 60
    good, bad = answers("es", unscored), answers("es", unscored, off=30)

    (worse,) = gates.compare({"es": good}, {"es": bad}, ["es"])
    (better,) = gates.compare({"es": bad}, {"es": good}, ["es"])

    assert (worse.decision, worse.change) == ("Worse", -0.5)
    assert (better.decision, better.change) == ("Passed", 0.5)


def test_fractions_of_a_score_are_tested_too() -> None:
    """A suite of another package may score from 0 to 1; a clear loss of .3 is one."""
    before, now = answers("es", [0.9] * 60), answers("es", [0.6] * 60)
    (worse,) = gates.compare({"es": before}, {"es": now}, ["es"])
    (same,) = gates.compare({"es": before}, {"es": before}, ["es"])
    assert worse.decision == "Worse"
    assert worse.p is not None
    assert worse.p < 0.001
    assert same.decision == "Passed"


def test_a_suite_that_counts_languages_ignores_gold_answers() -> None:
    """All answers right in one model and none in the other: equal by their languages."""
    before, now = answers("es", right(60)), answers("es", right(0))
    off = answers("es", right(60), off=30)

    (same,) = gates.compare({"es": before}, {"es": now}, ["es"], counts_languages=True)
    (worse,) = gates.compare({"es": before}, {"es": off}, ["es"], counts_languages=True)

    assert (same.decision, same.change) == ("Passed", 0.0)
    assert (worse.decision, worse.change) == ("Worse", -0.5)


def test_only_prompts_that_are_the_same_are_compared() -> None:
    """An id whose prompt has changed says nothing."""
    before, now = answers("es", right(40)), answers("es", right(20))
    other = {name: row.model_copy(update={"prompt": "another"}) for name, row in now.items()}

    (found,) = gates.compare({"es": before}, {"es": other}, ["es"])

    assert (found.decision, found.n) == ("NotMeasured", 0)


def row(language: str, change: float | None, decision: Any = "Passed") -> GatedLanguage:
    return GatedLanguage(language=language, decision=decision, change=change, n=60)


@pytest.mark.parametrize(
    ("least", "changes", "refused", "too_little"),
    [
        pytest.param(None, (-0.1, -0.1), 0, 0, id="no minimum"),
        pytest.param(0.05, (0.04, 0.05), 0, 1, id="below it"),
        pytest.param(0.05, (0.05, 0.05), 0, 0, id="just as much"),
        pytest.param(0.05, (0.2, None), 0, 0, id="not measured in all languages"),
    ],
)
def test_a_gain_below_the_minimum_is_too_little(
    least: float | None, changes: tuple[float | None, float | None], refused: int, too_little: int
) -> None:
    """The gain is the mean change of the other languages; the dominant one does not count."""
    rows = (row("en", -0.5), row("es", changes[0]), row("de", changes[1]))
    found = gates.counts(rows, spec(mode="Enforced", minimumGain=least))

    assert (found["refused"], found["tooLittleGain"]) == (refused, too_little)


@pytest.mark.parametrize(
    ("accuracy", "n", "decision"),
    [
        pytest.param(0.40, 100, "LeftOut", id="upper end .498"),
        pytest.param(0.44, 100, "LeftOut", id="upper end .538"),
        pytest.param(0.46, 100, "Warned", id="upper end .557"),
        pytest.param(0.59, 100, "Warned", id="below the warning"),
        pytest.param(0.60, 100, "Passed", id="at the warning"),
        pytest.param(0.20, 49, "NotMeasured", id="49 pairs are too few"),
        pytest.param(0.20, 50, "LeftOut", id="50 pairs are enough"),
    ],
)
def test_pairs_are_left_out_when_even_the_upper_end_is_too_low(
    accuracy: float, n: int, decision: str
) -> None:
    """Wilson's interval at 95 %: the bounds in the names are by hand."""
    chosen = Gates(mode="Enforced")
    (found,) = gates.reward_accuracies(chosen, [decided(es=(accuracy, n))])

    assert found.decision == decision


def applied(found: Manifest, **chosen: Any) -> Iteration:
    pairs = manifest("pair", counts={"pairs": 300, "pairs.es": 100, "pairs.de": 100, "pairs.en": 0})
    pairs = pairs.model_copy(update={"counts": {**pairs.counts, "pairs": 200}})
    stages: gates.Manifests = {"pair": {"": pairs}, "score": {"": found}}
    return gates.applied(iteration(**chosen), stages)


def test_the_other_languages_train_on() -> None:
    """A language that is left out stops nothing as long as pairs of another one are left."""
    found = applied(decided(es=(0.3, 100), de=(0.9, 100)), mode="Enforced")

    assert (found.left_out, found.stop) == (("es",), None)


def test_without_any_pair_left_the_run_ends_with_its_model() -> None:
    """Every language that has pairs is left out: NoPairs, and M_t is final."""
    scores = decided(es=(0.3, 100), de=(0.3, 100))
    found = applied(scores, mode="Enforced")
    pairs = manifest("pair", counts={"pairs": 200, "pairs.es": 100, "pairs.de": 100})
    stop = gates.stop_of(1, 2, found.spec.gates, {"pair": {"": pairs}, "score": {"": scores}})

    assert found.stop == "NoPairs"
    assert stop is not None
    assert (stop.reason, stop.iteration, stop.final) == ("NoPairs", 1, 1)


def test_disabled_gates_leave_nothing_out_and_say_nothing() -> None:
    """As the paper's code does."""
    scores = decided(es=(0.1, 100), de=(0.1, 100))
    found = applied(scores, mode="Disabled")

    assert (found.left_out, found.stop) == ((), None)
    assert gates.decisions(found.spec.gates, {"score": {"": scores}}) == {}


def gate(*rows: GatedLanguage, **chosen: Any) -> Manifest:
    made = spec(mode="Enforced", **chosen)
    measured = gates.measures(rows, made)
    return manifest("gate", counts=gates.counts(rows, made), measures=measured)


WORSE = GatedLanguage(
    language="es", decision="Worse", n=60, change=-0.3, low=-0.4, high=-0.2, p=0.001
)
BETTER = GatedLanguage(
    language="de", decision="Passed", n=60, change=0.3, low=0.2, high=0.4, p=0.001
)


@pytest.mark.parametrize("last", [2, 3], ids=["the last model", "an earlier one"])
def test_a_refused_model_leaves_the_one_before(last: int) -> None:
    """M2 is worse in one language, so M1 is final, and the message says where and how sure."""
    chosen = Gates(mode="Enforced")
    stop = gates.stop_of(2, last, chosen, {"gate": {"": gate(WORSE, BETTER)}})

    assert stop is not None
    assert (stop.reason, stop.final) == ("StoppedByGate", 1)
    assert "es (-0.300 [-0.400, -0.200], p 0.001)" in stop.message
    assert " de (" not in stop.message


def test_too_little_gain_ends_the_run_with_the_new_model() -> None:
    """It is not worse, so it stays; of the last model nothing is left to stop."""
    made = gate(BETTER, row("es", 0.0), minimumGain=0.5)
    chosen = Gates(mode="Enforced", minimum_gain=0.5)
    stop = gates.stop_of(1, 2, chosen, {"gate": {"": made}})

    assert stop is not None
    assert (stop.reason, stop.final) == ("StoppedByGate", 1)
    assert "+0.150 is below +0.500" in stop.message
    assert gates.stop_of(2, 2, chosen, {"gate": {"": made}}) is None


def test_the_gravest_decision_on_a_language_is_told() -> None:
    """Worse goes before left out, and left out before passed."""
    manifests: gates.Manifests = {
        "gate": {"": gate(WORSE, BETTER)},
        "score": {"": decided(es=(0.3, 100), de=(0.3, 100), en=(0.9, 100))},
    }
    found = gates.decisions(Gates(mode="Enforced"), manifests)

    assert {language: decision for language, (decision, _) in found.items()} == {
        "es": "Worse",
        "de": "LeftOut",
        "en": "Passed",
    }
    assert found["de"][1] == "accuracy 0.300 [0.219, 0.396] n 100"
