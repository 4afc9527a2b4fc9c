"""How models are measured: suites, the judge and its budget, baselines."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from selfimprove_pipeline.contract.recipe.base import (
    Language,
    Name,
    ObjectUri,
    Part,
    Rule,
    SecretRef,
    affects,
    repeated,
)
from selfimprove_pipeline.contract.recipe.sources import Languages

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
    """name of the suite, unique within the run."""

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
    """kind is how answers are scored: `exactMatch` compares them with gold answers, `mgsm` compares
    numbers, `offTarget` counts answers in the wrong language; a judge compares them with references
    (`xAlpacaEval`) or with M0's answers (`headToHead`), or grades two turns (`mtBench`); `nlp` runs
    lm-eval tasks; PACKAGE/NAME comes from an installed package. Default: the suite's name."""

    uri: ObjectUri | None = None
    """uri of the folder with one file per language: `<language>.jsonl`, for `mgsm` also the files
    as published, for `xAlpacaEval` `<language>.json` in alpaca-eval's format, for `mtBench`
    FastChat's questions; for `nlp` lm-eval's task files and their data. Only `nlp` with tasks can
    omit it."""

    reference_uri: ObjectUri | None = None
    """referenceUri is the folder with the outputs that `xAlpacaEval` compares with, one
    `<language>.json` per language. Only `xAlpacaEval` has it, and needs it."""

    max_tokens: Annotated[Annotated[int, Field(ge=1, le=131_072)] | None, affects("evaluate")] = (
        None
    )
    """maxTokens limits an answer, in tokens. Default: generation.maxTokens."""

    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """limit uses only the first N rows, for `nlp` of each task. Default: all rows."""

    languages: Annotated[
        Annotated[tuple[Language, ...], Field(min_length=1, max_length=64)] | None,
        affects("evaluate", "judge", unless=(None,)),
    ] = None
    """languages to evaluate in; untrained ones are reported separately. Default: the run's
    languages."""

    tasks: Annotated[
        Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)] | None, affects("evaluate")
    ] = None
    """tasks are the lm-eval tasks, groups and tags that `nlp` runs. Default: all tasks in the
    folder."""

    num_fewshot: Annotated[Annotated[int, Field(ge=0, le=100)] | None, affects("evaluate")] = None
    """numFewshot is the number of examples before each question of `nlp`. Default: each task's own
    number."""

    apply_chat_template: Annotated[bool | None, affects("evaluate")] = None
    """applyChatTemplate presents the questions of `nlp` as chat turns. Default: false."""

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
    """Limits on what the judge of a run may cost; stored verdicts count too."""

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
    """requests is the maximum number of requests."""

    tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = None
    """tokens is the maximum number of prompt and completion tokens; requests in flight may exceed
    it."""

    money: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """money is the maximum cost in the currency of the prices, which it needs."""

    prompt_price: Price | None = None
    """promptPrice is the price of a million prompt tokens."""

    completion_price: Price | None = None
    """completionPrice is the price of a million completion tokens."""


class Judge(Part):
    """A model behind an OpenAI-compatible endpoint that compares or grades answers."""

    base_url: Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[!-?A-~]+$")]
    """baseUrl of the endpoint. Stored verdicts depend on `model`, not on this URL."""

    model: Annotated[Name, affects("score", "judge")]
    """model is the name of the judge model at the endpoint."""

    secret_ref: SecretRef | None = None
    """secretRef names the Secret with OPENAI_API_KEY."""

    positions: Annotated[Literal["both", "random"], affects("score", "judge")] = "both"
    """positions is the order in which two answers are shown: `both` asks once in each order and
    counts a contradiction as a tie, `random` asks once. Default: both."""

    max_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """maxConcurrency is the maximum number of requests at a time. Default: 8."""

    pairs: Annotated[int, Field(ge=0, le=10_000_000), affects("score")] = 0
    """pairs is the number of pairs per language and iteration that are graded from 0 to 10, for the
    reward accuracy of prompts without gold answers. Default: 0."""

    budget: JudgeBudget = Field(default_factory=JudgeBudget)
    """budget limits what the judge may cost in the whole run, stored verdicts included. The run
    stops when it is spent. Default: no limit."""


Baseline = Literal["languageInstruction", "sft"]


class Evaluation(Part):
    """How each model, M0 to M(iterations), is measured."""

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
    """suites to run on every model; the first one's score defines the gain. Empty: nothing is
    measured."""

    baselines: Annotated[tuple[Baseline, ...], Field(max_length=2)] = ()
    """baselines to measure on every suite: `languageInstruction` is M0, asked in the prompt's
    language to answer in it; `sft` is M0, fine-tuned only on the chosen texts of its pairs."""

    judge: Judge | None = None
    """judge for the suites xAlpacaEval, headToHead and mtBench, which need one, and for pairs."""
