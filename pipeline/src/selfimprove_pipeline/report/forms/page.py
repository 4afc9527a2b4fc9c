"""The report as one HTML page: no script, no network, styles and charts inside.

`templates/` holds the markup; every value from the run is escaped there by default. The same
story gives the same bytes.
"""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from selfimprove_pipeline.report.charts import changes, rates_and_curves, times, verdicts
from selfimprove_pipeline.report.story.story import Story
from selfimprove_pipeline.report.tables import grids, results, sheets
from selfimprove_pipeline.report.words import captions, headings, notation, wording


def render(story: Story) -> str:
    """Return the page."""
    template = _environment().get_template("page.html.j2")
    return template.render(
        story=story,
        headline=wording.headline(story),
        gain=wording.gain(story),
        contents=tuple(headings.contents(story)),
        not_measured=wording.not_measured(story),
        absent=headings.absent(story),
        curves=rates_and_curves.training(story),
        times=times.times(story),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("selfimprove_pipeline.report.forms"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        say=wording,
        captions=captions,
        write=notation,
        heads=headings,
        sheets=sheets,
        results=results,
        grids=grids,
        charts=rates_and_curves,
        change_charts=changes,
        verdict_charts=verdicts,
    )
    return environment
