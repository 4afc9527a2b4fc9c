"""The tables in the paper's words: what each is called, and what stands in its cells."""

from collections.abc import Iterator

from selfimprove_pipeline.report.story.story import Shown, Story, SuiteStory

TITLES = {
    "xAlpacaEval": "X-AlpacaEval: win rate",
    "headToHead": "Head-to-head: win / tie / lose against M0",
    "mtBench": "Multilingual MT-Bench: mean grade from 0 to 10",
    "nlp": "Multilingual NLP benchmarks: tasks of lm-eval",
    "mgsm": "MGSM: accuracy, with the off-target rate in brackets",
    "exactMatch": "Exact match: right answers, with the off-target rate in brackets",
    "offTarget": "Off-target rate: answers in a wrong language",
}
REWARD_ACCURACY = "Reward accuracy"
GATES = "Gates: is a model as good as the one before?"
CAPTIONS = {
    "xAlpacaEval": (
        "Win rate against the reference outputs, a tie counting half (the paper writes it in "
        "percent); in brackets the rate at equal length, then the interval of the win rate."
    ),
    "headToHead": (
        "Win / tie / lose in percent; in brackets the win rate, a tie counting half, then its "
        "interval and by how much it lies above one half. M0 is the opponent and has no row."
    ),
    "score": (
        "Share of right answers; in brackets the share in a wrong language, then the interval of "
        "the right ones."
    ),
    "offTarget": "Share of answers in a wrong language, then its interval: less is better.",
    "grade": (
        "Mean of what a judge gives the answers of both turns, from 0 to 10, then its interval "
        "over conversations. An answer in a wrong language has 0."
    ),
    "nlp": (
        "A column is a task, a value its acc_norm, or its first metric from 0 to 1 that each "
        "document has and of which more is better; then the interval. All metrics, as lm-eval "
        "tells them, stand below."
    ),
}
FULL: dict[Shown, str] = {"winRate": "Win, tie, lose in full", "grade": "Grades in full"}
"""Headings of all that a judge said."""
RESULTS = "All that lm-eval tells"
PAPER = {
    "xAlpacaEval": "X-AlpacaEval win rates",
    "headToHead": "head-to-head win, tie and lose rates",
    "mtBench": "Multilingual MT-Bench",
    "nlp": "multilingual NLP benchmarks",
    "mgsm": "MGSM",
}
"""The paper's tables that are suites, by kind."""


def title(suite: SuiteStory) -> str:
    """Return the heading of a suite, with its name where that is its own."""
    kind = suite.kind or suite.name
    return TITLES.get(kind, kind) + ("" if suite.name == kind else f" ({suite.name})")


def caption(suite: SuiteStory) -> str:
    """Say what stands in the cells of a suite's table."""
    if suite.is_against_m0:
        return CAPTIONS["headToHead"]
    if suite.has_tasks:
        return CAPTIONS["nlp"]
    return CAPTIONS["xAlpacaEval" if suite.shown == "winRate" else suite.shown]


def contents(story: Story) -> Iterator[tuple[str, str]]:
    """Yield anchor and heading of what a reader of the paper looks for."""
    for place, suite in enumerate(story.suites, start=1):
        yield f"suite-{place}", title(suite)
    if story.agreements:
        yield "reward-accuracy", REWARD_ACCURACY
    if story.promotions:
        yield "gates", GATES


def absent(story: Story) -> str:
    """Name the tables of the paper that this run does not have, empty where it has all."""
    kinds = {suite.kind or suite.name for suite in story.suites}
    missing = [name for kind, name in PAPER.items() if kind not in kinds]
    missing += [] if story.agreements else ["reward accuracy"]
    return f"Tables of the paper that this run does not have: {', '.join(missing)}." * bool(missing)
