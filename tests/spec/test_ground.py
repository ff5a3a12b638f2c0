import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from faultlens.errors import SpecError, SpecNameError
from faultlens.spec.formula import TRUE, AtLeast, Comparison, comparisons, holds, negate
from faultlens.spec.ground import GroundSpec, Scope, ground
from faultlens.spec.parse import parse

CONCEPTS = ("wheels", "ears", "long-snout", "metallic")
CLASSES = ("truck", "dog", "car")
RELEVANT = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1]], bool)
SCOPE = Scope(CONCEPTS, CLASSES, np.zeros(4), RELEVANT)
signals = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.just(7)), elements=st.integers(-2, 2).map(float)
)


quick = settings(max_examples=50, deadline=None)


def specs(text, scope=SCOPE):
    return list(ground(parse(text), scope))


def goal(text):
    (spec,) = specs(text + ";")
    return spec.goal


def whole(text):
    """The goal of one spec, whatever the text: a leading forall would make a spec of every case."""
    return goal(f"true and ({text})")


ATOMS = """
wheels > ears; predict(dog); top(2, car); hasCon(metallic); logit(dog) >= 0.5; true; false
2*wheels - ears < 1; wheels > ears >= metallic; (forall a in concepts: a > ears)
min{wheels, metallic} > max{ears}; max{ears, wheels} >= min concepts + 1
(exists k in classes: predict(k))
"""
atoms = st.sampled_from([a.strip() for a in ATOMS.replace("\n", ";").split(";") if a.strip()])
formulas = st.recursive(
    atoms,
    lambda f: st.one_of(
        st.builds("not ({})".format, f),
        st.builds("({}) {} ({})".format, f, st.sampled_from(["and", "or", "xor", "=>", "<=>"]), f),
    ),
    max_leaves=6,
)


@quick
@given(formulas, signals)
def test_negation_flips_every_image(text, x):
    formula = whole(text)
    assert (holds(negate(formula), x) == ~holds(formula, x)).all()
    assert (holds(whole(f"not ({text})"), x) == ~holds(formula, x)).all()
    assert negate(negate(formula)) == formula


@quick
@given(formulas, formulas, signals)
def test_operators_mean_what_python_means(left, right, x):
    a, b = holds(whole(left), x), holds(whole(right), x)
    meanings = {"and": a & b, "or": a | b, "xor": a ^ b, "=>": ~a | b, "<=>": a == b}
    for operator, expected in meanings.items():
        assert (holds(whole(f"({left}) {operator} ({right})"), x) == expected).all()


@quick
@given(signals)
def test_quantifiers_are_all_and_any(x):
    s = x[:, :4]
    pairs = [(a, b) for a, b in itertools.product(range(4), range(4)) if a != b]
    every = np.array([all(r[a] > r[b] - 1 for a, b in pairs) for r in s])
    some = np.array([any(r[a] > r[b] + 1 for a, b in pairs) for r in s])
    two = "a in concepts, b in concepts where a != b"
    assert (holds(goal(f"true and forall {two}: a > b - 1"), x) == every).all()
    assert (holds(goal(f"exists {two}: a > b + 1"), x) == some).all()
    assert (holds(goal(f"not exists {two}: not a > b - 1"), x) == every).all()
    together = np.all([holds(spec.goal, x) for spec in specs(f"forall {two}: a > b - 1;")], axis=0)
    assert (together == every).all()


@quick
@given(signals)
def test_extremes_are_the_smallest_and_largest(x):
    low, high = x[:, [0, 3]].min(axis=1), x[:, [0, 3]].max(axis=1)
    low2, high2 = x[:, [1, 2]].min(axis=1), x[:, [1, 2]].max(axis=1)
    a, b = "{wheels, metallic}", '{ears, "long-snout"}'
    for text, expected in [
        (f"min{a} > max{b}", low > high2),
        (f"max{a} > max{b}", high > high2),
        (f"min{a} > min{b}", low > low2),
        (f"max{a} > min{b}", high > low2),
        (f"max{a} <= max{b} - 1", high <= high2 - 1),
        (f"2*min{a} - max{b} >= wheels", 2 * low - high2 >= x[:, 0]),
        (f"min{a} + max{b} > max{a} - 0.5", low + high2 > high - 0.5),
    ]:
        assert (holds(goal(text), x) == expected).all(), text


def test_rule_of_the_paper_is_every_relevant_above_every_irrelevant():
    pairs = goal("min relevant(truck) > max irrelevant(truck)")
    found = {c.terms for c in comparisons(pairs)}
    assert found == {tuple(sorted(((a, 1.0), (b, -1.0)))) for a in (0, 3) for b in (1, 2)}
    assert all(isinstance(p, AtLeast) and p.n == 2 for p in pairs.parts)


