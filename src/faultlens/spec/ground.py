"""From the syntax tree to ground formulas: names resolved, macros and quantifiers expanded.

A `forall` at the top of a spec becomes one ground spec a case, made only when it is asked for;
elsewhere quantifiers become conjunctions and disjunctions.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

from faultlens.errors import SpecError
from faultlens.spec import syntax as s
from faultlens.spec.formula import (
    FALSE,
    TRUE,
    AtLeast,
    Comparison,
    Formula,
    all_of,
    any_of,
    comparisons,
    negate,
)
from faultlens.spec.names import Bindings, Names, collect, without_image
from faultlens.spec.parse import MAX_DEPTH
from faultlens.spec.predicate import PREDICATES, Predicate, Quantity, Scope
from faultlens.spec.printer import render_statement

__all__ = ["GroundSpec", "Scope", "ground"]

#: Comparisons of one ground formula, and names tried for it.
MAX_SIZE = 300_000
#: Names tried for the cases of a spec's leading `forall`.
MAX_CASES = 20_000_000
_OF_IMAGES = (
    "{0} must be asked of images, and no embedding of a region has a label; "
    "use it with check or find, and leave it out where a spec is to be verified"
)
_MAX_EXTREMES = 8  # in one comparison


@dataclass(frozen=True, slots=True)
class GroundSpec:
    """One specification without names, macros or quantifiers.

    Attributes:
        name: Of the spec, with the case: `own[a=wheels,b=ears]`; `line3` where it has none.
        goal: What must hold, the margin worked in.
        given: What may be supposed.
        region: Where it is to be proved; None where the spec does not say.
        cls: Whose images and region are meant; None for every class, each apart.
        confidence: Of the statistical check; None where the spec does not say.
        rate: Share of images that must satisfy it; None where the spec does not say.
        expect: The verdict that was foreseen.
        text: The spec in canonical form, before expansion.
        line: Of the spec in its file.
    """

    name: str
    goal: Formula
    given: Formula
    region: s.RegionExpr | None
    cls: int | None
    confidence: float | None
    rate: float | None
    expect: str | None
    text: str
    line: int


def ground(file: s.SpecFile, scope: Scope) -> Iterator[GroundSpec]:
    """Expand a file's specs, lazily.

    Args:
        file: As parsed.
        scope: What names are resolved against.

    Returns:
        The specs in the file's order; declarations are checked at once, each spec when it is met.

    Raises:
        SpecNameError: An unknown class, concept, set, macro or region, or a name declared twice.
        SpecError: A macro that calls itself, wrong arguments, or too large a formula.

    Example:
        >>> from faultlens.spec.parse import parse
        >>> file = parse("spec own: forall a in {wheels, ears} where a != ears: a > ears;")
        >>> (spec,) = ground(file, Scope(("ears", "wheels"), ("truck",)))
        >>> spec.name, spec.goal.terms
        ('own[a=wheels]', ((0, -1.0), (1, 1.0)))
    """
    return _Grounder(collect(file, scope, _known())).specs()


@cache
def _known() -> dict[str, Predicate | Quantity]:
    return {name: PREDICATES.load(name) for name in PREDICATES}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where expansion stands: what variables mean, and in which macros."""

    names: Bindings
    macros: tuple[str, ...] = ()


