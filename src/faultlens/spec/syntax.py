"""The syntax tree of Con_spec, and how a place in a file is shown to people.

Trees are compared by what they say: a span (start and end offset in the text) never counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Span = tuple[int, int]
NOWHERE: Span = (0, 0)
_N_SHOWN = 100  # characters of a line

#: Words that start a declaration.
DECLARING = frozenset({"class", "concept", "let", "region", "spec"})
_CLAUSES = frozenset({"on", "given", "margin", "confidence", "at", "expect"})
_LOGIC = frozenset({"not", "and", "xor", "or", "true", "false", "forall", "exists", "where", "in"})
_SETS = frozenset({"min", "max", "concepts", "classes", "relevant", "irrelevant"})
#: Words that mean something themselves; a class or concept called so must be quoted.
RESERVED = DECLARING | _CLAUSES | _LOGIC | _SETS


@dataclass(frozen=True, slots=True)
class Name:
    """A class, concept, variable, region or set, quoted or not."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Threshold:
    """`> value` or another comparison with a number, as an argument."""

    operator: str
    value: float
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as an argument."""

    value: float
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Argument = Name | Number | Threshold


@dataclass(frozen=True, slots=True)
class NameSet:
    """A finite set of classes or concepts.

    Attributes:
        kind: `literal`, `concepts`, `classes`, `relevant`, `irrelevant` or `declared`.
        names: The members of a literal; the class of `relevant`; the name of a declared set.
    """

    kind: str
    names: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A predicate, a quantity (`str(a)`, which is what `a` alone means) or a macro."""

    name: str
    args: tuple[Argument, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Extreme:
    """The smallest (`min`) or largest (`max`) strength of a set of concepts."""

    kind: str
    names: NameSet
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Term:
    """`weight * operand`; the weight alone where there is no operand."""

    weight: float
    operand: Call | Extreme | None = None


Sum = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """`true` or `false`."""

    value: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """Sums, each compared with the next: `a > b >= c` has three sides and two operators."""

    sides: tuple[Sum, ...]
    operators: tuple[str, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """The negation."""

    part: "Formula"


@dataclass(frozen=True, slots=True)
class Join:
    """Parts joined by `and`, `or` (two or more), `xor`, `=>` or `<=>` (two)."""

    operator: str
    parts: "tuple[Formula, ...]"


@dataclass(frozen=True, slots=True)
class Binder:
    """`variable in names`."""

    variable: Name
    names: NameSet


@dataclass(frozen=True, slots=True)
class Condition:
    """`left != right`, `left = right`, `left in set` or `left not in set`."""

    left: Name
    operator: str
    right: Name | NameSet


@dataclass(frozen=True, slots=True)
class Quantified:
    """`forall` or `exists` over finite sets."""

    quantifier: str
    binders: tuple[Binder, ...]
    conditions: tuple[Condition, ...]
    body: "Formula"


Formula = Truth | Call | Compare | Not | Join | Quantified


@dataclass(frozen=True, slots=True)
class Declaration:
    """`class a, b;` or `concept c;`: what the file takes for known."""

    kind: str
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Let:
    """A macro (a formula with parameters) or a set with a name."""

    name: Name
    parameters: tuple[Name, ...]
    body: Formula | NameSet


@dataclass(frozen=True, slots=True)
class RegionPart:
    """One region, such as `box(gamma=0.5)`."""

    kind: str
    options: Mapping[str, float] = field(default_factory=dict, hash=False)
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RegionExpr:
    """The intersection of regions, under a name."""

    name: str
    parts: tuple[RegionPart, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Spec:
    """One specification.

    Attributes:
        name: None for a formula that stands alone.
        goal: What must hold.
        region: Where it is to be proved.
        cls: Whose images and region are meant; None for every class, each apart.
        given: What may be supposed.
        margin: What every comparison of the goal must exceed zero by.
        confidence: Of the statistical check, in (0, 1).
        rate: Share of images that must satisfy it, in (0, 1].
        expect: The verdict that was foreseen.
    """

    name: Name | None
    goal: Formula
    region: Name | None = None
    cls: Name | None = None
    given: Formula | None = None
    margin: float = 0.0
    confidence: float | None = None
    rate: float | None = None
    expect: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Statement = Declaration | Let | RegionExpr | Spec


@dataclass(frozen=True, slots=True)
class SpecFile:
    """What a text says, and the text itself for messages."""

    statements: tuple[Statement, ...]
    source: str = field(default="spec", compare=False)
    text: str = field(default="", compare=False, repr=False)


def inner(formula: Formula) -> "tuple[Formula, ...]":
    """Return the formulas that a formula is made of.

    Example:
        >>> inner(Not(Truth(True)))
        (Truth(value=True),)
    """
    if isinstance(formula, Not):
        return (formula.part,)
    if isinstance(formula, Join):
        return formula.parts
    return (formula.body,) if isinstance(formula, Quantified) else ()


def leaves(formula: Formula) -> "Iterator[tuple[Truth | Call | Compare, int]]":
    """Yield the leaves from left to right, each with its depth; without recursion."""
    stack = [(formula, 1)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, Truth | Call | Compare):
            yield node, depth
        stack.extend((part, depth + 1) for part in reversed(inner(node)))


def line_of(text: str, offset: int) -> int:
    """Return the line of an offset, from 1."""
    return text.count("\n", 0, offset) + 1


def place(text: str, offset: int) -> str:
    """Return the line and the column of an offset, both from 1.

    Example:
        >>> place("a;\\nb;", 3)
        '2:1'
    """
    return f"{line_of(text, offset)}:{offset - text.rfind(chr(10), 0, offset)}"


def point(file: SpecFile, span: Span, message: str) -> str:
    """Return a message with its place, the line and a caret under it.

    Example:
        >>> print(point(SpecFile((), "a.con", "weels > ears;"), (0, 5), "unknown"))
        a.con:1:1: unknown
          1 | weels > ears;
            | ^^^^^
    """
    text = file.text
    start, end = min(span[0], len(text)), min(span[1], len(text))
    first = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start)
    line = text[first : stop if stop >= 0 else len(text)]
    column = start - first
    cut = max(0, column - _N_SHOWN // 2) if len(line) > _N_SHOWN else 0
    shown = "".join(c if c.isprintable() else " " for c in line[cut : cut + _N_SHOWN])
    number = str(line_of(text, start))
    n_carets = max(1, min(end - start, len(shown) - (column - cut)))
    return (
        f"{file.source}:{number}:{column + 1}: {message}\n"
        f"  {number} | {shown}\n"
        f"  {' ' * len(number)} | {' ' * (column - cut)}{'^' * n_carets}"
    )
