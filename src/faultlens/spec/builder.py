# ruff: noqa: D102 (each method is the rule of con_spec.lark that it is called after)
"""What each rule of the grammar becomes: a node of the syntax tree, or a mistake at a place."""

from typing import Any

from lark import Token, Transformer, v_args

from faultlens.spec import syntax as s

_LARGEST = 1e100
_MAX_BINDERS = 8
_EXPECTED = ("holds", "proved", "fails", "refuted", "vacuous", "unknown")


class Mistake(Exception):
    """Something the grammar allows and the language does not."""

    def __init__(self, span: s.Span, message: str) -> None:
        super().__init__(message)
        self.span = span


def _at(token: Token) -> s.Span:
    return (token.start_pos or 0, token.end_pos or 0)


def _name(token: Token) -> s.Name:
    """A name; words of the language must be quoted, and quotes are taken off."""
    text = str(token)
    if token.type == "STRING":
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        if not text.isprintable() or text != text.strip():
            raise Mistake(
                _at(token), "names must be printable, without blanks around; correct the quotes"
            )
    elif text in s.RESERVED:
        raise Mistake(
            _at(token),
            f"'{text}' is a word of the language; choose another name, "
            f'or quote a class or concept of that name: "{text}"',
        )
    return s.Name(text, _at(token))


def _value(token: Token, sign: Token | None = None) -> float:
    value = float(token)
    if not value <= _LARGEST:
        raise Mistake(_at(token), f"numbers must be at most {_LARGEST:g}, got {token}")
    return -value if sign is not None and sign.type == "MINUS" else value


def _present(children: tuple[Any, ...]) -> list[Any]:
    return [c for c in children if c is not None]


