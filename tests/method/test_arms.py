"""The method on the miniature world: what must gain, what must lose, and what must do nothing.

One iteration from the same M0, answers and translations; the arms differ in their pairs and in
the weight of the NLL term alone. Real TRL trains, the transformers engine answers, and the
acceptance set judges, which no stage has seen.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest

from selfimprove_pipeline.contract.recipe import Spec, Suite, resolve
from selfimprove_pipeline.contract.rows import Answer, Evaluated, Pair, Translation, lines
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.engine.transformers_engine import TransformersEngine
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.inputs.prompts import Parallel
from selfimprove_pipeline.inputs.run_file.validation import load
from selfimprove_pipeline.measuring.answers import evaluated, request
from selfimprove_pipeline.method import generate, pair, translate
from selfimprove_pipeline.method.pair import Texts
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.method.translate import Direction
from selfimprove_pipeline.text import languages
from selfimprove_pipeline.text.matching import is_match, normalized
from support.cli import MINIATURE, REPOSITORY
from support.training import Training, train_all

pytestmark = pytest.mark.training

ACCEPTANCE = REPOSITORY / "tests" / "data" / "miniature" / "acceptance"
SUITE = Suite(name="exactMatch", uri="s3://checker/acceptance")

Pairs = Sequence[Pair]


@dataclass(frozen=True)
class Judged:
    """What the acceptance set says of a model, by language."""

    score: Mapping[str, float]
    english: Mapping[str, float]
    """english is the share of answers that are the right one in English, or look English."""

    @property
    def others(self) -> float:
        """Mean score of the languages besides English."""
        return fmean((self.score["es"], self.score["de"]))


@pytest.fixture(scope="module")
def spec() -> Spec:
    """Return the recipe of the demo."""
    return resolve(load(MINIATURE / "run.yaml")).spec


def read(folder: Path, spec: Spec) -> Parallel:
    files = {name: (folder / f"{name}.jsonl").read_bytes() for name in spec.languages.all()}
    return prompts.read(dict(files), folder.as_uri())


def completed(engine: TransformersEngine, requests: Iterable[Request]) -> dict[str, Completion]:
    return {completion.key: completion for completion in engine.complete(requests)}


def engine_of(model: Path, spec: Spec) -> tuple[TransformersEngine, Renderer]:
    renderer = Renderer(model, spec.chat)
    engine = TransformersEngine(
        model,
        stop_token_ids=renderer.end_of_turn_ids,
        max_model_len=spec.inference.max_model_len,
    )
    return engine, renderer


@pytest.fixture(scope="module")
def texts(spec: Spec) -> Texts:
    """Return what M0 answers and how it translates, made once for all arms."""
    engine, renderer = engine_of(MINIATURE / "m0", spec)
    chosen = {
        language: rows[: spec.prompts.per_iteration]
        for language, rows in read(MINIATURE / "prompts", spec).items()
    }
    answers: dict[str, dict[str, Answer]] = {}
    for language, rows in chosen.items():
        first = (generate.request(row, language, spec, renderer) for row in rows)
        done = completed(engine, first)
        answers[language] = {key: generate.answer(made, language) for key, made in done.items()}
    translations: dict[tuple[str, str], dict[str, Translation]] = {}
    for source, target in spec.languages.directions():
        direction = Direction(source, target)
        asked = (
            translate.request(answer, direction, spec, renderer)
            for answer in answers[source].values()
            if translate.has_source(answer)
        )
        translations[source, target] = {
            key: translate.translation(made, direction, attempt=1)
            for key, made in completed(engine, asked).items()
        }
    return Texts(chosen, answers, translations)


def judge(model: Path, spec: Spec) -> Judged:
    """Let a model answer the acceptance set."""
    engine, renderer = engine_of(model, spec)
    rows = read(ACCEPTANCE, spec)
    identify = languages.identifier(spec.languages.all())
    found: dict[str, list[Evaluated]] = {}
    for language, own in rows.items():
        asked = (request(row, language, SUITE, spec, renderer) for row in own)
        done = completed(engine, asked)
        found[language] = [evaluated(done[row.id], row, language, identify) for row in own]
    gold = {row.id: row.answer or "" for row in rows["en"]}
    return Judged(
        score={name: fmean(row.score or 0.0 for row in own) for name, own in found.items()},
        english={
            name: fmean(
                row.identified == "en" or is_match(row.completion, gold[row.id]) for row in own
            )
            for name, own in found.items()
        },
    )


def flipped(pairs: Pairs) -> list[Pair]:
    """Prefer what the method disprefers."""
    return [
        row.model_copy(update={"chosen": row.rejected, "rejected": row.chosen}) for row in pairs
    ]


def shuffled(pairs: Pairs) -> list[Pair]:
    """Prefer by the toss of a coin."""
    coin = random.Random(3)
    return [one for row in pairs for one in (flipped([row]) if coin.random() < 0.5 else [row])]


def untranslated(pairs: Pairs, texts: Texts) -> list[Pair]:
    """Prefer the English answer as it is in the other languages."""
    made = []
    for row in pairs:
        turn = row.chosen[0].model_copy(update={"content": texts.answers["en"][row.id].completion})
        made.append(row if row.language == "en" else row.model_copy(update={"chosen": (turn,)}))
    return [r for r in made if normalized(r.chosen[0].content) != normalized(r.rejected[0].content)]


@pytest.fixture(scope="module")
def arms(spec: Spec, texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    """Return what every arm's M1 comes to, and M0 beside them."""
    folder = tmp_path_factory.mktemp("arms")
    pairs = pair.pair(texts, spec, languages.identifier(spec.languages.all())).pairs
    made: dict[str, tuple[Pairs, float]] = {
        "lidr": (pairs, 1.0),
        "flipped": (flipped(pairs), 1.0),
        "untranslated": (untranslated(pairs, texts), 1.0),
        "dpo": (pairs, 0.0),
        "dpo flipped": (flipped(pairs), 0.0),
        "dpo shuffled": (shuffled(pairs), 0.0),
    }
    trainings = [
        _training(name, rows, weight, spec, folder) for name, (rows, weight) in made.items()
    ]
    outcomes = train_all(trainings, folder)
    assert [outcome["exits"] for outcome in outcomes.values()] == [[0]] * len(trainings)
    judged = {one.name: judge(one.output, spec) for one in trainings}
    return {"m0": judge(MINIATURE / "m0", spec), **judged}