class _Grounder:
    """Expands the specs of one file; counts, so that no formula outgrows the machine."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.calls: dict[tuple[Any, ...], tuple[Formula, Formula, int]] = {}
        self.size = self.depth = self.n_cases = 0

    # Specs

    def specs(self) -> Iterator[GroundSpec]:
        specs = [x for x in self.names.file.statements if isinstance(x, s.Spec)]
        taken = {spec.name.text for spec in specs if spec.name}
        for spec in specs:
            line = s.line_of(self.names.file.text, spec.span[0])
            name = spec.name.text if spec.name else _new_name(f"line{line}", taken)
            taken.add(name)
            yield from self._cases_of(spec, name, line)

    def _cases_of(self, spec: s.Spec, name: str, line: int) -> Iterator[GroundSpec]:
        text, region = render_statement(spec), None
        if spec.region is not None:
            region = self.names.regions.get(spec.region.text)
            if region is None:
                raise self.names.unknown("region", spec.region, list(self.names.regions))
        self.n_cases = 0
        for body, place, case in self._cases(spec.goal, {}, ""):
            self.size = 0
            goal = self.formula(body, place)
            yield GroundSpec(
                name=f"{name}[{case}]" if case else name,
                goal=_with_margin(goal, spec.margin) if spec.margin else goal,
                given=TRUE if spec.given is None else self.formula(spec.given, place),
                region=region,
                cls=self.names.index(spec.cls, "class", place.names) if spec.cls else None,
                confidence=spec.confidence,
                rate=spec.rate,
                expect=spec.expect,
                text=text,
                line=line,
            )

    def _cases(
        self, goal: s.Formula, names: Bindings, case: str
    ) -> Iterator[tuple[s.Formula, _Place, str]]:
        """Yield the cases of a leading `forall`, and of one that follows it directly."""
        if not isinstance(goal, s.Quantified) or goal.quantifier != "forall":
            yield goal, _Place(names), case
            return
        variables = [b.variable.text for b in goal.binders]

        def tick() -> None:
            self.n_cases += 1
            if self.n_cases > MAX_CASES:
                raise self._too_large(goal.binders[0].variable.span, MAX_CASES)

        for inner in self.names.choices(goal, names, tick):
            own = ",".join(f"{v}={inner[v].text}" for v in variables)
            yield from self._cases(goal.body, inner, f"{case},{own}" if case else own)

    def _too_large(self, span: s.Span, limit: int) -> SpecError:
        message = (
            f"a spec must stay below {limit:,} comparisons and cases; narrow its sets, "
            "or put forall first, which makes a spec of every case"
        )
        return self.names.wrong(span, message)

    def _count(self, n: int, span: s.Span) -> None:
        self.size += n
        if self.size > MAX_SIZE:
            raise self._too_large(span, MAX_SIZE)

    # Formulas

    def formula(self, node: s.Formula, place: _Place, positive: bool = True) -> Formula:
        """Return the ground formula of a node, or of its negation."""
        if self.depth >= MAX_DEPTH:
            message = f"formulas and macros must nest at most {MAX_DEPTH} deep; flatten them"
            raise self.names.wrong(next(s.leaves(node))[0].span, message)
        self.depth += 1
        try:
            if isinstance(node, s.Truth):
                return TRUE if node.value == positive else FALSE
            if isinstance(node, s.Not):
                return self.formula(node.part, place, not positive)
            if isinstance(node, s.Join):
                return self._join(node, place, positive)
            if isinstance(node, s.Quantified):
                return self._quantified(node, place, positive)
            if isinstance(node, s.Compare):
                made = self._compare(node, place)
                return made if positive else negate(made)
            return self._call(node, place, positive)
        finally:
            self.depth -= 1

    def _join(self, node: s.Join, place: _Place, positive: bool) -> Formula:
        if node.operator in ("and", "or"):
            parts = [self.formula(part, place, positive) for part in node.parts]
            return (all_of if (node.operator == "and") == positive else any_of)(*parts)
        left, right = node.parts
        if node.operator == "=>":
            parts = [self.formula(left, place, not positive), self.formula(right, place, positive)]
            return (any_of if positive else all_of)(*parts)
        alike = (node.operator == "<=>") == positive
        return any_of(
            all_of(self.formula(left, place), self.formula(right, place, alike)),
            all_of(self.formula(left, place, False), self.formula(right, place, not alike)),
        )

    def _quantified(self, node: s.Quantified, place: _Place, positive: bool) -> Formula:
        span = node.binders[0].variable.span
        choices = self.names.choices(node, place.names, lambda: self._count(1, span))
        parts = [self.formula(node.body, replace(place, names=n), positive) for n in choices]
        return (all_of if (node.quantifier == "forall") == positive else any_of)(*parts)

    def _call(self, node: s.Call, place: _Place, positive: bool) -> Formula:
        if node.name in self.names.macros:
            return self._macro(node, place, positive)
        meaning = _known().get(node.name)
        if not isinstance(meaning, Predicate):
            raise self._no_formula(node, meaning)
        if meaning.is_of_images and not self.names.scope.has_truth:
            raise self.names.wrong(node.span, _OF_IMAGES.format(node.name))
        values = self.names.arguments(node, meaning.signature, place.names)
        key = (node.name, *values)
        if key not in self.calls:
            try:
                made = meaning.meaning(self.names.scope, *values)
            except SpecError as e:
                raise self.names.wrong(node.span, str(e)) from None
            self.calls[key] = made, negate(made), sum(1 for _ in comparisons(made))
        made, negated, n = self.calls[key]
        self._count(n, node.span)
        return made if positive else negated

    def _no_formula(self, node: s.Call, meaning: Quantity | None) -> SpecError:
        """Return the error for what is called but neither holds nor fails."""
        if meaning is not None:
            message = f"{node.name}(…) must be compared with something, such as > 0"
            return self.names.wrong(node.span, message)
        more = ""
        if node.name in self.names.places["concept"]:
            more = f"a concept must be compared, or asked for by hasCon({node.name})"
        elif node.name in self.names.places["class"]:
            more = f"a class must be asked for by predict({node.name})"
        elif node.name in self.names.sets:
            more = "a set must follow in, min or max"
        known = [n for n, p in _known().items() if isinstance(p, Predicate)]
        name = s.Name(node.name, node.span)
        return self.names.unknown("formula", name, [*known, *self.names.macros], more)

    def _macro(self, node: s.Call, place: _Place, positive: bool) -> Formula:
        let, wrong = self.names.macros[node.name], self.names.wrong
        if node.name in place.macros:
            path = " -> ".join((*place.macros, node.name))
            raise wrong(node.span, f"macros must not call themselves, got {path}")
        args = without_image(node.args, len(let.parameters))
        if len(args) != len(let.parameters):
            raise self.names.wrong_call(node, [p.text for p in let.parameters])
        names = {}
        for parameter, arg in zip(let.parameters, args, strict=True):
            if not isinstance(arg, s.Name):
                raise wrong(arg.span, "a macro's arguments must be names, got a number")
            names[parameter.text] = place.names.get(arg.text, arg)
        body: Any = let.body
        return self.formula(body, _Place(names, (*place.macros, node.name)), positive)

    # Comparisons

    def _compare(self, node: s.Compare, place: _Place) -> Formula:
        """Return a comparison, or of a chain that each holds with the next."""
        made = []
        for (left, right), operator in zip(pairwise(node.sides), node.operators, strict=True):
            sides = (right, left) if operator in ("<", "<=") else (left, right)
            made.append(self._pair(sides, operator in (">", "<"), node.span, place))
        return made[0] if len(made) == 1 else all_of(*made)

    def _pair(
        self, sides: tuple[s.Sum, s.Sum], is_strict: bool, span: s.Span, place: _Place
    ) -> Formula:
        """Return that the first side is larger; what `min` and `max` make of it, if there are."""
        terms: list[tuple[int, float]] = []
        constants: list[float] = []
        extremes: list[_Extreme] = []
        for sign, side in zip((1.0, -1.0), sides, strict=True):
            for term in side:
                weight = sign * term.weight
                if term.operand is None:
                    constants.append(weight)
                elif isinstance(term.operand, s.Call):
                    terms.append((self._signal(term.operand, place), weight))
                else:
                    extremes.append(self._extreme(term.operand, weight, place))
        if len(extremes) > _MAX_EXTREMES:
            message = f"a comparison must have at most {_MAX_EXTREMES} min and max; split it"
            raise self.names.wrong(span, message)
        self._count(math.prod(len(e.choices) for e in extremes), span)
        extremes.sort(key=lambda e: not e.is_all)
        return _over(extremes, terms, math.fsum(constants), is_strict)

    def _signal(self, call: s.Call, place: _Place) -> int:
        meaning = _known().get(call.name)
        if not isinstance(meaning, Quantity):
            known = [n for n, p in _known().items() if isinstance(p, Quantity)]
            is_formula = meaning is not None or call.name in self.names.macros
            more = "that holds or not, and has no size to compare" if is_formula else ""
            raise self.names.unknown("quantity", s.Name(call.name, call.span), known, more)
        return meaning.signal(
            self.names.scope, *self.names.arguments(call, meaning.signature, place.names)
        )

    def _extreme(self, node: s.Extreme, weight: float, place: _Place) -> "_Extreme":
        members = self.names.members(node.names, place.names)
        if not members:
            message = f"{node.kind} must be over at least one concept, got an empty set"
            raise self.names.wrong(node.span, message)
        choices = [(self.names.index(m, "concept", place.names), weight) for m in members]
        return _Extreme((node.kind == "min") == (weight > 0), choices)


@dataclass(frozen=True, slots=True)
class _Extreme:
    """A `min` or `max`: whether the comparison must hold for all of its choices, or for one."""

    is_all: bool
    choices: list[tuple[int, float]]


def _over(
    extremes: list[_Extreme], terms: list[tuple[int, float]], constant: float, is_strict: bool
) -> Formula:
    """Quantify over the members of every `min` and `max`.

    Extremes that are added choose their members independently of each other: so an added `min`
    means *for all*, an added `max` *for some*, and their order does not matter.
    """
    if not extremes:
        return _comparison(terms, constant, is_strict)
    first, *rest = extremes
    parts = [_over(rest, [*terms, choice], constant, is_strict) for choice in first.choices]
    return parts[0] if len(parts) == 1 else (all_of if first.is_all else any_of)(*parts)


def _comparison(terms: list[tuple[int, float]], constant: float, is_strict: bool) -> Comparison:
    """Return the comparison with every signal once; what cancels is left out."""
    weights: dict[int, float] = {}
    for signal, weight in terms:
        weights[signal] = weights.get(signal, 0.0) + weight
    kept = tuple(sorted((signal, weight) for signal, weight in weights.items() if weight))
    return Comparison(kept, constant, is_strict)


def _with_margin(formula: Formula, margin: float) -> Formula:
    """Return the formula with every comparison harder by `margin`."""
    if isinstance(formula, Comparison):
        return replace(formula, constant=formula.constant - margin)
    return AtLeast(formula.n, tuple(_with_margin(part, margin) for part in formula.parts))


def _new_name(name: str, taken: set[str]) -> str:
    """Return the name, numbered where it is taken."""
    names = (name if n == 1 else f"{name}.{n}" for n in range(1, len(taken) + 2))
    return next(n for n in names if n not in taken)
