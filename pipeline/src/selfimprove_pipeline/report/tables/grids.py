"""The tables of the paper: languages across, models and baselines down, the means at the end.

A cell holds a value, what the paper writes in brackets behind it, the interval, and in words what
changed since M0. The page, the Markdown and the terminal show the same cells.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfimprove_pipeline.report.story.making import Agreement
from selfimprove_pipeline.report.story.story import Change, Entry, Story, SuiteStory
from selfimprove_pipeline.report.tables.sheets import Sheet
from selfimprove_pipeline.report.words import captions, notation, wording

MOST_COLUMNS = 8
"""Columns of a table that fits on a sheet of paper; of more it is continued below."""
NOTHING = notation.NONE


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell, or a heading; a part that is empty is not there."""

    value: str
    aside: str = ""
    range: str = ""
    mark: str = ""
    """mark is the change since M0 with its verdict."""
    verdict: str = ""

    @property
    def text(self) -> str:
        """The cell on one line."""
        return " ".join(part for part in (self.value, self.aside, self.range, self.mark) if part)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One table."""

    headings: tuple[Cell, ...]
    """headings of the columns behind the names of the rows."""
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    corner: str = "Model"
    """corner is the heading of the names."""

    @property
    def parts(self) -> "Iterator[Grid]":
        """The table in parts of some columns each, itself where it is narrow."""
        count = len(self.headings)
        size = math.ceil(count / math.ceil(count / MOST_COLUMNS)) if count else 1
        for start in range(0, count, size):
            columns = slice(start, start + size)
            rows = tuple((name, cells[columns]) for name, cells in self.rows)
            yield Grid(headings=self.headings[columns], rows=rows, corner=self.corner)

    @property
    def sheet(self) -> Sheet:
        """The table as plain text."""
        return Sheet(
            texts=(self.corner, *(cell.text for cell in self.headings)),
            rows=tuple((name, *(cell.text for cell in cells)) for name, cells in self.rows),
            absent=wording.NOT_YET,
        )


def trained(story: Story, suite: SuiteStory) -> Grid:
    """Return a suite in the run's languages, with the mean of the others and that of all.

    Tasks of lm-eval stand in the place of languages.
    """
    tags = story.trained(suite)
    headings = [Cell(value=tag, aside="dominant" if tag == story.dominant else "") for tag in tags]
    means = [_mean, _mean_of_all] if not suite.has_tasks else [_mean_of_all]
    headings += [Cell(value="Mean", aside="of the others")] * (len(means) - 1)
    headings += [Cell(value="Mean", aside="of all")]
    return Grid(
        headings=tuple(headings),
        rows=tuple(
            (
                wording.entry(entry),
                (*_cells(suite, entry, tags), *(mean(story, suite, entry) for mean in means)),
            )
            for entry in entries(story, suite)
        ),
    )


def unseen(story: Story, suite: SuiteStory) -> Grid | None:
    """Return a suite in the languages that the run does not train, None without any."""
    tags = story.unseen(suite)
    if not tags:
        return None
    return Grid(
        headings=tuple(Cell(value=tag) for tag in tags),
        rows=tuple(
            (wording.entry(entry), tuple(_cells(suite, entry, tags)))
            for entry in entries(story, suite)
        ),
    )


def reward_accuracy(story: Story) -> Grid | None:
    """Return what the pairs' texts are worth and how often labels agree, None without scores."""
    found = {(one.iteration, one.language): one for one in story.agreements}
    if not found:
        return None
    rows = (
        (
            f"{wording.iteration(index, story)}, {name}",
            tuple(cell(found.get((index, tag))) for tag in story.languages),
        )
        for index in dict.fromkeys(iteration for iteration, _ in found)
        for name, cell in (
            ("generation", _generation),
            ("translation", _translation),
            ("reward accuracy", _accuracy),
        )
    )
    return Grid(
        headings=tuple(Cell(value=tag) for tag in story.languages),
        rows=tuple(row for row in rows if any(cell.value != NOTHING for cell in row[1])),
        corner="Iteration",
    )


