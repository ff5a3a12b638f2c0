"""From the syntax tree back to text: ASCII, one line a statement, no needless parentheses."""

import re

from faultlens.spec import syntax as s

_PLAIN = re.compile(r"[^\W\d]\w*")
_LEVEL = {"<=>": 1, "=>": 2, "or": 3, "xor": 4, "and": 5}
_UNARY = 6


def render(file: s.SpecFile) -> str:
    """Return the canonical text; read again it gives the same tree.

    Example:
        >>> from faultlens.spec.parse import parse
        >>> render(parse("((¬predict(truck)) ∨ str(wheels) ≥ .5*ears) ⇒ >(x, a, b);"))
        'not predict(truck) or wheels >= 0.5 * ears => a > b;\\n'
    """
    return "".join(render_statement(statement) + "\n" for statement in file.statements)


def render_statement(statement: s.Statement) -> str:
    """Return one statement, with its semicolon."""
    if isinstance(statement, s.Declaration):
        return f"{statement.kind} {_names(statement.names)};"
    if isinstance(statement, s.Let):
        head = _name(statement.name)
        if statement.parameters:
            head += f"({_names(statement.parameters)})"
        if isinstance(statement.body, s.NameSet):
            return f"let {head} = {_set(statement.body)};"
        return f"let {head} = {render_formula(statement.body)};"
    if isinstance(statement, s.RegionExpr):
        return f"region {statement.name} = {render_region(statement)};"
    return _spec(statement)


def render_region(region: s.RegionExpr) -> str:
    """Return the right side of a region's declaration.

    Example:
        >>> render_region(s.RegionExpr("R", (s.RegionPart("box", {"gamma": 0.5}),)))
        'box(gamma=0.5)'
    """
    return " & ".join(_part(part) for part in region.parts)


def _part(part: s.RegionPart) -> str:
    options = ", ".join(f"{name}={_signed(value)}" for name, value in part.options.items())
    return f"{part.kind}({options})" if options else part.kind


def _spec(spec: s.Spec) -> str:
    goal = render_formula(spec.goal)
    if spec.name is None:
        return f"{goal};"
    head = [f"spec {_name(spec.name)}"]
    if spec.region is not None:
        cls = "*" if spec.cls is None else _name(spec.cls)
        head.append(f"on {_name(spec.region)}({cls})")
    if spec.given is not None:
        head.append(f"given {render_formula(spec.given)}")
    if spec.margin:
        head.append(f"margin {_number(spec.margin)}")
    if spec.confidence is not None:
        rate = "" if spec.rate is None else f" at {_number(spec.rate)}"
        head.append(f"confidence {_number(spec.confidence)}{rate}")
    if spec.expect is not None:
        head.append(f"expect {spec.expect}")
    return f"{' '.join(head)}: {goal};"


def render_formula(formula: s.Formula) -> str:
    """Return a formula with as few parentheses as its meaning allows."""
    return _formula(formula, 0, True)


def _formula(formula: s.Formula, level: int, is_last: bool) -> str:
    """Render where operators must bind tighter than `level` says.

    A quantifier's body reaches to the right as far as it can, so it stands bare only where
    nothing follows.
    """
    if isinstance(formula, s.Truth | s.Call | s.Compare):
        return _leaf(formula)
    if isinstance(formula, s.Not):
        return f"not {_formula(formula.part, _UNARY, is_last)}"
    if isinstance(formula, s.Quantified):
        return _quantified(formula) if is_last else f"({_quantified(formula)})"
    own = _LEVEL[formula.operator]
    if own < level:
        return f"({_join(formula, own, True)})"
    return _join(formula, own, is_last)


def _leaf(formula: s.Truth | s.Call | s.Compare) -> str:
    if isinstance(formula, s.Call):
        return _call(formula)
    if isinstance(formula, s.Compare):
        return _compare(formula)
    return "true" if formula.value else "false"


def _join(formula: s.Join, own: int, is_last: bool) -> str:
    """Render the parts; only the side an operator groups to may hold the operator itself."""
    loose = {"=>": len(formula.parts) - 1, "xor": 0, "<=>": 0}.get(formula.operator)
    n = len(formula.parts)
    texts = [
        _formula(part, own + (i != loose), is_last and i == n - 1)
        for i, part in enumerate(formula.parts)
    ]
    return f" {formula.operator} ".join(texts)


def _quantified(formula: s.Quantified) -> str:
    binders = ", ".join(f"{_name(b.variable)} in {_set(b.names)}" for b in formula.binders)
    where = " and ".join(_condition(c) for c in formula.conditions)
    head = f"{formula.quantifier} {binders}" + (f" where {where}" if where else "")
    return f"{head}: {_formula(formula.body, 0, True)}"


def _condition(condition: s.Condition) -> str:
    right = condition.right
    shown = _set(right) if isinstance(right, s.NameSet) else _name(right)
    return f"{_name(condition.left)} {condition.operator} {shown}"


def _compare(formula: s.Compare) -> str:
    text = _sum(formula.sides[0])
    for operator, side in zip(formula.operators, formula.sides[1:], strict=True):
        text += f" {operator} {_sum(side)}"
    return text


def _sum(terms: tuple[s.Term, ...]) -> str:
    text = ""
    for i, term in enumerate(terms):
        sign = "-" if term.weight < 0 else "+"
        text += f" {sign} " if i else sign.replace("+", "")
        text += _term(abs(term.weight), term.operand)
    return text


def _term(weight: float, operand: s.Call | s.Extreme | None) -> str:
    if operand is None:
        return _number(weight)
    if isinstance(operand, s.Extreme):
        gap = "" if operand.names.kind == "literal" else " "
        text = f"{operand.kind}{gap}{_set(operand.names)}"
    else:
        text = _call(operand, is_quantity=True)
    return text if weight == 1 else f"{_number(weight)} * {text}"


def _call(call: s.Call, is_quantity: bool = False) -> str:
    """Render a call; a strength is its concept's name alone."""
    name = call.args[0] if len(call.args) == 1 else None
    if is_quantity and call.name == "str" and isinstance(name, s.Name):
        return _name(name)
    args = ", ".join(_argument(a) for a in call.args)
    return f"{call.name}({args})" if args or is_quantity else call.name


def _argument(argument: s.Argument) -> str:
    if isinstance(argument, s.Name):
        return _name(argument)
    if isinstance(argument, s.Number):
        return _signed(argument.value)
    return f"{argument.operator} {_signed(argument.value)}"


def _set(names: s.NameSet) -> str:
    if names.kind == "literal":
        return f"{{{_names(names.names)}}}"
    if names.kind in ("relevant", "irrelevant"):
        return f"{names.kind}({_names(names.names)})"
    return _names(names.names) or names.kind


def _names(names: tuple[s.Name, ...]) -> str:
    return ", ".join(map(_name, names))


def _name(name: s.Name) -> str:
    if _PLAIN.fullmatch(name.text) and name.text not in s.RESERVED:
        return name.text
    escaped = name.text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _signed(value: float) -> str:
    return ("-" if value < 0 else "") + _number(abs(value))


def _number(value: float) -> str:
    """Return the shortest text that reads as the same number."""
    return repr(abs(value)).removesuffix(".0")