def _training(name: str, rows: Pairs, nll_weight: float, spec: Spec, folder: Path) -> Training:
    own = folder / name.replace(" ", "-")
    own.mkdir()
    (own / "pairs.jsonl").write_bytes(lines(rows))
    recipe = spec.training.model_dump(mode="json", by_alias=True, exclude={"lora", "report_to"})
    return Training(
        name=name,
        folder=own,
        model=MINIATURE / "m0",
        pairs=own / "pairs.jsonl",
        recipe={**recipe, "nllWeight": nll_weight},
    )


def gain(arms: Mapping[str, Judged], name: str) -> tuple[float, float]:
    """Return the changes of the others' mean and of English from M0."""
    m0, m1 = arms["m0"], arms[name]
    return m1.others - m0.others, m1.score["en"] - m0.score["en"]


def test_the_method_lifts_the_weak_languages_and_spares_the_dominant_one(
    arms: Mapping[str, Judged],
) -> None:
    """Spanish and German gain at least .12 in one iteration, English loses at most .03."""
    others, english = gain(arms, "lidr")

    assert others >= 0.12
    assert english >= -0.03


def test_flipped_pairs_hurt_every_language(arms: Mapping[str, Judged]) -> None:
    """The direction of the preference is what teaches."""
    others, english = gain(arms, "flipped")

    assert others <= -0.03
    assert english <= -0.05


def test_without_translation_the_model_drifts_to_the_dominant_language(
    arms: Mapping[str, Judged],
) -> None:
    """The chosen text must be in the prompt's language, or German answers turn English."""
    others, _ = gain(arms, "untranslated")

    assert others <= -0.03
    assert arms["untranslated"].english["de"] >= arms["m0"].english["de"] + 0.10


def test_the_dpo_term_alone_gains(arms: Mapping[str, Judged]) -> None:
    """With alpha 0 there is no other gradient: a missing DPO term would gain nothing."""
    assert gain(arms, "dpo")[0] >= 0.12


def test_the_dpo_term_alone_hurts_when_flipped(arms: Mapping[str, Judged]) -> None:
    """With alpha 0 the sign of the preference is all there is."""
    assert gain(arms, "dpo flipped")[0] <= -0.03


def test_random_preferences_teach_nothing(arms: Mapping[str, Judged]) -> None:
    """With alpha 0 and labels by the toss of a coin the gain is noise."""
    assert abs(gain(arms, "dpo shuffled")[0]) <= 0.08