def test_forall_at_the_top_makes_named_specs():
    text = """
    region R = box(gamma=1);
    spec own on R(k) given predict(k) margin 0.5:
        forall k in classes, a in relevant(k): forall b in irrelevant(k) where b != ears: a > b;
    """
    found = specs(text)
    assert [spec.name for spec in found] == [
        "own[k=truck,a=wheels,b=long-snout]",
        "own[k=truck,a=metallic,b=long-snout]",
        "own[k=dog,a=ears,b=wheels]",
        "own[k=dog,a=ears,b=metallic]",
        "own[k=dog,a=long-snout,b=wheels]",
        "own[k=dog,a=long-snout,b=metallic]",
        "own[k=car,a=wheels,b=long-snout]",
        "own[k=car,a=metallic,b=long-snout]",
    ]
    assert [spec.cls for spec in found] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert found[0].goal == Comparison(((0, 1.0), (2, -1.0)), -0.5)
    assert found[2].given == goal("predict(dog)")
    assert {spec.line for spec in found} == {3}
    assert found[0].region.parts[0].kind == "box"


def test_a_spec_keeps_its_clauses():
    (spec,) = specs(
        "\nspec s on R(*) confidence .95 at .9 expect refuted: wheels>ears; region R = hull;"
    )
    assert spec == GroundSpec(
        name="s",
        goal=Comparison(((0, 1.0), (1, -1.0))),
        given=TRUE,
        region=spec.region,
        cls=None,
        confidence=0.95,
        rate=0.9,
        expect="refuted",
        text="spec s on R(*) confidence 0.95 at 0.9 expect refuted: wheels > ears;",
        line=2,
    )


def test_formulas_without_a_name_are_called_after_their_line():
    found = specs("true; false;\n\ntrue; spec line3.2: true;".replace("line3.2", '"line3.2"'))
    assert [spec.name for spec in found] == ["line1", "line1.2", "line3", "line3.2"]


def test_margin_hardens_every_comparison_of_the_normal_form():
    (spec,) = specs("spec s margin 0.5: not wheels > ears and wheels + 1 > metallic;")
    assert [(c.constant, c.is_strict) for c in comparisons(spec.goal)] == [
        (-0.5, False),
        (0.5, True),
    ]
    x = np.random.default_rng(0).normal(size=(200, 7))
    (plain,) = specs("not wheels > ears and wheels + 1 > metallic;")
    assert not (holds(spec.goal, x) & ~holds(plain.goal, x)).any()


def test_constants_are_added_exactly():
    (only,) = comparisons(goal("wheels + 0.1 + 0.2 > ears + 0.3"))
    assert only.constant == pytest.approx(0.1 + 0.2 - 0.3, abs=1e-16)
    (only,) = comparisons(goal("wheels - wheels + 1e-3 > 0"))
    assert only == Comparison((), 0.001)


def test_macros_are_formulas_with_names_for_names():
    assert (
        goal("wheels > ears and wheels > metallic")
        == specs("let above(p, S) = p > ears and p > S; above(wheels, metallic);")[0].goal
    )
    # A parameter hides a variable of the same name, and bodies see only parameters.
    text = "let m(a) = a > ears; spec s: forall b in {wheels}, a in {metallic}: m(b);"
    assert specs(text)[0].goal == goal("wheels > ears")
    text = "let both(S) = forall a in S: a > ears; let T = {wheels}; true and both(T);"
    assert specs(text)[0].goal.parts[1].parts == (goal("wheels > ears"),)


def test_an_image_may_be_named():
    text = "let m(p) = >(x, p, ears); m(x, wheels);"
    assert specs(text)[0].goal == goal("wheels > ears")
    assert goal("predict(x, truck)") == goal("predict(truck)")


def test_sets_hold_each_name_once_and_conditions_choose():
    assert len(specs("forall a in {wheels, wheels, ears}: a > metallic;")) == 2
    assert len(specs("forall a in concepts, b in concepts where a = b: a >= b;")) == 4
    text = "let S = {wheels, ears}; forall a in concepts where a not in S and a != metallic: a > 0;"
    assert [s.name for s in specs(text)] == ["line1[a=long-snout]"]
    text = "forall k in classes where wheels in relevant(k): predict(k);"
    assert [s.name for s in specs(text)] == ["line1[k=truck]", "line1[k=car]"]


def test_cases_are_made_when_asked_for():
    concepts = tuple(f"c{i}" for i in range(2000))
    file = parse("spec s: forall a in concepts, b in concepts, c in concepts: a > b > c;")
    first = list(itertools.islice(ground(file, Scope(concepts, ("k",))), 3))
    assert [s.name for s in first] == [f"s[a=c0,b=c0,c=c{i}]" for i in range(3)]


