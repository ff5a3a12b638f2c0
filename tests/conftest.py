"""What all tests share: golden files, and a CI that notices when a whole extra went untested."""

import os
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compare a text with a file under tests/golden."""

    def check(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{name} is missing; run pytest --update-golden and read the result"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def torchvision_operators():
    """A torchvision made for another torch asks for two operators that it then does not use."""
    torch = pytest.importorskip("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    except RuntimeError:  # it fits
        pass
    yield
    library._destroy()


#: Markers whose tests must run in CI; the others need data or a browser that may be absent.
_NEVER_ALL_SKIPPED = ("torch", "offline")


def pytest_terminal_summary(terminalreporter, exitstatus, config) -> None:
    """Fail a CI run in which every test of an extra was skipped: a green light would be a lie."""
    if os.environ.get("CI") != "true":
        return
    for marker in _NEVER_ALL_SKIPPED:
        outcomes = {
            outcome
            for outcome in ("passed", "failed", "skipped")
            for report in terminalreporter.stats.get(outcome, [])
            if marker in getattr(report, "keywords", ())  # a file that is skipped whole has none
        }
        if outcomes == {"skipped"}:
            terminalreporter.write_line(f"every test marked '{marker}' was skipped", red=True)
            terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
