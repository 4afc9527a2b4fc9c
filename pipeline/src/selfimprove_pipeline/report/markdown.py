"""The report as Markdown, with the content of the page; the curves are their ends.

Everything that comes from the run goes through `plain`, in tables and outside, so that a
completion can neither end a cell nor become markup. The same story gives the same bytes.
"""

import re
from collections.abc import Iterator, Sequence

from selfimprove_pipeline.report import notation, results, sheets, wording
from selfimprove_pipeline.report.sheets import Sheet
from selfimprove_pipeline.report.story import BaselineStory, Sample, Story, SuiteStory

SPECIAL = re.compile(r"[\\`*_\[\]|~#$!]|https?:|www\.", re.IGNORECASE)
LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def render(story: Story) -> str:
    """Return the report."""
    parts = [
        *_summary(story),
        *(part for suite in story.suites for part in _suite(story, suite)),
        "## Pairs",
        table(sheets.pairs(story)),
        "## Do gold answers agree with the labels?",
        wording.agreement(story) if story.agreements else "",
        table(sheets.agreements(story)),
        "## Training",
        table(sheets.training(story)),
        "## Time and tokens",
        table(sheets.work(story)),
        wording.TIMES if story.work else "",
        *_samples(story),
        "## What this report cannot tell",
        wording.not_measured(story),
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
    trained = story.trained(suite)
    rows = [
        (notation.model(index), *_cells(suite, index, trained), _mean(story, suite, index))
        for index in story.planned
    ]
    for found in suite.baselines:
        cells = _baseline(found, suite, trained)
        rows.append((*cells, notation.rate(found.mean)))
    result = Sheet(
        texts=("Model", *trained, "mean of the others"), rows=tuple(rows), absent=wording.NOT_YET
    )
    return [
        f"## {suite.name}: {wording.MEASURES[suite.measure]}",
        table(result),
        *_judged(story, suite),
        *_unseen(story, suite),
        f"{wording.MARKS} {wording.INTERVALS}",
        wording.told(suite),
        "### Changes",
        table(results.changes(suite)),
        "### What the answers were like",
        table(results.answers(story, suite)),
        wording.EVASIVE,
    ]


def _judged(story: Story, suite: SuiteStory) -> list[str]:
    """Return the verdicts on a suite, nothing without a judge."""
    languages = (*story.trained(suite), *story.unseen(suite))
    sheet = results.judged(story.judged, suite.name, languages)
    return ["### Win, tie, lose", table(sheet), wording.JUDGED] if sheet.rows else []


def _unseen(story: Story, suite: SuiteStory) -> list[str]:
    """Return the result in the languages that are not trained, nothing without any."""
    unseen = story.unseen(suite)
    if not unseen:
        return []
    rows = [(notation.model(index), *_cells(suite, index, unseen)) for index in story.planned]
    rows += [_baseline(found, suite, unseen) for found in suite.baselines]
    result = Sheet(texts=("Model", *unseen), rows=tuple(rows), absent=wording.NOT_YET)
    return ["### Languages that are not trained", table(result), wording.UNSEEN]


def _baseline(found: BaselineStory, suite: SuiteStory, languages: Sequence[str]) -> tuple[str, ...]:
    cells = (found.measured.get(language) for language in languages)
    rates = (notation.share(one.by(suite.measure)) if one else wording.NOT_YET for one in cells)
    return (wording.BASELINES[found.name], *rates)


def _cells(suite: SuiteStory, index: int, languages: Sequence[str]) -> Iterator[str]:
    for language in languages:
        measured = suite.measured.get((index, language))
        yield (
            f"{notation.share(measured.by(suite.measure))}{_mark(suite, index, language)}"
            if measured
            else wording.NOT_YET
        )


def _mean(story: Story, suite: SuiteStory, index: int) -> str:
    mean = suite.means.get(index)
    if mean is None:
        return wording.no_mean(story, suite)
    return f"{notation.rate(mean)}{_mark(suite, index, None)}"


def _mark(suite: SuiteStory, index: int, language: str | None) -> str:
    change = wording.change_to(suite, index, language)
    if change is None:
        return ""
    return f" {notation.signed(change.value)} {wording.verdict(change, suite.measure)}"


def _samples(story: Story) -> list[str]:
    if not story.samples:
        return ["## Samples", wording.NO_SAMPLES]
    parts = (part for sample in story.samples for part in _sample(sample))
    return ["## Samples", wording.SAMPLES, *parts]


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
