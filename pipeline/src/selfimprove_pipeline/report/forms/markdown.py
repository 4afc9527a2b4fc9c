"""The report as Markdown, with the content of the page; the curves are their ends.

Everything that comes from the run goes through `plain`, in tables and outside, so that a
completion can neither end a cell nor become markup. The same story gives the same bytes.
"""

import re
from collections.abc import Iterator

from selfimprove_pipeline.report.story.story import Sample, Story, SuiteStory
from selfimprove_pipeline.report.tables import grids, results, sheets
from selfimprove_pipeline.report.tables.grids import Grid
from selfimprove_pipeline.report.tables.sheets import Sheet
from selfimprove_pipeline.report.words import captions, headings, notation, wording

SPECIAL = re.compile(r"[\\`*_\[\]|~#$!]|https?:|www\.", re.IGNORECASE)
LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def render(story: Story) -> str:
    """Return the report."""
    parts = [
        *_summary(story),
        *(part for suite in story.suites for part in _suite(story, suite)),
        "## Pairs",
        table(sheets.pairs(story)),
        f"## {headings.REWARD_ACCURACY}",
        wording.agreement(story) if story.agreements else "",
        *_grid(grids.reward_accuracy(story)),
        table(sheets.agreements(story)),
        *_gates(story),
        "## Training",
        table(sheets.training(story)),
        "## Time and tokens",
        table(sheets.work(story)),
        captions.TIMES if story.work else "",
        *_samples(story),
        "## What this report cannot tell",
        wording.not_measured(story),
        headings.absent(story),
        *map(plain, story.notes),
        *_again(story),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line; line ends become `<br>`.

    Entities rather than backslashes: every reader knows them, in tables too.
    """
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = SPECIAL.sub(lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", escaped)
    return LINE_BREAK.sub("<br>", escaped)


def table(sheet: Sheet) -> str:
    """Return a table, or why there is none."""
    if not sheet.rows:
        return sheet.absent
    rules = ["---"] * len(sheet.texts) + ["--:"] * len(sheet.numbers)
    cells = [[plain(cell) for cell in row] for row in ((*sheet.texts, *sheet.numbers), *sheet.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rules, *cells[1:]))


def _summary(story: Story) -> list[str]:
    return [
        f"# {plain(wording.headline(story))}",
        wording.gain(story),
        f"Report of run **{plain(story.name)}**, {story.outcome}.",
        plain(story.message),
    ]


def _suite(story: Story, suite: SuiteStory) -> list[str]:
    return [
        f"## {plain(headings.title(suite))}",
        *_grid(grids.trained(story, suite)),
        *_unseen(story, suite),
        f"{headings.caption(suite)} {captions.MARKS} {captions.INTERVALS}",
        wording.baselines(suite),
        *_judged(story, suite),
        "### All changes",
        table(results.changes(suite)),
        *_answers(story, suite),
    ]


def _answers(story: Story, suite: SuiteStory) -> list[str]:
    """Return what the answers were like, or what lm-eval tells of the tasks that it has."""
    if suite.has_tasks:
        return [f"### {headings.RESULTS}", table(results.harness(suite))]
    sheet = table(results.answers(story, suite))
    return ["### What the answers were like", sheet, captions.EVASIVE]


def _grid(found: Grid | None) -> list[str]:
    return [table(part.sheet) for part in found.parts] if found else []


def _gates(story: Story) -> list[str]:
    if not story.promotions:
        return []
    return [f"## {headings.GATES}", captions.GATED, table(sheets.promotions(story))]


def _judged(story: Story, suite: SuiteStory) -> list[str]:
    """Return the verdicts on a suite, nothing without a judge."""
    if suite.verdicts is None or not suite.verdicts.judged:
        return []
    languages = (*story.trained(suite), *story.unseen(suite))
    sheet = results.judged(suite.verdicts.judged.values(), languages)
    caption = captions.GRADED if suite.shown == "grade" else captions.JUDGED
    return [f"### {headings.FULL[suite.shown]}", table(sheet), caption]


def _unseen(story: Story, suite: SuiteStory) -> list[str]:
    """Return the result in the languages that are not trained, nothing without any."""
    found = grids.unseen(story, suite)
    if found is None:
        return []
    return ["### Languages that are not trained", *_grid(found), captions.UNSEEN]


def _samples(story: Story) -> list[str]:
    if not story.samples:
        return ["## Samples", captions.NO_SAMPLES]
    parts = (part for sample in story.samples for part in _sample(sample))
    return ["## Samples", captions.SAMPLES, *parts]


def _sample(sample: Sample) -> Iterator[str]:
    yield f"### {plain(f'{sample.language}: {sample.suite} {sample.id}')}"
    rows = [("prompt", "", sample.prompt)]
    if sample.gold is not None:
        rows.append(("gold answer", "", sample.gold))
    for index, answer in sample.answers.items():
        rows.append((notation.model(index), wording.judged(answer), answer.completion))
    yield table(Sheet(texts=("", "found", "text"), rows=tuple(rows), absent=""))


def _again(story: Story) -> list[str]:
    longest = max(map(len, re.findall("`+", story.recipe)), default=0)
    fence = "`" * max(3, longest + 1)
    return [
        "## How to make it again",
        table(sheets.models(story)),
        table(sheets.artifacts(story)),
        f"{fence}yaml\n{story.recipe.rstrip()}\n{fence}",
        table(sheets.versions(story)),
    ]
