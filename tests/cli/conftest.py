"""The command line as a user types it, without starting a process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stapes.cli.main import app


@pytest.fixture
def stapes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """stapes(arguments...): how the command ends, with its output and exit status."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return run


@pytest.fixture
def one_line() -> Callable[[Result], str]:
    """one_line(result): the message of a command that ended as a user's error should."""

    def message(result: Result) -> str:
        assert result.exit_code == 2, (result.output, result.exception)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("error: ").rstrip()

    return message


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, but for tests with real weights, which are fetched once for all."""
    if request.node.get_closest_marker("weights") is None:
        monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
