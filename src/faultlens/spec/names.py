"""What the names of a file stand for: classes, concepts, sets, macros, regions and variables."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from faultlens.errors import SpecError, SpecNameError, nearest
from faultlens.spec import syntax as s
from faultlens.spec.predicate import Scope

#: Names that variables and parameters stand for.
Bindings = Mapping[str, s.Name]


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """The names of one file in one scope.

    Attributes:
        file: For messages.
        scope: The session's classes and concepts.
        places: Of `concept` and `class`: a name's place.
        macros: Formulas under a name.
        sets: Sets under a name.
        regions: Regions under a name.
        resolved: Arguments of calls met before.
    """

    file: s.SpecFile
    scope: Scope
    places: Mapping[str, Mapping[str, int]]
    macros: Mapping[str, s.Let]
    sets: Mapping[str, s.NameSet]
    regions: Mapping[str, s.RegionExpr]
    resolved: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict)

    def wrong(self, span: s.Span, message: str) -> SpecError:
        """Return an error that shows its place."""
        return SpecError(s.point(self.file, span, message))

    def unknown(self, kind: str, name: s.Name, known: list[str], more: str = "") -> SpecNameError:
        """Return the error for a name nobody declared; `more` says what to do about it."""
        advice = more or (nearest(name.text, known) if known else "none is declared")
        whole = self._hyphenated(name.span)
        if whole:
            advice = f'quote names with hyphens: "{whole}"'
        message = f"{kind} must be a known name, got '{name.text}'; {advice}"
        return SpecNameError(s.point(self.file, name.span, message))

    def _hyphenated(self, span: s.Span) -> str:
        """Return the known name such as `long-snout` of which a place shows one part."""
        text = self.file.text
        part = text[span[0] : span[1]]
        for name in (*self.places["concept"], *self.places["class"]):
            at = name.find(part) if part and part != name and "-" in name else -1
            if at >= 0 and text[max(0, span[0] - at) :].startswith(name):
                return name
        return ""

    def index(self, name: s.Name, kind: str, bindings: Bindings) -> int:
        """Return the place of a class or concept, through the variables."""
        bound = bindings.get(name.text, name)
        index = self.places[kind].get(bound.text)
        if index is not None:
            return index
        more = ""
        if kind == "concept" and bound.text in self.places["class"]:
            more = f"that is a class; its logit({bound.text}) can be compared"
        elif kind == "class" and bound.text in self.places["concept"]:
            more = "that is a concept"
        span = bound.span if bound.span != s.NOWHERE else name.span
        raise self.unknown(kind, s.Name(bound.text, span), list(self.places[kind]), more)

    def members(self, names: s.NameSet, bindings: Bindings) -> list[s.Name]:
        """Return what a set holds, each name once, in order."""
        if names.kind == "literal":
            return list(dict.fromkeys(bindings.get(n.text, n) for n in names.names))
        if names.kind == "concepts":
            return [s.Name(text) for text in self.scope.concepts]
        if names.kind == "classes":
            return [s.Name(text) for text in self.scope.classes]
        if names.kind == "declared":
            name = bindings.get(names.names[0].text, names.names[0])
            if name.text not in self.sets:
                raise self.unknown("set", name, list(self.sets))
            return self.members(self.sets[name.text], {})
        return self._relevant(names.names[0], names.kind, bindings)

    def _relevant(self, cls: s.Name, kind: str, bindings: Bindings) -> list[s.Name]:
        if self.scope.relevant is None:
            message = (
                f"{kind}({cls.text}) must be known, but no class has relevant concepts here; "
                "write the set out, or name them in the concepts file"
            )
            raise self.wrong(cls.span, message)
        row = self.scope.relevant[self.index(cls, "class", bindings)]
        chosen = np.flatnonzero(np.asarray(row, bool) == (kind == "relevant"))
        return [s.Name(self.scope.concepts[c]) for c in chosen]

    def choices(
        self, node: s.Quantified, bindings: Bindings, tick: Callable[[], None], at: int = 0
    ) -> Iterator[dict[str, s.Name]]:
        """Yield every choice of a quantifier's variables that its conditions allow.

        Args:
            node: The quantifier.
            bindings: Of the variables around it.
            tick: Called for every name tried.
            at: Which variable is next.
        """
        own = dict(bindings)
        if at == len(node.binders):
            if all(self._allows(condition, own) for condition in node.conditions):
                yield own
            return
        binder = node.binders[at]
        for name in self.members(binder.names, bindings):
            tick()
            own[binder.variable.text] = name
            yield from self.choices(node, own, tick, at + 1)

    def _allows(self, condition: s.Condition, bindings: Bindings) -> bool:
        left = bindings.get(condition.left.text, condition.left)
        right = condition.right
        if isinstance(right, s.NameSet):
            return (left in self.members(right, bindings)) == (condition.operator == "in")
        return (left == bindings.get(right.text, right)) == (condition.operator == "=")

    def wrong_call(self, node: s.Call, wanted: list[str]) -> SpecError:
        """Return the error for a wrong number of arguments."""
        call = f"{node.name}({', '.join(wanted)})" if wanted else node.name
        return self.wrong(node.span, f"call must be {call}, got {len(node.args)} argument(s)")

    def arguments(self, node: s.Call, signature: tuple[str, ...], bindings: Bindings) -> list[Any]:
        """Resolve a call's arguments by its signature, once for every choice of names."""
        key: tuple[Any, ...] = (node.name, signature)
        for arg in node.args:
            key += (bindings.get(arg.text, arg).text if isinstance(arg, s.Name) else arg,)
        values = self.resolved.get(key)
        if values is None:
            values = self.resolved[key] = self._resolve(node, signature, bindings)
        return values

    def _resolve(self, node: s.Call, signature: tuple[str, ...], bindings: Bindings) -> list[Any]:
        """Match arguments and signature; a threshold may be missing."""
        args = list(without_image(node.args, len(signature) - signature.count("threshold")))
        if len(args) == len(signature) - 1 and signature[-1] == "threshold":
            args.append(s.Threshold("", 0.0))
        if len(args) != len(signature):
            raise self.wrong_call(node, list(signature))
        return [self._argument(a, kind, bindings) for a, kind in zip(args, signature, strict=True)]

    def _argument(self, arg: s.Argument, kind: str, bindings: Bindings) -> Any:
        wrong = self.wrong
        if kind == "threshold":
            if isinstance(arg, s.Threshold) and arg.operator in ("", ">", ">="):
                return (arg.operator, arg.value) if arg.operator else None
            raise wrong(arg.span, "a threshold must be written as '> 0.1' or '>= 0.1'")
        if kind == "rank":
            n = len(self.scope.classes)
            if isinstance(arg, s.Number) and arg.value in range(1, n + 1):
                return int(arg.value)
            raise wrong(arg.span, f"a rank must be a whole number from 1 to {n}")
        if not isinstance(arg, s.Name):
            raise wrong(arg.span, f"a {kind} must be a name, got a number")
        return self.index(arg, kind, bindings)


