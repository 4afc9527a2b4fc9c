"""How numbers are written, the same on every page, in Markdown and on the terminal.

Rates are written as the field writes them, `.52`, and an interval as `.45` to `.59` with a dash.
"""

from selfimprove_pipeline.measuring.intervals import Interval, Rate

NONE = "–"  # noqa: RUF001 - an en dash, as in print
MINUS = "−"  # noqa: RUF001 - the sign, as wide as the plus


def rate(value: float | None) -> str:
    """Write a share with two digits and no leading zero."""
    return NONE if value is None else f"{value:.2f}".removeprefix("0")


def signed(value: float) -> str:
    """Write a change of a share with its sign, and a third digit where two would hide it."""
    digits = 2 if abs(value) >= 0.005 or abs(value) < 0.0005 else 3  # noqa: PLR2004 - rounding
    text = f"{abs(value):.{digits}f}".removeprefix("0")
    if text == ".00":
        return "±.00"
    return f"{'+' if value > 0 else MINUS}{text}"


def interval(found: Interval) -> str:
    """Write the interval of a share."""
    return f"{rate(found.low)}{NONE}{rate(found.high)}"


def change_interval(found: Interval) -> str:
    """Write the interval of a change."""
    return f"{signed(found.low)} to {signed(found.high)}"


def share(found: Rate | None) -> str:
    """Write a rate with its interval."""
    if found is None or found.value is None:
        return NONE
    return f"{rate(found.value)} ({interval(found.interval)})"


def count(value: float) -> str:
    """Write a whole number with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def number(value: float | None) -> str:
    """Write a measured quantity with three significant digits."""
    if value is None:
        return NONE
    text = f"{value:.3g}"
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def seconds(value: float) -> str:
    """Write a duration in its natural unit."""
    if value < 120:  # noqa: PLR2004 - two minutes
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def per_second(tokens: float, wall: float) -> str:
    """Write a speed in tokens per second."""
    return count(tokens / wall) if tokens and wall > 0 else NONE


def probability(p: float | None) -> str:
    """Write a p value with three digits."""
    least = 0.001
    if p is not None and p < least:
        return "<.001"
    return NONE if p is None else f"{p:.3f}".removeprefix("0")


def model(index: int) -> str:
    """Write the name of a model."""
    return f"M{index}"
