import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faultlens.errors import SpecSyntaxError
from faultlens.spec import syntax as s
from faultlens.spec.parse import parse
from faultlens.spec.printer import render, render_formula, render_statement

words = st.sampled_from(["m", "n", "truck_like", "R", "x", "schnäuze"])
texts = st.sampled_from(
    ["a", "b", "long snout", "long-snout", "and", 'in"side', "b\\c", "1st", "∀"]
)
names = st.builds(s.Name, words | texts)
idents = st.builds(s.Name, words)
sizes = st.floats(0, 1e100) | st.integers(0, 20).map(float)
values = sizes | sizes.map(lambda v: -v)
operators = st.sampled_from([">", ">=", "<", "<="])
arguments = st.one_of(names, st.builds(s.Number, values), st.builds(s.Threshold, operators, values))
calls = st.builds(
    s.Call,
    st.sampled_from(["predict", "top", "hasCon", "str", "m"]),
    st.lists(arguments, max_size=3).map(tuple),
)


def tuples(strategy, low, high):
    return st.lists(strategy, min_size=low, max_size=high).map(tuple)


explicit_sets = st.one_of(
    st.builds(s.NameSet, st.just("literal"), tuples(names, 1, 3)),
    st.builds(s.NameSet, st.sampled_from(["concepts", "classes"])),
    st.builds(s.NameSet, st.sampled_from(["relevant", "irrelevant"]), tuples(names, 1, 1)),
)
sets = explicit_sets | st.builds(s.NameSet, st.just("declared"), tuples(idents, 1, 1))
extremes = st.builds(s.Extreme, st.sampled_from(["min", "max"]), sets)
strengths = st.builds(lambda name: s.Call("str", (name,)), names)
terms = st.one_of(
    st.builds(s.Term, values),
    st.builds(s.Term, st.just(1.0) | values, strengths | calls | extremes),
)
comparisons = st.integers(1, 3).flatmap(
    lambda n: st.builds(
        s.Compare, tuples(tuples(terms, 1, 3), n + 1, n + 1), tuples(operators, n, n)
    )
)
binders = st.lists(idents, min_size=1, max_size=3, unique=True).flatmap(
    lambda variables: st.tuples(*(st.builds(s.Binder, st.just(v), sets) for v in variables))
)
conditions = st.one_of(
    st.builds(s.Condition, names, st.sampled_from(["=", "!="]), names),
    st.builds(s.Condition, names, st.sampled_from(["in", "not in"]), sets),
)


def larger(formulas):
    return st.one_of(
        st.builds(s.Not, formulas),
        st.builds(s.Join, st.sampled_from(["and", "or"]), tuples(formulas, 2, 4)),
        st.builds(s.Join, st.sampled_from(["xor", "=>", "<=>"]), tuples(formulas, 2, 2)),
        st.builds(
            s.Quantified,
            st.sampled_from(["forall", "exists"]),
            binders,
            tuples(conditions, 0, 2),
            formulas,
        ),
    )


formulas = st.recursive(
    st.one_of(st.builds(s.Truth, st.booleans()), calls, comparisons), larger, max_leaves=6
)
regions = st.builds(
    s.RegionExpr,
    words,
    tuples(st.builds(s.RegionPart, words, st.dictionaries(words, values, max_size=2)), 1, 3),
)
named_specs = st.builds(
    s.Spec,
    names,
    formulas,
    region=idents,
    cls=st.none() | names,
    given=st.none() | formulas,
    margin=sizes,
    confidence=st.just(0.95),
    rate=st.none() | st.just(0.99),
    expect=st.none() | st.sampled_from(["proved", "refuted", "vacuous", "unknown"]),
)
lets = st.one_of(
    st.builds(s.Let, idents, st.lists(idents, max_size=3, unique=True).map(tuple), formulas),
    st.builds(s.Let, idents, st.just(()), explicit_sets),
)
declarations = st.builds(s.Declaration, st.sampled_from(["class", "concept"]), tuples(names, 1, 3))
statements = st.one_of(
    declarations, lets, regions, named_specs, st.builds(s.Spec, st.none() | names, formulas)
)
files = st.builds(s.SpecFile, tuples(statements, 0, 2))
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(files)
def test_what_is_printed_reads_as_the_same(file):
    text = render(file)
    again = parse(text)
    assert again == file
    assert render(again) == text
    assert text.count("\n") == len(file.statements)


def groups(text):
    """Find the parentheses that group: not those of a call."""
    stack, is_quoted, i = [], False, 0
    while i < len(text):
        if text[i] == "\\" and is_quoted:
            i += 1
        elif text[i] == '"':
            is_quoted = not is_quoted
        elif text[i] == "(" and not is_quoted:
            is_call = i > 0 and (text[i - 1].isalnum() or text[i - 1] == "_")
            stack.append((i, is_call))
        elif text[i] == ")" and not is_quoted:
            start, is_call = stack.pop()
            if not is_call:
                yield start, i
        i += 1


@quick
@given(formulas)
def test_no_parentheses_are_needless(formula):
    text = render_formula(formula)
    for start, end in groups(text):
        less = f"{text[:start]} {text[start + 1 : end]} {text[end + 1 :]};"
        with contextlib.suppress(SpecSyntaxError):
            assert parse(less).statements[0].goal != formula


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("((p)) ∧ (q)", "p and q"),
        ("(p and q) or r", "p and q or r"),
        ("p and (q and r)", "p and (q and r)"),
        ("(p => q) => (r => p)", "(p => q) => r => p"),
        ("(forall a in S: p) and q", "(forall a in S: p) and q"),
        ("p and (forall a in S: q)", "p and forall a in S: q"),
        ("(p and forall a in S: q) or r", "p and (forall a in S: q) or r"),
        ("¬(a>b)", "not a > b"),
        ('>(x, wheels, "ears")', "wheels > ears"),
        ("1.0*a - -1.50 > b", None),
        ("min {a,b}>max irrelevant( truck ) + 1e0", "min{a, b} > max irrelevant(truck) + 1"),
        ("hasCon(x,a,≥.5)", "hasCon(x, a, >= 0.5)"),
        ("-a+2*b<=0", "-a + 2 * b <= 0"),
        ('"true" > "a-b"', '"true" > "a-b"'),
    ],
)
def test_canonical_text(text, canonical):
    if canonical is None:
        with pytest.raises(SpecSyntaxError, match="expected a concept, a quantity or a number"):
            parse(text + ";")
    else:
        assert render(parse(text + ";")) == canonical + ";\n"


def test_a_whole_statement():
    text = (
        'spec "own parts" on R(truck) given predict(truck) margin 0.1 confidence 0.95 at 0.99 '
        "expect proved: wheels > ears;"
    )
    assert render_statement(parse(text).statements[0]) == text
