"""What all tests share: pinned threads, no hub, and skips that count where they must not be."""

import os
from collections.abc import Callable, Generator

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported: tiny models are an order of magnitude slower with two threads, and
# sums in another order would make other bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Here alone: pytest refuses plugins of a conftest that it meets while it collects.
pytest_plugins = ("support.stores",)

# How fast a machine is decides nothing: neither an example's time nor that of making it.
for profile in ("default", "ci"):
    settings.register_profile(
        profile,
        settings.get_profile(profile),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

REFUSE_SKIPS = "SELFIMPROVE_REFUSE_SKIPS"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001  the hook's signature
    call: pytest.CallInfo[None],  # noqa: ARG001
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skips into failures where CI has promised that nothing is missing."""
    report = yield
    if report.skipped and os.environ.get(REFUSE_SKIPS) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where {REFUSE_SKIPS} is set: {report.longrepr}"
    return report


NOTE = "note"


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return what writes a line under the results: something seen that no test can demand."""
    return lambda text: record_property(NOTE, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the notes of the tests that passed."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == NOTE:
                terminalreporter.write_line(f"note: {text}")
