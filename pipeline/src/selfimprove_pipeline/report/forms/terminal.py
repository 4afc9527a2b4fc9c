"""Tables for the terminal: the result of a run, and any sheet.

The end of `selfimprove run` prints one row a model and one column a language of the first suite;
`evaluate` and `compare` print sheets. Texts are never read as rich's markup.
"""

from dataclasses import replace

from rich import box
from rich.table import Table
from rich.text import Text

from selfimprove_pipeline.report.story.story import Story
from selfimprove_pipeline.report.tables import grids
from selfimprove_pipeline.report.tables.grids import Cell
from selfimprove_pipeline.report.tables.sheets import Sheet
from selfimprove_pipeline.report.words import headings, wording


def terminal(story: Story) -> Table:
    """Return the table; it says so when nothing is measured yet."""
    table = Table(box=box.SIMPLE_HEAD, caption=Text(_caption(story)), caption_justify="left")
    table.add_column("model")
    if not story.suites:
        return table
    suite = story.suites[0]
    table.title = Text(headings.title(suite))
    trained, unseen = grids.trained(story, suite), grids.unseen(story, suite)
    for heading in trained.headings:
        table.add_column(Text(heading.text), justify="right")
    for heading in unseen.headings if unseen else ():
        table.add_column(Text(f"{heading.text}, not trained"), justify="right")
    apart = dict(unseen.rows) if unseen else {}
    for name, cells in trained.rows:
        table.add_row(name, *map(_cell, (*cells, *apart.get(name, ()))))
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


def _cell(found: Cell) -> Text:
    """Return a cell with the change since M0 in words, on its own line."""
    if found.value == wording.NOT_YET:
        return Text(found.value, style="dim")
    text = Text(replace(found, mark="").text)
    style = {"better": "green", "worse": "red"}.get(found.verdict, "dim")
    return text.append(f"\n{found.mark}", style=style) if found.mark else text


def _caption(story: Story) -> str:
    lines = [wording.headline(story), wording.gain(story)]
    return "\n".join(line for line in lines if line)
