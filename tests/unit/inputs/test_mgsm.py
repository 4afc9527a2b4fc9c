"""MGSM: the files of its owners, and accuracies from answers to them."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Suite
from selfimprove_pipeline.contract.rows import Evaluated, Message, Prompt, lines
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.inputs.prompts import Parallel, suite_digest
from selfimprove_pipeline.inputs.suites import mgsm
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.measuring import answers
from selfimprove_pipeline.measuring.intervals import Rate
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.report.forms import markdown, page
from selfimprove_pipeline.report.forms.terminal import terminal
from selfimprove_pipeline.report.story.gather import gather
from selfimprove_pipeline.run.ledger import Ledger
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import check, inference
from selfimprove_pipeline.workers.tasks.shared import Bench
from support.models import tiny_qwen2
from support.runs import run

DATA = Path(__file__).resolve().parents[2] / "data" / "mgsm"
URI = "s3://eval/mgsm"
LANGUAGES = ("en", "es", "de")
GOLD = ["16", "56", "875", "37500", "7.5", "-5"]
"""The answers of the made rows, in their one spelling."""

Files = dict[str, bytes]


def published(layout: str) -> Files:
    """Return the files of one of the owners' layouts by name."""
    return {path.name: path.read_bytes() for path in (DATA / layout).iterdir()}


def read(files: Mapping[str, bytes], *languages: str) -> Parallel:
    """Return what a folder with these files holds."""
    return mgsm.read(URI, languages or LANGUAGES, lambda uri: files.get(uri.rpartition("/")[2]))


@pytest.mark.parametrize("layout", ["tsv", "jsonl"])
def test_the_owners_files_are_read_with_line_numbers_and_canonical_answers(layout: str) -> None:
    """Quotation marks are text, and of a response the number counts, in whatever digits."""
    found = read(published(layout), *LANGUAGES, "bn")

    for rows in found.values():
        assert [row.id for row in rows] == ["1", "2", "3", "4", "5", "6"]
        assert [row.answer for row in rows] == GOLD
    assert '"ripe"' in found["en"][1].prompt
    assert found["bn"][0].prompt.startswith("একটি ট্রামে 12")


def test_both_layouts_of_the_same_rows_are_the_same_suite() -> None:
    """Whoever changes from one to the other computes nothing again."""
    tsv, jsonl = read(published("tsv")), read(published("jsonl"))

    assert {name: suite_digest(rows) for name, rows in tsv.items()} == {
        name: suite_digest(rows) for name, rows in jsonl.items()
    }


def test_our_own_files_keep_their_ids() -> None:
    """The answers are read as the owners' are: a comma groups, a sentence has its language."""
    rows = [
        Prompt(id="a", prompt="q", answer="1,234"),
        Prompt(id="b", prompt="q", answer="Es sind 1.234 Euro."),
        Prompt(id="c", prompt="q", answer="18.0"),
    ]
    (found,) = read({"de.jsonl": lines(rows)}, "de").values()

    assert [(row.id, row.answer) for row in found] == [("a", "1234"), ("b", "1234"), ("c", "18")]


def test_each_language_may_have_another_layout_and_the_first_counts() -> None:
    """Rows meet by their numbers; the table comes before JSONL, and both before our own."""
    tsv, jsonl = published("tsv"), published("jsonl")
    files = {
        "mgsm_en.tsv": tsv["mgsm_en.tsv"],
        "mgsm_en.jsonl": b"not read",
        "mgsm_de.jsonl": jsonl["mgsm_de.jsonl"],
        "de.jsonl": b"not read",
    }
    found = read(files, "en", "de")

    assert [row.answer for row in found["de"]] == GOLD


def test_files_from_other_systems_are_read() -> None:
    """A mark at the beginning, line ends of two characters, an empty last line."""
    (found,) = read({"mgsm_en.tsv": b"\xef\xbb\xbfOne?\t1\r\nTwo?\t2\r\n\r\n"}, "en").values()

    assert [(row.prompt, row.answer) for row in found] == [("One?", "1"), ("Two?", "2")]


def line(**row: object) -> bytes:
    return json.dumps(row).encode() + b"\n"


