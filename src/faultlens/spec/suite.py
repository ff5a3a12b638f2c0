"""Suites: what the verdicts of many specifications come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from faultlens.errors import SpecError, nearest
from faultlens.spec.table import Table

#: Worst first; those of checking on images beside their likes of verification.
ORDER = ("ERROR", "REFUTED", "FAILS", "UNKNOWN", "VACUOUS", "PROVED", "HOLDS")

_GROUPS = {
    "PROVED": "good", "HOLDS": "good", "REFUTED": "bad", "FAILS": "bad",
    "UNKNOWN": "open", "VACUOUS": "open", "ERROR": "error",
}  # fmt: skip


class Outcome(StrEnum):
    """Whether a verdict is the one expected."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ERROR = "error"


_EXIT_CODES = ((Outcome.ERROR, 2), (Outcome.FAILED, 1), (Outcome.UNKNOWN, 3))


@dataclass(frozen=True, slots=True)
class Case:
    """One specification of a suite, as reports for machines show it.

    Attributes:
        name: Of the specification.
        verdict: `HOLDS`, `FAILS`, `PROVED`, `REFUTED`, `VACUOUS`, `UNKNOWN` or `ERROR`.
        outcome: Whether that was expected.
        message: One line.
        detail: More lines, such as the violating images.
        seconds: What it took.
    """

    name: str
    verdict: str
    outcome: Outcome
    message: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What checking or verifying a suite found.

    Attributes:
        path: The file with the document.
        document: One JSON object; see `docs/files.md`.
        suites: The same for JUnit: cases by the suite's name.
        table: The same for people, one row a specification.
        markdown: The same as a summary in Markdown.
        remarks: Sentences that the reader should not miss.
    """

    path: Path
    document: Mapping[str, Any]
    suites: Mapping[str, Sequence[Case]]
    table: Table
    markdown: str
    remarks: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """The worst verdict, such as `FAILS`."""
        return str(self.document["status"])

    @property
    def exit_code(self) -> int:
        """0 all as expected, 1 something is not, 2 an error, 3 something is unknown."""
        return int(self.document["exit_code"])

    def to_json(self) -> dict[str, Any]:
        """Return the document, as the commands print it with `--json`."""
        return dict(self.document)


def outcome(verdict: str, expect: str | None = None) -> Outcome:
    """Compare a verdict with what its specification expects; without a word, that it holds.

    Args:
        verdict: One of `ORDER`.
        expect: `holds` or `proved`, `fails` or `refuted`, `vacuous` or `unknown`; None for the
            first. Either word of a pair serves checking and verification alike.

    Raises:
        SpecError: Another word is expected.

    Example:
        >>> outcome("HOLDS").value, outcome("FAILS", "refuted").value, outcome("UNKNOWN").value
        ('passed', 'passed', 'unknown')
    """
    wanted = (expect or "holds").upper()
    if wanted not in _GROUPS or wanted == "ERROR":
        known = [v.lower() for v in ORDER[1:]]
        raise SpecError(f"expect must be a verdict, got '{expect}'; {nearest(str(expect), known)}")
    group = _GROUPS[verdict]
    if group == "error":
        return Outcome.ERROR
    if group == _GROUPS[wanted]:
        return Outcome.PASSED
    return Outcome.UNKNOWN if group == "open" else Outcome.FAILED


def worst(verdicts: Iterable[str]) -> str | None:
    """Return the worst verdict of a suite, by `ORDER`; None of an empty one.

    Example:
        >>> worst(["PROVED", "VACUOUS", "REFUTED", "UNKNOWN"])
        'REFUTED'
    """
    return min(verdicts, key=ORDER.index, default=None)


def joined(verdicts: Sequence[str]) -> str:
    """Return the verdict of one specification over the union of several regions.

    As in a suite, except that a region where nothing can happen takes nothing from the others'
    proofs: the union is vacuous only where all are.

    Example:
        >>> joined(["PROVED", "VACUOUS"]), joined(["VACUOUS", "VACUOUS"])
        ('PROVED', 'VACUOUS')
    """
    found = [v for v in verdicts if v != "VACUOUS"] or list(verdicts)
    return worst(found) or "UNKNOWN"


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Return 0 where all passed, else 2 for an error, 1 for a failure, 3 for an unknown.

    Example:
        >>> exit_code([Outcome.PASSED, Outcome.UNKNOWN, Outcome.FAILED])
        1
    """
    found = set(outcomes)
    return next((code for kind, code in _EXIT_CODES if kind in found), 0)
