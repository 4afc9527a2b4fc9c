"""Stories made by hand, and a reader of the pages that show them."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from typing_extensions import override

from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring.intervals import Difference, Interval, Rate
from selfimprove_pipeline.report.story.making import (
    Agreement,
    Artifact,
    Pairs,
    Step,
    Training,
    Work,
)
from selfimprove_pipeline.report.story.story import (
    Change,
    Judged,
    Measured,
    Model,
    Sample,
    Story,
    SuiteStory,
    Verdicts,
)

EVIL = (
    "<script>alert(1)</script>\n| a | `b` | **c** [d](javascript:e) ![f](https://g.example/h.png)"
)


def measured(right: int, *, off_target: int = 0) -> Measured:
    """Return what 100 answers amount to."""
    return Measured(
        score=Rate(right, 100),
        off_target=Rate(off_target, 100),
        evasive=Rate(3, 100),
        empty=Rate(1, 100),
        truncated=Rate(2, 100),
        mean_length=1234.4,
    )


def change(before: int, after: int, language: str | None, low: float, high: float) -> Change:
    """Return a change in the middle of its interval."""
    value = (low + high) / 2
    difference = Difference(value, Interval(low, high), 100)
    p = 0.5 if low <= 0 <= high else 0.001
    return Change(
        before=before,
        after=after,
        language=language,
        a=0.0,
        b=value,
        difference=difference,
        p=p,
        adjusted=None if language is None else p,
    )


def suite(**changes: Any) -> SuiteStory:
    """Return two models in two languages: de from 30 to 65, en from 77 to 81 of 100."""
    values: dict[str, Any] = {
        "name": "exactMatch",
        "measure": "score",
        "measured": {
            (0, "de"): measured(30, off_target=17),
            (1, "de"): measured(65),
            (0, "en"): measured(77),
            (1, "en"): measured(81),
        },
        "means": {0: 0.30, 1: 0.65},
        "changes": (
            change(0, 1, "de", 0.25, 0.45),
            change(0, 1, "en", -0.02, 0.10),
            change(0, 1, None, 0.25, 0.45),
        ),
        **changes,
    }
    return SuiteStory(**values)


def judged(language: str, iteration: int, win: float, tie: float) -> Judged:
    """Return what 100 verdicts amount to; Wilson's interval is that of 65 wins."""
    measures = {
        "winRate": win + tie / 2,
        "winRateLow": 0.55,
        "winRateHigh": 0.74,
        "lcWinRate": 0.61,
        "win": win,
        "tie": tie,
        "lose": 1 - win - tie,
        "positionBias": 0.25,
    }
    return Judged(
        suite="headToHead",
        iteration=iteration,
        language=language,
        measures=measures,
        decided=97,
        malformed=3,
    )


def judged_suite(name: str = "headToHead", **changes: Any) -> SuiteStory:
    """Return M1 against M0 in German, .5 won and .3 tied."""
    verdicts = Verdicts(
        shown="winRate",
        judged={(1, "de"): judged("de", 1, 0.5, 0.3)},
        means={1: 0.65},
        changes=(change(0, 1, "de", 0.05, 0.25), change(0, 1, None, 0.05, 0.25)),
        opponent_lengths={"de": 1000.0},
    )
    return suite(name=name, measure="offTarget", changes=(), verdicts=verdicts, **changes)


def step(number: int) -> Step:
    """Return one step of training, of 2 s and 300 tokens."""
    columns = {"step": number, "loss": 1 / number, "rewards/margins": number / 10}
    return Step.model_validate({**columns, "seconds": 2.0, "tokens": 300.0})


def evaluated(completion: str) -> Evaluated:
    """Return one right answer."""
    return Evaluated(
        id="p1",
        language="de",
        prompt="Wie viel?",
        completion=completion,
        finish_reason="stop",
        completion_tokens=9,
        score=1.0,
        identified="de",
        is_off_target=False,
        is_empty=False,
        is_evasive=False,
    )


def story(**changes: Any) -> Story:
    """Return a finished run of one iteration."""
    values: dict[str, Any] = {
        "name": "small",
        "outcome": "Succeeded",
        "message": "",
        "dominant": "en",
        "others": ("de",),
        "iterations": 1,
        "models": (Model(index=0, uri="s3://models/m0", digest="d0"),),
        "suites": (suite(),),
        "pairs": (
            Pairs(iteration=0, language="de", kept=1170, drops={"empty": 3, "x": 9}, untrained=2),
        ),
        "training": (
            Training(
                iteration=0,
                steps=tuple(step(number) for number in range(1, 6)),
            ),
        ),
        "agreements": (Agreement(iteration=0, language="de", accuracy=Rate(60, 80), ties=20),),
        "work": (
            Work(
                iteration=0,
                stage="generate",
                wall=200,
                engine_start=50,
                artifacts=3,
                computed=1,
                prompt_tokens=5000,
                completion_tokens=24000,
            ),
        ),
        "artifacts": (Artifact(iteration=0, stage="pair", part="", key="f00d", digest="beef"),),
        "samples": (
            Sample(
                suite="exactMatch",
                language="de",
                id="p1",
                prompt="Wie viel ist 1 + 1?",
                gold="2",
                answers={0: evaluated("Drei"), 1: evaluated("Zwei")},
            ),
        ),
        "versions": {"generate": {"vllm": "0.32.0"}},
        "recipe": "iterations: 1\n",
        "notes": (),
        **changes,
    }
    return Story(**values)


def in_progress() -> Story:
    """Return a run that has nothing yet but its recipe."""
    return story(
        outcome="Running",
        models=(),
        suites=(suite(measured={}, means={}, changes=()),),
        pairs=(),
        training=(),
        agreements=(),
        work=(),
        artifacts=(),
        samples=(),
        versions={},
    )


def hostile() -> Story:
    """Return a story in which every text that comes from outside tries to be markup."""
    (sample,) = story().samples
    return story(
        name=EVIL,
        message=EVIL,
        models=(Model(index=0, uri=EVIL, digest=EVIL),),
        pairs=(Pairs(iteration=0, language="de", kept=1, drops={EVIL: 1}, untrained=0),),
        samples=(replace(sample, id=EVIL, prompt=EVIL, gold=EVIL, answers={0: evaluated(EVIL)}),),
        versions={EVIL: {EVIL: EVIL}},
        recipe=f"{EVIL}\n```\n{EVIL}\n",
        notes=(EVIL,),
    )


class Reader(HTMLParser):
    """Collects tags, attributes, cells and texts of a page."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.text = ""

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def read(html: str) -> Reader:
    """Return what a parser finds; every tag is closed."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def words(cells: list[str]) -> list[str]:
    """Return cells with their white space made single."""
    return [" ".join(cell.split()) for cell in cells]
