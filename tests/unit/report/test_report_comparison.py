"""Two models told apart: differences, their correction, and what is said of what is missing."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Index, IterationIndex, Manifest
from selfimprove_pipeline.contract.rows import Evaluated, lines
from selfimprove_pipeline.report.models import contenders, handouts, records
from selfimprove_pipeline.report.models.comparison import Comparison, SuiteContrast, suite_contrast
from selfimprove_pipeline.report.models.contenders import Contender
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository

Rows = dict[str, Evaluated]


def row(name: str, *, is_right: bool | None = None, is_off: bool = False) -> Evaluated:
    return Evaluated(
        id=name,
        language="de",
        prompt=f"question {name}",
        completion="an answer",
        finish_reason="stop",
        completion_tokens=2,
        score=None if is_right is None else float(is_right),
        identified="en" if is_off else "de",
        is_off_target=is_off,
        is_empty=False,
        is_evasive=False,
    )


def scored(right: int, n: int = 60) -> Rows:
    """Return answers of which the first ones are right."""
    return {f"p{place}": row(f"p{place}", is_right=place < right) for place in range(n)}


def contrast(
    answers: Mapping[str, tuple[Rows, Rows]],
    notes: list[str] | None = None,
    *,
    unseen: Collection[str] = (),
) -> SuiteContrast:
    found = suite_contrast("suite", answers, [] if notes is None else notes, unseen=unseen)
    assert found is not None
    return found


def test_swapped_models_turn_the_sign_of_every_number() -> None:
    """Differences and bounds change sides, p values stay."""
    answers = {"es": (scored(20), scored(33)), "de": (scored(30), scored(25))}
    found = contrast(answers)
    swapped = contrast({language: (b, a) for language, (a, b) in answers.items()})

    assert found.mean is not None
    assert swapped.mean is not None
    one = (*found.languages, found.mean)
    for here, there in zip(one, (*swapped.languages, swapped.mean), strict=True):
        assert here.difference is not None
        assert there.difference is not None
        assert there.value == pytest.approx(-here.value)
        assert there.difference.interval.low == pytest.approx(-here.difference.interval.high)
        assert there.difference.interval.high == pytest.approx(-here.difference.interval.low)
        assert (there.p, there.adjusted) == (here.p, here.adjusted)
        assert there.sign == -here.sign


def test_a_model_does_not_differ_from_itself() -> None:
    """The same answers on both sides: no difference, p is 1, and nothing is better."""
    (found,) = contrast({"es": (scored(20), scored(20))}).languages

    assert (found.value, found.p, found.sign) == (0, 1, 0)


def test_of_many_languages_one_alone_is_not_believed_as_easily() -> None:
    """Six of six changes for the better have p .031: enough for one language, not for two."""
    pair = (scored(20), scored(26))
    (alone,) = contrast({"es": pair}).languages
    among = contrast({"es": pair, "de": (scored(20), scored(20))}).languages[0]

    assert (alone.p, alone.adjusted, alone.sign) == (2 / 64, 2 / 64, 1)
    assert (among.p, among.adjusted, among.sign) == (2 / 64, 4 / 64, 0)


def test_the_mean_counts_every_language_the_same_and_every_prompt_once() -> None:
    """One language gains ten of 60 prompts, the other four of these: p is that of ten."""
    found = contrast({"es": (scored(20), scored(30)), "de": (scored(20), scored(24))})

    assert found.mean is not None
    assert found.mean.difference is not None
    assert found.mean.value == pytest.approx(7 / 60)
    assert found.mean.difference.n == 60
    assert found.mean.p == pytest.approx(2 / 2**10)
    assert found.mean.sign == 1


def test_languages_that_are_not_trained_are_in_no_mean() -> None:
    """They stand apart, and the correction counts them: they are tests of the suite as well."""
    trained = {"es": (scored(20), scored(26)), "de": (scored(20), scored(24))}
    before = contrast(trained)
    found = contrast({**trained, "bn": (scored(20), scored(20))}, unseen={"bn"})
    (_, sheet), (title, apart) = handouts.comparison_sheets(found)
    told = Comparison(a="A", b="B", suites=(found,), notes=())

    assert found.mean == before.mean
    assert [one.language for one in found.languages] == ["es", "de"]
    assert [one.adjusted for one in before.languages] == [4 / 64, 8 / 64]
    assert [one.adjusted for one in found.languages] == [6 / 64, 16 / 64]
    assert [row[0] for row in sheet.rows] == ["es", "de", "mean of 2"]
    assert [row[0] for row in apart.rows] == ["bn"]
    assert title == "suite: right answers in languages that are not trained, and in no mean"
    assert f"## {title}\n\n| Language |" in handouts.comparison_markdown(told)
    assert [row["language"] for row in records.comparison_records(told)] == [
        "es",
        "de",
        "bn",
        "mean",
    ]


def test_fewer_answers_in_a_wrong_language_are_better() -> None:
    """Without gold answers a suite is judged by the language, where less is better."""
    many = {f"p{place}": row(f"p{place}", is_off=place < 30) for place in range(60)}
    few = {f"p{place}": row(f"p{place}", is_off=place < 10) for place in range(60)}
    found = contrast({"de": (many, few)})
    (record,) = records.comparison_records(Comparison(a="A", b="B", suites=(found,), notes=()))

    assert found.measure == "offTarget"
    assert (record["verdict"], record["difference"]) == ("better", pytest.approx(-1 / 3))


def test_only_prompts_that_both_have_answered_count_and_that_is_said() -> None:
    """An id that means another prompt is not the same prompt."""
    a, b = scored(20, 40), scored(30, 60)
    b["p0"] = b["p0"].model_copy(update={"prompt": "another question"})
    notes: list[str] = []
    (found,) = contrast({"es": (a, b)}, notes).languages

    assert found.difference is not None
    assert found.difference.n == 39
    assert notes == [
        "suite, es: compared on the 39 prompts that both have answered (40 of A, 60 of B)"
    ]


def test_languages_without_common_prompts_are_named() -> None:
    """The others are compared; with nothing left there is no contrast."""
    strangers = {f"q{place}": row(f"q{place}", is_right=True) for place in range(5)}
    notes: list[str] = []
    found = contrast({"es": (scored(20), scored(30)), "de": (scored(3), strangers)}, notes)

    assert [one.language for one in found.languages] == ["es"]
    assert found.mean is None
    assert notes == ["suite, de: not compared, no prompt is common to both (60 of A, 5 of B)"]
    assert suite_contrast("suite", {"de": (scored(3), strangers)}, notes) is None


def test_right_answers_are_not_compared_with_answers_that_nobody_judged() -> None:
    """One side has gold answers, the other has none."""
    unjudged = {f"p{place}": row(f"p{place}") for place in range(60)}
    notes: list[str] = []

    assert suite_contrast("suite", {"es": (scored(20), unjudged)}, notes) is None
    assert notes == ["suite, es: not compared, one of them was measured without gold answers"]


def test_very_few_prompts_decide_nothing() -> None:
    """Nine changes for the better have p .004, and still are too few to tell."""
    found = contrast({"es": (scored(0, 9), scored(9, 9))})
    (record,) = records.comparison_records(Comparison(a="A", b="B", suites=(found,), notes=()))

    assert record["p"] == pytest.approx(2 / 2**9)
    assert record["verdict"] == "too few prompts to tell"


class Store:
    """A store in which models have been evaluated."""

    def __init__(self, folder: Path) -> None:
        store = FolderStore(folder / "store")
        self.repository = Repository(store, bucket="runs", prefix="", cache=folder / "cache")

    def evaluated(
        self,
        run: str,
        model: str,
        parts: Mapping[str, Rows],
        *,
        max_tokens: int = 32,
        others: Sequence[str] = ("es", "de"),
    ) -> None:
        """Note a run that has measured one model, on suites with languages of their own."""
        recipe = {
            "languages.dominant": "en",
            "languages.others": list(others),
            "generation.maxTokens": max_tokens,
            "suite.languages": ["en", "th", "es", "de", "bn"],
        }
        keys = {part: self._commit(part, model, rows, recipe) for part, rows in parts.items()}
        entry = IterationIndex(
            index=0, model_uri="s3://m", model_digest=model, keys={"evaluate": keys}
        )
        index = Index(name=run, outcome="Succeeded", recipe={}, iterations=(entry,))
        self.repository.write_index(index, None)

    def model(self, digest: str) -> Contender:
        return contenders.of_digest(digest, self.repository, digest)

    def _commit(self, part: str, model: str, rows: Rows, recipe: dict[str, Any]) -> str:
        key = manifests.digest([part, model, recipe])[:32]
        manifest = Manifest(
            stage="evaluate",
            part=part,
            key=key,
            digest="",
            files=(),
            inputs={"model": model, "suite": manifests.digest(sorted(rows))},
            recipe=recipe,
            versions={"template": model},
            created=f"2026-01-01T00:00:{recipe['generation.maxTokens']:02}Z",
        )
        content = lines(rows.values())
        self.repository.commit(manifest, {f"{part.split('.')[1]}.jsonl": content})
        return key


def labels(found: Sequence[SuiteContrast]) -> dict[str, list[str | None]]:
    return {suite.name: [one.language for one in suite.languages] for suite in found}


def test_evaluations_of_a_model_are_found_whoever_made_them(tmp_path: Path) -> None:
    """Two runs have measured A on a suite each; what B was not measured on is said in one line."""
    store = Store(tmp_path)
    store.evaluated("one", "A", {"s.de": scored(20), "s.en": scored(40), "s.es": scored(9)})
    store.evaluated("two", "A", {"t.en": scored(5), "t.de": scored(5)})
    store.evaluated("three", "B", {"s.es": scored(20), "s.en": scored(41), "s.de": scored(7)})
    found = contenders.compare(store.model("A"), store.model("B"))

    assert labels(found.suites) == {"s": ["es", "de", "en"]}
    assert found.notes == ("t: not compared, not measured for B",)


def test_languages_that_one_of_two_recipes_does_not_train_stand_apart(tmp_path: Path) -> None:
    """B's run trains Bengali and A's does not: no mean holds it; Thai is in neither."""
    store = Store(tmp_path)
    parts = {f"s.{tag}": scored(9) for tag in ("bn", "de", "en", "es", "th")}
    store.evaluated("one", "A", parts)
    store.evaluated("two", "B", parts, others=("es", "de", "bn"))
    (found,) = contenders.compare(store.model("A"), store.model("B")).suites

    assert [one.language for one in found.languages] == ["es", "de", "en"]
    assert [one.language for one in found.unseen] == ["th", "bn"]
    ((_, trained), _) = handouts.comparison_sheets(found)
    assert trained.rows[-1][0] == "mean of 3"


def test_of_several_evaluations_those_made_alike_are_compared(tmp_path: Path) -> None:
    """B was measured with 32 tokens; of A's two evaluations the later one had 48."""
    store = Store(tmp_path)
    store.evaluated("short", "A", {"s.es": scored(10)}, max_tokens=32)
    store.evaluated("long", "A", {"s.es": scored(30)}, max_tokens=48)
    store.evaluated("other", "B", {"s.es": scored(20)}, max_tokens=32)
    found = contenders.compare(store.model("A"), store.model("B"))

    assert found.suites[0].languages[0].value == pytest.approx(10 / 60)
    assert found.notes == ()


