"""What the person who waits is shown: warnings, with and without a terminal."""

import json

import pytest

from selfimprove_pipeline.local.progress import Bars, Lines

WARNING = "mgsm in de: p1 [bold] (row 4)"


def test_a_warning_is_an_event_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object on a line of its own, like every event."""
    with Lines() as display:
        display.warning(WARNING)

    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["message"]) == ("warning", WARNING)


def test_a_warning_stands_whole_above_the_bars(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets in ids are no markup."""
    with Bars() as display:
        display.warning(WARNING)

    assert f"warning: {WARNING}" in capsys.readouterr().err


def test_a_workers_warning_is_shown_like_the_runners(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker tells it as an event, such as of GPUs that stay unused."""
    with Bars() as display:
        display.event({"event": "warning", "message": WARNING})

    assert f"warning: {WARNING}" in capsys.readouterr().err
