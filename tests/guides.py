"""What the guide's pages hold: blocks of code, and the `faultlens` commands among them."""

import re
import shlex
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)```", re.S
)
_SHELL = (">", ">>", "|", "&&", "||", ";")
#: Stands in a command for what the reader fills in.
ELLIPSIS = "…"


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, its text, and why it is not run, if it is not."""

    language: str
    code: str
    why: str | None = None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in their order."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["language"], m["code"], m["why"]) for m in found]


def commands(page: Path) -> list[list[str]]:
    """Return the words of every line that calls `faultlens`, without comments and redirections."""
    lines = [
        line
        for block in blocks(page)
        if block.language in ("", "bash", "sh", "console")
        for line in block.code.replace("\\\n", " ").splitlines()
    ]
    called = (line.strip().removeprefix("$ ") for line in lines)
    found = [shlex.split(c, comments=True)[1:] for c in called if c.startswith("faultlens ")]
    return [list(takewhile(lambda word: word not in _SHELL, words)) for words in found]