def test_too_large_formulas_are_refused(monkeypatch):
    monkeypatch.setattr("faultlens.spec.ground.MAX_SIZE", 2000)
    concepts = tuple(f"c{i}" for i in range(100))
    file = parse("exists a in concepts, b in concepts, c in concepts: a > b > c;")
    with pytest.raises(SpecError, match="a spec must stay below 2,000 comparisons"):
        list(ground(file, Scope(concepts, ("k",))))
    laughs = "let m0 = wheels > ears;" + "".join(
        f"let m{i + 1} = m{i} xor m{i};" for i in range(25)
    )
    with pytest.raises(SpecError, match="a spec must stay below 2,000 comparisons"):
        specs(laughs + "m25;")
    monkeypatch.setattr("faultlens.spec.ground.MAX_CASES", 2000)
    with pytest.raises(SpecError, match="a spec must stay below 2,000 comparisons and cases"):
        specs(
            "forall a in {wheels}, " + ", ".join(f"b{i} in concepts" for i in range(7)) + ": a > 0;"
        )
    with pytest.raises(SpecError, match="at most 8 min and max; split it"):
        specs("wheels > " + " + ".join(["max{ears}"] * 9) + ";")
    deep = "let m0 = true;" + "".join(f"let m{i + 1} = m{i};" for i in range(100))
    with pytest.raises(SpecError, match="formulas and macros must nest at most 64 deep"):
        specs(deep + "m100;")


_MESSAGES = [
    (
        "weels > ears;",
        "spec:1:1: concept must be a known name, got 'weels'; did you mean 'wheels'?\n"
        "  1 | weels > ears;\n"
        "    | ^^^^^",
    ),
    (
        "long-snout > ears;",
        "spec:1:1: concept must be a known name, got 'long'; "
        'quote names with hyphens: "long-snout"\n'
        "  1 | long-snout > ears;\n"
        "    | ^^^^",
    ),
    (
        "let m = n; let n = m; m;",
        "spec:1:20: macros must not call themselves, got m -> n -> m\n"
        "  1 | let m = n; let n = m; m;\n"
        "    |                    ^",
    ),
]


@pytest.mark.parametrize(("text", "message"), _MESSAGES)
def test_errors_show_line_and_caret(text, message):
    with pytest.raises(SpecError) as caught:
        specs(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("predict(trck);", "class must be a known name, got 'trck'; did you mean 'truck'?"),
        ("truck > ears;", "got 'truck'; that is a class; its logit(truck) can be compared"),
        ("predict(ears);", "class must be a known name, got 'ears'; that is a concept"),
        ("ears;", "a concept must be compared, or asked for by hasCon(ears)"),
        ("truck;", "a class must be asked for by predict(truck)"),
        ("let S = {ears}; S;", "a set must follow in, min or max"),
        ("prdict(truck);", "formula must be a known name, got 'prdict'; did you mean 'predict'?"),
        ("forall a in {ears, beak}: a > 0;", "spec:1:20: concept must be a known name, got 'beak'"),
        ("forall a in T: a > 0;", "set must be a known name, got 'T'; none is declared"),
        ("class bus;", "class must be a known name, got 'bus'"),
        ("concept beak;", "concept must be a known name, got 'beak'"),
        ("spec s on R(truck): true;", "region must be a known name, got 'R'; none is declared"),
        ("region R = bx;", "region must be a known name, got 'bx'; did you mean 'box'?"),
        ("spec s: true; spec s: true;", "every name must be new, got 's', which is taken"),
        ("let m = true; let m = {ears};", "every name must be new, got 'm', which is taken"),
        ("let predict = true;", "every name must be new, got 'predict', which is taken"),
        ("region R = box; region R = box;", "every name must be new, got 'R', which is taken"),
    ],
)
def test_unknown_and_taken_names(text, message):
    with pytest.raises(SpecNameError) as caught:
        specs(text)
    assert message in str(caught.value)
    assert "^" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("let m(p, q) = p > q; m(ears);", "call must be m(p, q), got 1 argument(s)"),
        ("let m = true; m(ears);", "call must be m, got 1 argument(s)"),
        ("let m(p) = p > 0; m(3);", "a macro's arguments must be names, got a number"),
        ("min irrelevant(bird) > 0;", "min must be over at least one concept"),
        ("wheels > max irrelevant(bird);", "max must be over at least one concept"),
    ],
)
def test_other_mistakes(text, message):
    scope = Scope(CONCEPTS, ("bird",), None, np.ones((1, 4), bool))
    with pytest.raises(SpecError) as caught:
        specs(text, scope)
    assert message in str(caught.value)


def test_relevance_must_be_known():
    with pytest.raises(SpecError, match=r"relevant\(truck\) must be known, but no class has"):
        specs("min relevant(truck) > 0;", Scope(CONCEPTS, CLASSES))


def test_declared_names_are_checked_at_once():
    with pytest.raises(SpecNameError):
        ground(parse("class bus; predict(truck);"), SCOPE)
