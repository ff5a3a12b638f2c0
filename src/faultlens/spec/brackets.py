"""Brackets: which one of a statement is opened and never closed."""

import re

# Names in quotes and comments may hold brackets that mean nothing.
_PIECE = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|[(){};]')
_CLOSED_BY = {"(": ")", "{": "}"}


def never_closed(text: str, at: int, *, ends: bool) -> int | None:
    """Return the place of the innermost bracket before `at` that its statement never closes.

    Args:
        text: A file of specifications.
        at: Where its reading failed; the statement around it is looked at.
        ends: Whether the statement ends there, though no `;` says so.

    Returns:
        Offset into the text; None where every bracket opened before `at` is closed.

    Example:
        >>> never_closed("p and (q or (r and s);", 21, ends=False)
        6
        >>> never_closed("p and (q or r) s;", 15, ends=False) is None
        True
    """
    opened: list[int] = []
    for piece in _PIECE.finditer(text, 0, at if ends else len(text)):
        if piece[0] == ";":
            if piece.start() >= at:
                break
            opened = []
        elif piece[0] in _CLOSED_BY:
            opened.append(piece.start())
        elif opened and piece[0] == _CLOSED_BY[text[opened[-1]]]:
            opened.pop()
    return max((place for place in opened if place < at), default=None)


def closing(bracket: str) -> str:
    """Return what closes a bracket.

    Example:
        >>> closing("(")
        ')'
    """
    return _CLOSED_BY[bracket]
