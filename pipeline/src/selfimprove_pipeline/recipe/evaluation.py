"""How models are measured: suites, the judge and its budget, baselines."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from selfimprove_pipeline.recipe.base import (
    Language,
    Name,
    ObjectUri,
    Part,
    Rule,
    SecretRef,
    affects,
    repeated,
)
from selfimprove_pipeline.recipe.sources import Languages

SUITE_KINDS: Final = (
    "exactMatch",
    "offTarget",
    "mgsm",
    "xAlpacaEval",
    "headToHead",
    "mtBench",
    "nlp",
)
"""The kinds of suites that are built in."""
_KINDS: Final = f"[{', '.join(repr(kind) for kind in SUITE_KINDS)}]"
_KIND: Final = "(has(self.kind) ? self.kind : self.name)"


class Suite(Part):
    """One evaluation suite."""

    rules = (
        Rule(
            f"has(self.kind) ? (self.kind in {_KINDS} || self.kind.contains('/'))"
            f" : self.name in {_KINDS}",
            f"expected kind ({', '.join(SUITE_KINDS)} or PACKAGE/NAME)",
            lambda self: None if self.is_known else self.kind or f"the name {self.name} alone",
        ),
        Rule(
            f"({_KIND} == 'xAlpacaEval') == has(self.referenceUri)",
            "xAlpacaEval needs referenceUri, and no other kind has it",
            lambda self: "" if self.has_references == (self.reference_uri is None) else None,
        ),
        Rule(
            f"has(self.uri) || ({_KIND} == 'nlp' && has(self.tasks))",
            "expected uri; only nlp with tasks needs none",
            lambda self: "" if self.uri is None and not (self.has_tasks and self.tasks) else None,
        ),
        Rule(
            f"{_KIND} == 'nlp' ? !has(self.languages) && !has(self.maxTokens)"
            " : !has(self.tasks) && !has(self.numFewshot) && !has(self.applyChatTemplate)",
            "tasks, numFewshot and applyChatTemplate belong to nlp, languages and maxTokens to all"
            " other kinds",
            lambda self: ", ".join(self.foreign) or None,
        ),
    )

    name: Annotated[
        Annotated[str, StringConstraints(max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9-]*$")],
        affects("evaluate"),
    ]
    """name of the suite, once a run."""

    kind: Annotated[
        Annotated[
            str,
            StringConstraints(
                max_length=127, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*(/[A-Za-z][A-Za-z0-9-]*)?$"
            ),
        ]
        | None,
        affects("evaluate"),
    ] = None
    """kind of the suite: `exactMatch` compares with gold answers, `offTarget` counts answers in
    the wrong language, `mgsm` compares numbers; the judge compares with references
    (`xAlpacaEval`) or with M0 (`headToHead`), or grades two turns (`mtBench`); `nlp` runs tasks of
    lm-eval; PACKAGE/NAME is an installed one. Unset means the name."""

    uri: ObjectUri | None = None
    """uri of the folder with one file a language: `<language>.jsonl`, for `mgsm` also the
    owners' files, for `xAlpacaEval` `<language>.json` in alpaca-eval's format, for `mtBench`
    FastChat's questions; for `nlp` lm-eval's task files and their data."""

    reference_uri: ObjectUri | None = None
    """referenceUri of the outputs that `xAlpacaEval` compares with, `<language>.json` as well."""

    max_tokens: Annotated[Annotated[int, Field(ge=1, le=131_072)] | None, affects("evaluate")] = (
        None
    )
    """maxTokens of an answer. Unset means `generation.maxTokens`."""

    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """limit takes the first rows alone. Unset means all."""

    languages: Annotated[
        Annotated[tuple[Language, ...], Field(min_length=1, max_length=64)] | None,
        affects("evaluate", "judge"),
    ] = None
    """languages of the suite, also such as are not trained. Unset means the run's."""

    tasks: Annotated[
        Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)] | None, affects("evaluate")
    ] = None
    """tasks, groups and tags of lm-eval for `nlp`. Unset means all of the folder."""

    num_fewshot: Annotated[Annotated[int, Field(ge=0, le=100)] | None, affects("evaluate")] = None
    """numFewshot examples before each question of `nlp`. Unset means what a task says."""

    apply_chat_template: Annotated[bool | None, affects("evaluate")] = None
    """applyChatTemplate to the questions of `nlp`. Unset means false."""

    def languages_in(self, run: Languages) -> tuple[str, ...]:
        """Return the languages to evaluate in, each once."""
        return run.all() if self.languages is None else tuple(dict.fromkeys(self.languages))

    @property
    def is_known(self) -> bool:
        """Whether the kind is built in, or stated as one of a package."""
        return self._kind in SUITE_KINDS or "/" in (self.kind or "")

    @property
    def foreign(self) -> list[str]:
        """The fields that are set and belong to other kinds."""
        tasks = {
            "tasks": self.tasks,
            "numFewshot": self.num_fewshot,
            "applyChatTemplate": self.apply_chat_template,
        }
        languages = {"languages": self.languages, "maxTokens": self.max_tokens}
        others = languages if self.has_tasks else tasks
        return [name for name, value in others.items() if value is not None]

    @property
    def _kind(self) -> str:
        """The kind, which the name tells where the file does not."""
        return self.kind or self.name

    @property
    def has_numbers(self) -> bool:
        """Whether answers are numbers, wherever they stand in the text."""
        return self._kind == "mgsm"

    @property
    def needs_answers(self) -> bool:
        """Whether every row needs a gold answer."""
        return self._kind in ("exactMatch", "mgsm")

    @property
    def counts_languages(self) -> bool:
        """Whether it is about the language of answers alone, also where its rows have gold."""
        return self._kind == "offTarget"

    @property
    def has_references(self) -> bool:
        """Whether answers are compared with given outputs."""
        return self._kind == "xAlpacaEval"

    @property
    def meets_m0(self) -> bool:
        """Whether answers are compared with M0's own."""
        return self._kind == "headToHead"

    @property
    def has_turns(self) -> bool:
        """Whether a question has a second turn, and the judge grades each answer."""
        return self._kind == "mtBench"

    @property
    def has_tasks(self) -> bool:
        """Whether it has tasks of lm-eval in the place of languages."""
        return self._kind == "nlp"

    @property
    def package(self) -> str | None:
        """The kind where another package brings it, None of one that is built in."""
        return self._kind if "/" in self._kind else None

    @property
    def is_judged(self) -> bool:
        """Whether a judge compares the answers with others, or grades them."""
        return self.has_references or self.meets_m0 or self.has_turns