def test_evaluations_made_with_other_settings_are_compared_and_that_is_said(
    tmp_path: Path,
) -> None:
    """Once for all languages; templates belong to the models and are no setting."""
    store = Store(tmp_path)
    store.evaluated("one", "A", {"s.es": scored(10), "s.de": scored(10)}, max_tokens=32)
    store.evaluated("two", "B", {"s.es": scored(20), "s.de": scored(10)}, max_tokens=48)
    found = contenders.compare(store.model("A"), store.model("B"))

    assert found.notes == (
        "s, es, de: measured with other settings (generation.maxTokens: 32 for A, 48 for B)",
    )


def test_models_with_nothing_in_common_are_refused_with_the_reasons(tmp_path: Path) -> None:
    """As is a model that nobody has evaluated."""
    store = Store(tmp_path)
    store.evaluated("one", "A", {"s.es": scored(10)})
    store.evaluated("two", "B", {"t.es": scored(20)})

    with pytest.raises(InputError) as error:
        contenders.compare(store.model("A"), store.model("B"))
    assert str(error.value).splitlines() == [
        "expected prompts that both have answered, found none",
        "s: not compared, not measured for B",
        "t: not compared, not measured for A",
    ]
    with pytest.raises(InputError, match="C: expected a model that was evaluated"):
        store.model("C")