@v_args(inline=True)
class Builder(Transformer[Token, Any]):
    """One method a rule of the grammar; runs while parsing, so depth needs no recursion."""

    def start(self, *statements: s.Statement) -> tuple[s.Statement, ...]:
        return statements

    # Statements

    def classes(self, names: tuple[s.Name, ...]) -> s.Declaration:
        return s.Declaration("class", names)

    def concepts(self, names: tuple[s.Name, ...]) -> s.Declaration:
        return s.Declaration("concept", names)

    def let(self, name: Token, parameters: tuple[s.Name, ...] | None, body: s.Formula) -> s.Let:
        for i, parameter in enumerate(parameters or ()):
            if parameter in (parameters or ())[:i]:
                raise Mistake(parameter.span, f"parameter '{parameter.text}' stands here twice")
        return s.Let(_name(name), parameters or (), body)

    def let_set(self, name: Token, names: s.NameSet) -> s.Let:
        return s.Let(_name(name), (), names)

    def region(self, name: Token, *parts: Any) -> s.RegionExpr:
        kept = tuple(p for p in parts if isinstance(p, s.RegionPart))
        return s.RegionExpr(_name(name).text, kept, _at(name))

    def part(self, kind: Token, *options: Any) -> s.RegionPart:
        values: dict[str, float] = {}
        for token, value in _present(options):
            if _name(token).text in values:
                raise Mistake(_at(token), f"option '{token}' stands here twice")
            values[str(token)] = value
        return s.RegionPart(_name(kind).text, values, _at(kind))

    def option(self, name: Token, value: s.Number) -> tuple[Token, float]:
        return name, value.value

    def spec(self, keyword: Token, name: s.Name, *rest: Any) -> s.Spec:
        *clauses, goal = rest
        values: dict[str, Any] = {}
        for token, found in clauses:
            if found.keys() & values.keys():
                raise Mistake(_at(token), f"'{token}' stands in this spec twice")
            values |= found
        return s.Spec(name, goal, **values, span=_at(keyword))

    def nameless(self, goal: s.Formula) -> s.Spec:
        return s.Spec(None, goal, span=next(s.leaves(goal))[0].span)

    # Clauses: each a keyword with what it sets

    def on(self, keyword: Token, region: Token, cls: s.Name | Token) -> Any:
        return keyword, {"region": _name(region), "cls": cls if isinstance(cls, s.Name) else None}

    def given(self, keyword: Token, formula: s.Formula) -> Any:
        return keyword, {"given": formula}

    def margin(self, keyword: Token, number: s.Number) -> Any:
        if number.value < 0:
            raise Mistake(number.span, f"margin must be at least 0, got {number.value:g}")
        return keyword, {"margin": number.value}

    def confidence(self, keyword: Token, level: s.Number, rate: s.Number | None) -> Any:
        if not 0 < level.value < 1:
            raise Mistake(level.span, f"confidence must be in (0, 1), got {level.value:g}")
        if rate is not None and not 0 < rate.value <= 1:
            raise Mistake(rate.span, f"the rate must be in (0, 1], got {rate.value:g}")
        return keyword, {"confidence": level.value, "rate": rate.value if rate else None}

    def expect(self, keyword: Token, verdict: Token) -> Any:
        if verdict not in _EXPECTED:
            wanted = f"{', '.join(_EXPECTED[:-1])} or {_EXPECTED[-1]}"
            raise Mistake(_at(verdict), f"expect must be {wanted}, got '{verdict}'")
        return keyword, {"expect": str(verdict)}

    # Formulas

    def binary(self, left: s.Formula, operator: Token, right: s.Formula) -> s.Join:
        word = {"IMPLIES": "=>", "IFF": "<=>", "XOR": "xor"}[operator.type]
        return s.Join(word, (left, right))

    def chain(self, *children: Any) -> s.Join:
        return s.Join(children[1].type.lower(), children[::2])

    def negation(self, _: Token, part: s.Formula) -> s.Not:
        return s.Not(part)

    def quantified(
        self,
        word: Token,
        binders: tuple[s.Binder, ...],
        conditions: tuple[s.Condition, ...] | None,
        body: s.Formula,
    ) -> s.Quantified:
        if len(binders) > _MAX_BINDERS:
            message = f"a quantifier must bind at most {_MAX_BINDERS} names; use two"
            raise Mistake(binders[-1].variable.span, message)
        quantifier = {"∀": "forall", "∃": "exists"}.get(word, str(word))
        for i, binder in enumerate(binders):
            if any(b.variable == binder.variable for b in binders[:i]):
                raise Mistake(binder.variable.span, f"'{binder.variable.text}' stands here twice")
        return s.Quantified(quantifier, binders, conditions or (), body)

    def truth(self, token: Token) -> s.Truth:
        return s.Truth(token == "true", _at(token))

    def bare_call(self, token: Token) -> s.Call:
        return s.Call(_name(token).text, (), _at(token))

    def call(self, token: Token, *args: Any) -> s.Call:
        return s.Call(_name(token).text, tuple(_present(args)), _at(token))

    def threshold(self, operator: Token, number: s.Number) -> s.Threshold:
        return s.Threshold(_comparator(operator), number.value, _at(operator))

    def compare(self, *children: Any) -> s.Compare:
        operators = tuple(_comparator(c) for c in children[1::2])
        return s.Compare(children[::2], operators, _at(children[1]))

    def prefix(self, token: Token, *names: Any) -> s.Compare:
        """The paper's `>(x, a, b)`, where x is the image, or `>(a, b)`."""
        *image, left, right = _present(names)
        if image and image[0].text != "x":
            raise Mistake(image[0].span, f"the image must be called x, got '{image[0].text}'")
        return s.Compare(((self._of(left),), (self._of(right),)), (">",), _at(token))

    def _of(self, name: s.Name) -> s.Term:
        return s.Term(1.0, self.strength(name))

    def strength(self, name: s.Name) -> s.Call:
        return s.Call("str", (name,), name.span)

    # Sums

    def sum(self, *children: Any) -> tuple[s.Term, ...]:
        return tuple(
            s.Term(
                -term.weight if sign is not None and sign.type == "MINUS" else term.weight,
                term.operand,
            )
            for sign, term in zip(children[::2], children[1::2], strict=True)
        )

    def constant(self, token: Token) -> s.Term:
        return s.Term(_value(token))

    def weighted(self, weight: Token | None, _: Token | None, operand: Any) -> s.Term:
        return s.Term(1.0 if weight is None else _value(weight), operand)

    def extreme(self, kind: Token, names: s.NameSet) -> s.Extreme:
        return s.Extreme(str(kind), names, _at(kind))

    def number(self, sign: Token | None, token: Token) -> s.Number:
        return s.Number(_value(token, sign), _at(token))

    # Sets and names

    def binder(self, variable: s.Name, _: Token, names: s.NameSet) -> s.Binder:
        return s.Binder(variable, names)

    def compared(self, left: s.Name, *rest: Any) -> s.Condition:
        return s.Condition(left, "!=" if len(rest) > 1 else "=", rest[-1])

    def contained(self, left: s.Name, no: Token | None, _: Token, names: s.NameSet) -> s.Condition:
        return s.Condition(left, "in" if no is None else "not in", names)

    def literal(self, names: tuple[s.Name, ...]) -> s.NameSet:
        return s.NameSet("literal", names)

    def whole_set(self, token: Token) -> s.NameSet:
        return s.NameSet(str(token))

    def relevance(self, token: Token, name: s.Name) -> s.NameSet:
        return s.NameSet(str(token), (name,))

    def declared_set(self, token: Token) -> s.NameSet:
        return s.NameSet("declared", (_name(token),))

    def name(self, token: Token) -> s.Name:
        return _name(token)

    def names(self, *names: s.Name) -> tuple[s.Name, ...]:
        return names

    def parameters(self, *tokens: Token) -> tuple[s.Name, ...]:
        return tuple(map(_name, tokens))

    def binders(self, *binders: s.Binder) -> tuple[s.Binder, ...]:
        return binders

    def conditions(self, *children: Any) -> tuple[s.Condition, ...]:
        return children[::2]


def _comparator(token: Token) -> str:
    return {"≥": ">=", "≤": "<="}.get(token, str(token))