Price = Annotated[float, Field(ge=0, le=1e6)]


class JudgeBudget(Part):
    """What the judge of a run may cost, kept verdicts included."""

    rules = (
        Rule(
            "!has(self.money) || (has(self.promptPrice) && has(self.completionPrice))",
            "expected promptPrice and completionPrice with money",
            lambda self: (
                ""
                if self.money is not None and None in (self.prompt_price, self.completion_price)
                else None
            ),
        ),
    )

    requests: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """requests that the judge may answer."""

    tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = None
    """tokens of prompts and answers; what is under way then is still taken."""

    money: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """money in the currency of the prices."""

    prompt_price: Price | None = None
    """promptPrice of a million tokens of questions."""

    completion_price: Price | None = None
    """completionPrice of a million tokens of answers."""


class Judge(Part):
    """A model behind an OpenAI-compatible endpoint that compares answers, or grades them."""

    base_url: Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[!-?A-~]+$")]
    """baseUrl of the endpoint. Verdicts are kept by `model` alone."""

    model: Annotated[Name, affects("score", "judge")]
    """model that the endpoint serves."""

    secret_ref: SecretRef | None = None
    """secretRef names the Secret with OPENAI_API_KEY."""

    positions: Annotated[Literal["both", "random"], affects("score", "judge")] = "both"
    """positions asks in `both` orders, a contradiction being a tie, or once in a `random` one."""

    max_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """maxConcurrency of requests."""

    pairs: Annotated[int, Field(ge=0, le=10_000_000), affects("score")] = 0
    """pairs of each language and iteration whose texts are graded from 0 to 10, for the reward
    accuracy of prompts without answers."""

    budget: JudgeBudget = Field(default_factory=JudgeBudget)
    """budget at which the run stops."""


Baseline = Literal["languageInstruction", "sft"]


class Evaluation(Part):
    """How each model M0 to M(iterations) is measured."""

    rules = (
        Rule(
            "!has(self.suites) || self.suites.all(a, self.suites.exists_one(b, b.name == a.name))",
            "expected each suite's name once",
            lambda self: repeated([suite.name for suite in self.suites]),
        ),
        Rule(
            "has(self.judge) || !has(self.suites) || self.suites.all(a,"
            " !((has(a.kind) ? a.kind : a.name) in ['xAlpacaEval', 'headToHead', 'mtBench']))",
            "expected judge with the suites xAlpacaEval, headToHead and mtBench",
            lambda self: (
                "none"
                if self.judge is None and any(suite.is_judged for suite in self.suites)
                else None
            ),
        ),
        Rule(
            "!has(self.baselines) || self.baselines.all(a, self.baselines.exists_one(b, b == a))",
            "expected each baseline once",
            lambda self: repeated(self.baselines),
        ),
    )

    suites: Annotated[tuple[Suite, ...], Field(max_length=16)] = ()
    """suites to run; the first one's score gives the gain. Empty means nothing is measured."""

    baselines: Annotated[tuple[Baseline, ...], Field(max_length=2)] = ()
    """baselines to measure on every suite: `languageInstruction` is M0, told in the prompt's
    language to answer in it; `sft` is M0, trained on the chosen texts of its pairs alone."""

    judge: Judge | None = None
    """judge of the suites xAlpacaEval, headToHead and mtBench, and of pairs."""