def _generation(found: Agreement | None) -> Cell:
    return _worth(found, found.generation if found else None)


def _translation(found: Agreement | None) -> Cell:
    return _worth(found, found.translation if found else None)


def _worth(found: Agreement | None, value: float | None) -> Cell:
    """Return a mean grade as the paper writes it, or a share of right texts."""
    if found is not None and value is not None and found.is_graded:
        return Cell(value=f"{value:.2f}")
    return Cell(value=notation.rate(value))


def _accuracy(found: Agreement | None) -> Cell:
    if found is None or found.accuracy.value is None:
        return Cell(value=NOTHING)
    decided = captions.DECISIONS[found.decision] if found.decision else ""
    return Cell(
        value=notation.rate(found.accuracy.value),
        aside=f"({notation.count(found.accuracy.n)})",
        range=notation.interval(found.accuracy.interval),
        mark=decided,
        verdict="worse" if found.decision == "LeftOut" else "",
    )


def entries(story: Story, suite: SuiteStory) -> tuple[Entry, ...]:
    """Return the rows of a suite's tables: the models, then the baselines."""
    models = [index for index in story.planned if index or not suite.is_against_m0]
    told = [found.name for found in suite.baselines]
    if suite.verdicts is not None:
        judged = {entry for entry, _ in suite.verdicts.judged}
        told = [name for name in told if name in judged]
    return (*models, *told)


def _cells(suite: SuiteStory, entry: Entry, tags: Sequence[str]) -> Iterator[Cell]:
    for tag in tags:
        estimate = suite.estimate(entry, tag)
        if estimate is None:
            yield Cell(value=NOTHING if suite.is_measured(entry, tag) else wording.NOT_YET)
            continue
        value, aside = _value(suite, entry, tag, estimate.value)
        change = wording.change_to(suite, entry, tag)
        yield Cell(
            value=value,
            aside=aside,
            range=notation.interval(estimate.interval),
            **_mark(suite, change),
        )


def _value(suite: SuiteStory, entry: Entry, tag: str, value: float) -> tuple[str, str]:
    """Return a value and what stands in brackets behind it."""
    if suite.shown == "grade":
        return notation.rate(value), ""
    if suite.verdicts is not None:
        measures = suite.verdicts.judged[entry, tag].measures
        if suite.is_against_m0:
            shares = (f"{measures[name]:.0%}".rstrip("%") for name in ("win", "tie", "lose"))
            return "/".join(shares), f"({notation.rate(value)})"
        controlled = measures.get("lcWinRate")  # too few verdicts may tell none
        return notation.rate(value), "" if controlled is None else f"({notation.rate(controlled)})"
    measured = suite.of(entry, tag)
    if suite.measure == "offTarget" or measured is None or measured.off_target is None:
        return notation.rate(value), ""
    return notation.rate(value), f"({notation.rate(measured.off_target.value)})"


def _mean(story: Story, suite: SuiteStory, entry: Entry) -> Cell:
    mean = suite.mean(entry)
    if mean is None:
        return Cell(value=wording.no_mean(story, suite))
    change = wording.change_to(suite, entry, None)
    return Cell(value=notation.rate(mean), **_mark(suite, change))


def _mean_of_all(story: Story, suite: SuiteStory, entry: Entry) -> Cell:
    """Return the mean that the paper has, over the dominant language too; or that of all tasks."""
    tags = story.trained(suite) if suite.has_tasks else story.languages
    found = [suite.estimate(entry, tag) for tag in tags]
    values = [estimate.value for estimate in found if estimate is not None]
    if len(values) < len(found) or not found:
        return Cell(value=wording.no_mean(story, suite))
    return Cell(value=notation.rate(fmean(values)))


def _mark(suite: SuiteStory, change: Change | None) -> dict[str, str]:
    if change is None:
        return {}
    verdict = wording.verdict(change, suite.shown)
    return {"mark": f"{notation.signed(change.value)} {verdict}", "verdict": verdict}
