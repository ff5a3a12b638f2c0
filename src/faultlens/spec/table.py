"""Plain tables: the same rows for a terminal and for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text.

    Attributes:
        header: Titles of the columns.
        rows: As many cells each.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        r"""Return the table as GitHub shows it.

        Example:
            >>> print(Table(("spec", "n"), (("a|b", "3"),)).markdown())
            | spec | n |
            | --- | --- |
            | a\|b | 3 |
        """
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def bounds(interval: Sequence[float]) -> str:
    """Return an interval of shares in percent.

    Example:
        >>> bounds((0.123, 1.0))
        '[12.3, 100.0]'
    """
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