GOOD = b"One?\t1\nTwo?\t2\n"
BAD: list[tuple[str, str, bytes, str]] = [
    ("one column", "mgsm_de.tsv", b"Eins? 1\nZwei?\t2\n", "mgsm_de.tsv:1: expected question TAB"),
    (
        "three columns",
        "mgsm_de.tsv",
        b"Eins?\t1\nZwei?\t2\t3\n",
        ":2: expected question TAB answer",
    ),
    ("no number", "mgsm_de.tsv", b"Eins?\teins\nZwei?\t2\n", "with a number, found 'eins'"),
    ("an empty answer", "mgsm_de.tsv", b"Eins?\t\nZwei?\t2\n", "with a number, found ''"),
    ("an empty question", "mgsm_de.tsv", b" \t1\nZwei?\t2\n", "expected a question with text"),
    ("other bytes", "mgsm_de.tsv", b"\xe9?\t1\nZwei?\t2\n", "mgsm_de.tsv:1: expected UTF-8"),
    ("a row less", "mgsm_de.tsv", b"Eins?\t1\n", "the ids of mgsm_en.tsv, found a file without 1"),
    ("a row more", "mgsm_de.tsv", GOOD + b"Drei?\t3\n", "found a file beyond 1 of them, such as 3"),
    ("no file", "other.tsv", b"", "mgsm_de.tsv: expected one file a language, found none"),
    ("no JSON", "mgsm_de.jsonl", b"{\n", "mgsm_de.jsonl:1: expected one JSON object a line"),
    ("no query", "mgsm_de.jsonl", line(response="1"), "expected the text field query, found null"),
    ("no response", "mgsm_de.jsonl", line(query="q"), "expected the text field response, found nu"),
    ("a bare number", "mgsm_de.jsonl", line(query="q", response=1), "response, found 1"),
    ("our own without answer", "de.jsonl", line(id="1", prompt="q"), "number, found None"),
    ("our own without prompt", "de.jsonl", line(id="1"), "expected the text field prompt"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_a_mistake_gets_one_line(name: str, content: bytes, message: str) -> None:
    """With the file, where there is one the line, and what was expected."""
    with pytest.raises(InputError) as caught:
        read({"mgsm_en.tsv": GOOD, name: content}, "en", "de")
    first, *others = str(caught.value).splitlines()

    assert message in first
    assert first.startswith(f"{URI}/")
    assert others == []


def test_a_folder_of_other_files_gets_one_line() -> None:
    """Not one a language: it is the wrong folder."""
    with pytest.raises(InputError) as caught:
        read({"README.md": b""})

    assert str(caught.value) == (
        f"{URI}: expected one of mgsm_<language>.tsv, mgsm_<language>.jsonl, <language>.jsonl, "
        "found none for en, es, de"
    )


class Scripted:
    """An engine that knows the answers of each language, in the order of the rows."""

    start_seconds = 0.0
    max_model_len = 4096
    versions: Mapping[str, str] = {}
    has_fixed_batches = False
    engines = 1

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        for request in requests:
            assert request is not None
            number = int(request.key.partition("/")[2])
            language = request.group.rpartition(".")[2]
            is_told = "+languageInstruction" in request.group
            yield Completion(
                key=request.key,
                text=SAID["en" if is_told else language][number - 1],
                finish_reason="stop",
                prompt_tokens=len(request.prompt),
                completion_tokens=1,
            )

    def close(self) -> None:
        """Hold nothing."""


SAID = {
    "en": ["So 16 remain.", "8 * 7 = 56", "It is 875.", "It pays $37,500.00.", "7.5 m", "-5"],
    "es": [
        "La respuesta es 16.",
        "Recibe 54 dólares.",
        "Quedan 875",
        "Paga 37.500 dólares.",
        "7,5 metros",
        "No lo sé.",
    ],
    "de": [
        "The number of passengers on the tram at the end of it all is 16.",
        "Er nimmt 56 Dollar ein.",
        "875",
        "The company pays exactly 37,500 dollars for all of the furniture in its offices.",
        "Es sind 8 Meter.",
        "Es sind 5 Grad unter null.",
    ],
    "bn": [
        "উত্তর হল ১৬।",
        "৫৬ ডলার",
        "The library has 875 books that are left in the end.",
        "৩৭,৫০০ ডলার",
        "৭.৫ মিটার",  # noqa: RUF001
        "\N{MINUS SIGN}৫ ডিগ্রি",
    ],
}
"""Answers with two mistakes and one refusal; a German question is answered in English twice."""


def setting_of(root: Path, **suite: object) -> Setting:
    """Return a run with an mgsm suite, its files and a model in a store."""
    made = run(
        prompts__perIteration=1,
        iterations=1,
        evaluation={"suites": [{"name": "mgsm", "uri": URI, **suite}]},
    )
    store = FolderStore(root / "store")
    for name, content in published("tsv").items():
        store.write(f"{URI}/{name}", content)
    for language in LANGUAGES:
        store.write(f"s3://prompts/set/{language}.jsonl", Prompt(id="p", prompt="q").line())
    repository = Repository(store, bucket="runs", prefix="", cache=root / "cache")
    repository.upload_folder(tiny_qwen2(root / "m0"), "s3://models/m0")
    toolchain = devices.toolchain("transformers", 0)
    return Setting(made, store, repository, toolchain, "transformers", root / "cache")


def told_setting(root: Path) -> Setting:
    """Return the same with M0 told the language, as a baseline."""
    setting = setting_of(root)
    spec = setting.spec
    evaluation = spec.evaluation.model_copy(update={"baselines": ("languageInstruction",)})
    told = setting.run.model_copy(
        update={"spec": spec.model_copy(update={"evaluation": evaluation})}
    )
    return replace(setting, run=told)


def rows_of(setting: Setting) -> dict[str, tuple[Evaluated, ...]]:
    """Evaluate M0 with the scripted engine and note it; return the rows by language.

    Those of a baseline stand below its own name and the language.
    """
    inference.work(
        setting, 0, setting.base, lambda *_: Scripted(), lambda _: None, names=("evaluate",)
    )
    found = survey(setting.iteration(0, setting.base), setting.repository.manifest)
    Ledger(setting).enter(0, setting.base, found)
    return {
        part.removeprefix("mgsm").lstrip("."): setting.repository.rows(manifest, Evaluated)
        for part, manifest in found["evaluate"].manifests.items()
    }


def test_answers_are_judged_by_their_number(tmp_path: Path) -> None:
    """The rows keep what was read, in the language that the answer is in."""
    setting = setting_of(tmp_path)
    assert set(check.work(setting)) == {"model", "prompts", "suites"}
    rows = rows_of(setting)

    assert [row.extracted for row in rows["en"]] == GOLD
    assert [row.score for row in rows["en"]] == [1.0] * 6
    assert [row.extracted for row in rows["es"]] == ["16", "54", "875", "37500", "7.5", None]
    assert [row.score for row in rows["es"]] == [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    assert [row.extracted for row in rows["de"]] == ["16", "56", "875", "37500", "8", "5"]
    assert [row.score for row in rows["de"]] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert [row.is_off_target for row in rows["de"]] == [True, False, False, True, False, False]


def test_the_report_shows_accuracies_with_their_intervals(tmp_path: Path) -> None:
    """Wrong languages beside them, and in the samples the number that was read."""
    setting = setting_of(tmp_path)
    rows_of(setting)
    story = gather(setting.repository, namespace=None, name="test")
    (suite,) = story.suites

    assert suite.measure == "score"
    assert suite.measured[0, "es"].score == Rate(4, 6)
    assert suite.measured[0, "de"].off_target == Rate(2, 6)
    assert suite.means == {0: pytest.approx(4 / 6)}
    shown = markdown.render(story)
    assert "## MGSM: accuracy, with the off-target rate in brackets" in shown
    assert "| M0 | .67 .30–.90 | .67 (.33) .30–.90 | 1.00 .61–1.00 | .67 |" in shown  # noqa: RUF001
    assert "| M0 | de | 6 | .67 | .33 |" in shown
    assert {sample.gold for sample in story.samples} <= set(GOLD)
    assert "read as " in shown


@pytest.mark.parametrize(
    ("language", "asked"),
    [
        ("de", "Antworte auf Deutsch."),
        ("zh-Hant", "请用中文回答。"),
        ("tlh", "Answer in Klingon."),
    ],
)
def test_a_baseline_asks_for_the_language_below_the_prompt(
    tmp_path: Path, language: str, asked: str
) -> None:
    """In that language where we know the sentence; the model itself sees the prompt alone."""
    spec = run().spec
    suite = Suite(name="mgsm", uri=URI)
    renderer = Renderer(tiny_qwen2(tmp_path / "m0"), spec.chat)
    row = Prompt(id="p", prompt="2 + 2?")
    plain, told = (
        answers.request(row, language, suite, spec, renderer, baseline=baseline)
        for baseline in (None, "languageInstruction")
    )
    wanted = Message(role="user", content=f"2 + 2?\n\n{asked}")

    assert plain.prompt == renderer.prompt_ids([Message(role="user", content="2 + 2?")])
    assert told.prompt == renderer.prompt_ids([wanted])
    assert plain.group != told.group


def test_m0_that_is_told_the_language_stands_below_the_models(tmp_path: Path) -> None:
    """With rates and mean of its own on page, in Markdown and in the terminal."""
    setting = told_setting(tmp_path)
    rows = rows_of(setting)
    story = gather(setting.repository, namespace=None, name="test")
    (suite,) = story.suites
    (baseline,) = suite.baselines

    assert set(rows) == {*LANGUAGES[:3], *(f"+languageInstruction.{n}" for n in LANGUAGES[:3])}
    assert suite.measured[0, "es"].score == Rate(4, 6)
    assert baseline.measured["es"].score == Rate(6, 6)
    assert (baseline.mean, baseline.changes) == (1.0, ())
    assert suite.means == {0: pytest.approx(4 / 6)}
    shown = markdown.render(story)
    assert "| M0, told the language | 1.00 .61–1.00 | 1.00 .61–1.00 |" in shown  # noqa: RUF001
    assert "| M0, told the language | de | 6 |" in shown
    assert page.render(story).count("M0, told the language") > 2
    assert 'class="level languageInstruction"' in page.render(story)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal(story))
    assert "M0, told the language" in console.export_text()


def test_languages_that_are_not_trained_stand_apart(tmp_path: Path) -> None:
    """They are told from the run's own languages, and leave the mean as it is."""
    plain = setting_of(tmp_path / "plain")
    rows_of(plain)
    (before,) = gather(plain.repository, namespace=None, name="test").suites
    setting = setting_of(tmp_path / "more", languages=["bn", "en", "es", "de"])
    rows = rows_of(setting)
    story = gather(setting.repository, namespace=None, name="test")
    (suite,) = story.suites

    assert [row.score for row in rows["bn"]] == [1.0] * 6
    assert [row.is_off_target for row in rows["bn"]] == [False, False, True, False, False, False]
    assert suite.means == before.means
    shown = markdown.render(story)
    assert "| Model | es | de | en dominant | Mean of the others | Mean of all |" in shown
    assert "### Languages that are not trained\n\n| Model | bn |" in shown
    assert "| M0 | bn | 6 | 1.00 | .17 |" in shown
    assert "not trained" not in markdown.render(
        gather(plain.repository, namespace=None, name="test")
    )


def test_a_suites_own_languages_are_told_apart_in_it_alone(tmp_path: Path) -> None:
    """A Bengali answer is one where the suite has Bengali, and unknown where nothing has."""
    setting = setting_of(tmp_path, languages=["en", "bn"])
    bench = Bench(setting, setting.base, {})
    (own,) = setting.spec.evaluation.suites
    other = own.model_copy(update={"languages": None})
    text = "এখন ট্রামে মোট ষোলো জন যাত্রী আছে বলে মনে হয়।"

    assert bench.identify(own)(text) == "bn"
    assert bench.identify(own)("Ahora lleva en total dieciséis pasajeros.") == "es"
    assert bench.identify(other)(text) is None


def test_a_suite_may_leave_out_languages_of_the_run(tmp_path: Path) -> None:
    """Without one of the others there is no mean, and none is promised."""
    setting = setting_of(tmp_path, languages=["en", "de"])
    assert set(rows_of(setting)) == {"en", "de"}
    story = gather(setting.repository, namespace=None, name="test")

    assert story.suites[0].means == {}
    shown = markdown.render(story)
    assert "| Model | de | en dominant | Mean of the others | Mean of all |" in shown
    assert "1.00 .61–1.00 | – | – |" in shown  # noqa: RUF001


def test_rows_of_other_suites_know_nothing_of_numbers() -> None:
    """Their bytes are those from before there was MGSM: the field is absent, not null."""
    row = Prompt(id="1", prompt="q", answer="18")
    made = Completion(
        key="1", text="It is 18", finish_reason="stop", prompt_tokens=1, completion_tokens=1
    )
    said = answers.evaluated(made, row, "en", lambda _: None)

    assert b"extracted" not in said.line()
    assert said.score == 0
    assert Evaluated.of_line(said.line()) == said
    number = answers.evaluated(made, row, "en", lambda _: None, has_numbers=True)
    assert b'"extracted":"18"' in number.line()
    assert Evaluated.of_line(number.line()) == number