def without_image(args: tuple[s.Argument, ...], n: int) -> tuple[s.Argument, ...]:
    """Drop a leading x, the image that the paper writes and this language takes for granted."""
    n_given = sum(not isinstance(a, s.Threshold) for a in args)
    return args[1:] if n_given == n + 1 and args[0] == s.Name("x") else args


def collect(file: s.SpecFile, scope: Scope, predicates: Mapping[str, Any]) -> Names:
    """Read a file's declarations.

    Raises:
        SpecNameError: A class or concept that the scope does not have, an unknown kind of region,
            or a name that is taken.
    """
    places = {
        "concept": {name: i for i, name in enumerate(scope.concepts)},
        "class": {name: i for i, name in enumerate(scope.classes)},
    }
    macros: dict[str, s.Let] = {}
    sets: dict[str, s.NameSet] = {}
    regions: dict[str, s.RegionExpr] = {}
    names = Names(file, scope, places, macros, sets, regions)
    specs: dict[str, None] = {}
    for statement in file.statements:
        if isinstance(statement, s.Declaration):
            for name in statement.names:
                names.index(name, statement.kind, {})
        elif isinstance(statement, s.RegionExpr):
            _check_new(names, s.Name(statement.name, statement.span), regions)
            _check_kinds(names, statement)
            regions[statement.name] = statement
        elif isinstance(statement, s.Spec):
            if statement.name is not None:
                _check_new(names, statement.name, specs)
                specs[statement.name.text] = None
        else:
            _check_new(names, statement.name, {**predicates, **macros, **sets})
            if isinstance(statement.body, s.NameSet):
                sets[statement.name.text] = statement.body
            else:
                macros[statement.name.text] = statement
    return names


def _check_new(names: Names, name: s.Name, taken: Mapping[str, Any]) -> None:
    if name.text in taken:
        message = f"every name must be new, got '{name.text}', which is taken; rename one of them"
        raise SpecNameError(s.point(names.file, name.span, message))


def _check_kinds(names: Names, region: s.RegionExpr) -> None:
    for part in region.parts:
        if part.kind not in _kinds():
            raise names.unknown("region", s.Name(part.kind, part.span), list(_kinds()))


@cache
def _kinds() -> tuple[str, ...]:
    from faultlens.spec.regions import REGIONS  # noqa: PLC0415 (only files with regions need it)

    return tuple(REGIONS)
