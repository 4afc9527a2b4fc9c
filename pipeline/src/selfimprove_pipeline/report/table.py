"""Tables for the terminal: the result of a run, and any sheet.

The end of `selfimprove run` prints one row a model and one column a language of the first suite;
`evaluate` and `compare` print sheets. Texts are never read as rich's markup.
"""

from rich import box
from rich.table import Table
from rich.text import Text

from selfimprove_pipeline.report import notation, wording
from selfimprove_pipeline.report.sheets import Sheet
from selfimprove_pipeline.report.story import Story, SuiteStory


def terminal(story: Story) -> Table:
    """Return the table; it says so when nothing is measured yet."""
    table = Table(box=box.SIMPLE_HEAD, caption=Text(_caption(story)), caption_justify="left")
    table.add_column("model")
    if not story.suites:
        return table
    suite = story.suites[0]
    table.title = Text(f"{suite.name}: {wording.MEASURES[suite.measure]}")
    trained, unseen = story.trained(suite), story.unseen(suite)
    for name in (*trained, "mean of others", *(f"{tag}, not trained" for tag in unseen)):
        table.add_column(Text(name), justify="right")
    for index in story.planned:
        cells = [_cell(suite, index, language) for language in trained]
        cells.append(_mean(story, suite, index))
        cells += [_cell(suite, index, language) for language in unseen]
        table.add_row(notation.model(index), *cells)
    for found in suite.baselines:
        of = {tag: one.by(suite.measure) for tag, one in found.measured.items()}
        rates = [notation.share(of.get(tag)) for tag in trained]
        rates += [notation.rate(found.mean), *(notation.share(of.get(tag)) for tag in unseen)]
        table.add_row(wording.BASELINES[found.name], *map(Text, rates))
    return table


def of_sheet(title: str, sheet: Sheet) -> Table:
    """Return a sheet as a table, narrow enough for 80 columns: headings wrap, numbers do not."""
    table = Table(box=box.SIMPLE_HEAD, title=Text(title), padding=(0, 1, 0, 0), pad_edge=False)
    for heading in sheet.texts:
        table.add_column(Text(heading))
    for place, heading in enumerate(sheet.numbers, start=len(sheet.texts)):
        texts = [*heading.split(), *(row[place] for row in sheet.rows)]
        table.add_column(Text(heading), justify="right", width=max(map(len, texts)))
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def _cell(suite: SuiteStory, index: int, language: str) -> Text:
    measured = suite.measured.get((index, language))
    if measured is None:
        return Text(wording.NOT_YET, style="dim")
    text = Text(notation.share(measured.by(suite.measure)))
    return text.append_text(_mark(suite, index, language))


def _mean(story: Story, suite: SuiteStory, index: int) -> Text:
    if index not in suite.means:
        return Text(wording.no_mean(story, suite), style="dim")
    return Text(notation.rate(suite.means[index])).append_text(_mark(suite, index, None))


def _mark(suite: SuiteStory, index: int, language: str | None) -> Text:
    """Return the change since M0 in words, on its own line."""
    change = wording.change_to(suite, index, language)
    if change is None:
        return Text("")
    verdict = wording.verdict(change, suite.measure)
    style = {"better": "green", "worse": "red"}.get(verdict, "dim")
    return Text(f"\n{notation.signed(change.value)} {verdict}", style=style)


def _caption(story: Story) -> str:
    lines = [wording.headline(story), wording.gain(story)]
    return "\n".join(line for line in lines if line)
