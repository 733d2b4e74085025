"""What asyncio and gRPC can only log fails the test that is running: tasks that nobody awaited, generators left behind.

Pytest itself turns warnings into errors, also those about what is collected later; see `filterwarnings` in pyproject.toml.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

LOGGERS = ("asyncio", "grpc")


class Noise(logging.Handler):
    """Pytest's part: hears errors that are logged, and keeps them until a test is failed for them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, with its traceback."""
        self._heard.append(self.format(record))

    def take(self) -> str:
        """What was heard since the last time."""
        heard, self._heard = self._heard, []
        return "\n".join(heard)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """What comes after the last test fails the run."""
        if late := self.take():
            print(f"\nlogged after the last test:\n{late}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            # A worker's exit status goes nowhere; what it hands over does.
            getattr(session.config, "workeroutput", {})["late"] = late


def pytest_configure(config: pytest.Config) -> None:
    """Begin to listen."""
    noise = Noise()
    config.pluginmanager.register(noise, "noise-heard")
    for name in LOGGERS:
        logging.getLogger(name).addHandler(noise)


@pytest.fixture(autouse=True)
def noise(request: pytest.FixtureRequest) -> Iterator[Noise]:
    """What is heard while a test runs, its fixtures included; the test fails for what it has not taken."""
    heard: Noise = request.config.pluginmanager.get_plugin("noise-heard")
    yield heard
    if left := heard.take():
        pytest.fail(left, pytrace=False)
