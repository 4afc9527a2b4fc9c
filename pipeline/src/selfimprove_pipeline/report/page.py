"""The report as one HTML page: no script, no network, styles and charts inside.

`templates/` holds the markup; every value from the run is escaped there by default. The same
story gives the same bytes.
"""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from selfimprove_pipeline.report import charts, durations, notation, results, sheets, wording
from selfimprove_pipeline.report.story import Story


def render(story: Story) -> str:
    """Return the page."""
    template = _environment().get_template("page.html.j2")
    return template.render(
        story=story,
        models=story.planned,
        headline=wording.headline(story),
        gain=wording.gain(story),
        not_measured=wording.not_measured(story),
        rates=charts.rates(story, story.suites[0]) if story.suites else (),
        curves=charts.training(story),
        times=durations.times(story),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("selfimprove_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(say=wording, write=notation, sheets=sheets, results=results)
    return environment
