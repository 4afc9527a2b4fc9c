"""Assessments and comparisons as people read them: sheets, and the same as Markdown.

`records` has them for programs.
"""

from collections.abc import Iterator
from dataclasses import replace

from selfimprove_pipeline.measuring.differences import Contrast, Measure
from selfimprove_pipeline.report.forms import markdown
from selfimprove_pipeline.report.forms.records import SHARES, interval_of
from selfimprove_pipeline.report.models.assessment import Assessment, Mean, SuiteAssessment
from selfimprove_pipeline.report.models.comparison import Comparison, SuiteContrast
from selfimprove_pipeline.report.models.records import verdict_of
from selfimprove_pipeline.report.story.story import Judged
from selfimprove_pipeline.report.tables import results
from selfimprove_pipeline.report.tables.sheets import Cells, Sheet
from selfimprove_pipeline.report.words import notation, wording

DUEL = (
    "B's win rate",
    "B wins",
    "Tie",
    "A wins",
    "At equal length",
    "Position bias",
    "Prompts",
    "Malformed",
)


def assessment_sheets(found: SuiteAssessment) -> Iterator[tuple[str, Sheet]]:
    """Yield a model's rates on a suite and what its answers were like, below a title."""
    measure = found.suite.measure
    means = [_mean_cells(found.mean)] if found.mean else []
    both = (
        Sheet(
            texts=("Language",),
            numbers=(f"Share of {wording.MEASURES[measure]}", *_rest(results.ANSWERS, measure)),
            rows=rows,
            absent="Nothing was measured.",
        )
        for rows in (
            (*(_language_cells(found, tag) for tag in found.languages), *means),
            tuple(_language_cells(found, tag) for tag in found.unseen),
        )
    )
    if not found.suite.has_tasks:  # of which lm-eval tells more
        yield from _titled(found.suite.name, measure, *both)
    judged = results.judged(found.judged, (*found.languages, *found.unseen))
    is_graded = judged.numbers == results.GRADED
    more = (
        ("grades" if is_graded else "win, tie, lose", judged),
        ("all that lm-eval tells", results.harness(found.suite)),
    )
    for what, sheet in more:
        if sheet.rows:
            rows = tuple(cells[1:] for cells in sheet.rows)  # there is one model
            yield f"{found.suite.name}: {what}", replace(sheet, texts=sheet.texts[1:], rows=rows)


def comparison_sheets(found: SuiteContrast) -> Iterator[tuple[str, Sheet]]:
    """Yield the differences between two models on a suite, below a title."""
    means = [found.mean] if found.mean else []
    both = (
        Sheet(
            texts=("Language", "B against A"),
            numbers=("A", "B", "B − A", "95 % interval", "p", "p (Holm)", "Prompts"),  # noqa: RUF001
            rows=tuple(_contrast_cells(contrast, found) for contrast in contrasts),
            absent="Nothing was compared.",
        )
        for contrasts in ((*found.languages, *means), found.unseen)
    )
    yield from _titled(found.name, found.measure, *both)


def duel_sheets(found: Comparison) -> Iterator[tuple[str, Sheet]]:
    """Yield what a judge prefers of B to A on each suite, below a title; nothing without one."""
    for suite in dict.fromkeys(duel.suite for duel in found.duels):
        own = [duel for duel in found.duels if duel.suite == suite]
        yield (
            f"{suite}: B head to head with A",
            Sheet(
                texts=("Language",),
                numbers=DUEL,
                rows=tuple(_duel_cells(duel) for duel in own),
                absent="Nothing was judged.",
            ),
        )


def assessment_markdown(found: Assessment) -> str:
    """Return the tables of an assessment as Markdown."""
    return _page(
        f"# {markdown.plain(found.label)}",
        *(
            f"## {title}\n\n{markdown.table(sheet)}"
            for one in found.suites
            for title, sheet in assessment_sheets(one)
        ),
        wording.ASSESSED,
        f"Model {found.digest}",
    )


def comparison_markdown(found: Comparison) -> str:
    """Return the tables of a comparison as Markdown."""
    return _page(
        f"# {markdown.plain(found.b)} against {markdown.plain(found.a)}",
        f"A is {markdown.plain(found.a)}, B is {markdown.plain(found.b)}.",
        *(
            f"## {title}\n\n{markdown.table(sheet)}"
            for one in found.suites
            for title, sheet in comparison_sheets(one)
        ),
        *(f"## {title}\n\n{markdown.table(sheet)}" for title, sheet in duel_sheets(found)),
        wording.COMPARED,
        *([wording.DUELLED] if found.duels else []),
        *(f"- {markdown.plain(note)}" for note in found.notes),
    )


def _titled(
    name: str, measure: Measure, trained: Sheet, unseen: Sheet
) -> Iterator[tuple[str, Sheet]]:
    """Yield the sheets that have rows; languages that are not trained stand apart."""
    title = f"{name}: {wording.MEASURES[measure]}"
    titled = ((title, trained), (f"{title} {wording.APART}", unseen))
    yield from (pair for pair in titled if pair[1].rows)


def _language_cells(found: SuiteAssessment, tag: str) -> Cells:
    measured, measure = found.measured(tag), found.suite.measure
    share = notation.share(measured.by(measure))
    return (tag, share, *_rest(results.answer_cells(measured), measure))


def _rest(cells: Cells, measure: Measure) -> Cells:
    """Return cells of `results.ANSWERS` without the measure, which has its own column."""
    place = {"score": 1, "offTarget": 2}[measure]
    return (*cells[:place], *cells[place + 1 :])


def _mean_cells(found: Mean) -> Cells:
    """Return the row of the mean; what the answers were like is told by language alone."""
    bounds = f" ({notation.interval(found.interval)})" if found.interval else ""
    prompts = notation.NONE if found.n is None else notation.count(found.n)
    rest = (notation.NONE,) * (len(results.ANSWERS) - 2)
    return (_mean_of(found.languages), f"{notation.rate(found.value)}{bounds}", prompts, *rest)


def _contrast_cells(found: Contrast, suite: SuiteContrast) -> Cells:
    difference = found.difference
    return (
        found.language or _mean_of(len(suite.languages)),
        verdict_of(found, suite),
        notation.rate(found.a),
        notation.rate(found.b),
        notation.signed(found.value),
        notation.change_interval(difference.interval) if difference else notation.NONE,
        notation.probability(found.p),
        notation.probability(found.adjusted),
        notation.count(difference.n) if difference else notation.NONE,
    )


def _duel_cells(found: Judged) -> Cells:
    measures = found.measures
    shares = (_with_interval(found, name) for name in ("winRate", *SHARES))
    others = (notation.rate(measures.get(name)) for name in ("lcWinRate", "positionBias"))
    counts = (notation.count(found.decided), notation.count(found.malformed))
    return (found.language, *shares, *others, *counts)


def _with_interval(found: Judged, measure: str) -> str:
    interval = interval_of(found, measure) if found.measures else None
    if interval is None:
        return notation.NONE
    return f"{notation.rate(found.measures[measure])} ({notation.interval(interval)})"


def _mean_of(count: int) -> str:
    return f"mean of {count}"


def _page(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"
