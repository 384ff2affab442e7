"""The end of a benchmark's output: speeds as ratios to the rivals of the same run, and the machine they are from."""

import platform
from pathlib import Path

import pytest

RESULTS = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[RESULTS] = []


@pytest.fixture
def note_speed(request):
    """Called with (group, name, millions a second, remark); a group's first name is what the others are compared to."""
    return lambda *result: request.config.stash[RESULTS].append(result)


def machine():
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if (
        info.exists()
    ) else []  # fmt: skip
    return f"{names[0] if names else platform.processor() or platform.machine()}, {len(names) or '?'} cores"


def pytest_terminal_summary(terminalreporter, config):
    results = config.stash[RESULTS]
    if not results:
        return
    terminalreporter.section("millions of symbols a second, best round")
    terminalreporter.write_line(f"{machine()}; {platform.platform()}")
    for group in dict.fromkeys(result[0] for result in results):
        terminalreporter.write_line(group)
        own = next(speed for g, _, speed, _ in results if g == group)
        for _, name, speed, remark in (result for result in results if result[0] == group):
            terminalreporter.write_line(f"  {name:28} {speed:9.1f}   {own / speed:7.1f}x   {remark}")
