import pytest

from faultlens.errors import SpecError, SpecSyntaxError
from faultlens.spec.parse import MAX_DEPTH, parse, read
from faultlens.spec.syntax import Call, Compare, Declaration, Name, NameSet, Spec, Term


def goal(text):
    return parse(text + ";").statements[0].goal


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("not p and q", "(not p) and q"),
        ("not a > b", "not (a > b)"),
        ("p and q xor r", "(p and q) xor r"),
        ("p xor q or r", "(p xor q) or r"),
        ("p or q => r", "(p or q) => r"),
        ("p => q => r", "p => (q => r)"),
        ("p => q <=> r", "(p => q) <=> r"),
        ("p <=> q <=> r", "(p <=> q) <=> r"),
        ("p xor q xor r", "(p xor q) xor r"),
        ("p and not q or r", "(p and (not q)) or r"),
        ("p and forall a in S: q or r => p", "p and (forall a in S: (q or r) => p)"),
        ("not exists a in S: p and q", "not (exists a in S: (p and q))"),
        ("forall a in S: p <=> q", "forall a in S: (p <=> q)"),
        ("a > b + c - 1 and p", "(a > b + c - 1) and p"),
    ],
)
def test_precedence(text, same):
    assert goal(text) == goal(same)


def test_grouping_is_seen():
    assert goal("p and (q or r)") != goal("p and q or r")
    assert goal("(p => q) => r") != goal("p => q => r")
    assert goal("(forall a in S: p) and q") != goal("forall a in S: p and q")


@pytest.mark.parametrize(
    ("unicode", "ascii"),
    [
        ("¬p", "not p"),
        ("!p", "not p"),
        ("p ∧ q && r & p", "p and q and r and p"),
        ("p ∨ q || r | p", "p or q or r or p"),
        ("p ⊕ q", "p xor q"),
        ("p ⇒ q → r", "p => q -> r"),
        ("p ⇔ q", "p <=> q"),
        ("p ↔ q", "p <=> q"),
        ("a ≥ b ≤ c", "a >= b <= c"),
        ("a > −b", "a > -b"),
        ("∀ a ∈ S where a ≠ b: a > b", "forall a in S where a != b: a > b"),
        ("∃ a ∈ {b, c}: a > b", "exists a in {b, c}: a > b"),
        ("forall a in S where a ¬ in T: p", "forall a in S where a not in T: p"),
    ],
)
def test_unicode_means_ascii(unicode, ascii):
    assert goal(unicode) == goal(ascii)


def test_forms_of_the_paper():
    assert goal(">(x, a, b)") == goal(">(a, b)") == goal("a > b") == goal("str(a) > str(b)")
    assert goal("predict(c) => >(x, a, b)") == goal("predict(c) => a > b")


def test_keywords_are_whole_words():
    assert goal("not str(a) > b") == goal("not (str(a) > b)")
    assert goal("notch") == Call("notch")
    assert goal("android or inner and orange") == goal("(android) or ((inner) and (orange))")


def test_sums_and_chains():
    assert goal("2*a - .5 * str(b) + 1e-3 >= 0") == Compare(
        (
            (
                Term(2.0, Call("str", (Name("a"),))),
                Term(-0.5, Call("str", (Name("b"),))),
                Term(0.001),
            ),
            (Term(0.0),),
        ),
        (">=",),
    )
    assert goal("a > b >= c").operators == (">", ">=")


def test_declarations_comments_and_clauses():
    file = parse(
        """
        # what there is
        class truck, car; concept "long snout";  # quoted
        let m(p, q) = p > q; let S = {a, b};
        region R = box(gamma=.5, k=-2) & nonneg;
        spec s on R(*) margin .1 given m(a, b) confidence .95 at .99 expect refuted: m(b, a);
        m(a, b);
        """,
        "cars.con",
    )
    classes, concept, macro, names, region, spec, bare = file.statements
    assert classes == Declaration("class", (Name("truck"), Name("car")))
    assert concept == Declaration("concept", (Name("long snout"),))
    assert macro.parameters == (Name("p"), Name("q"))
    assert names.body == NameSet("literal", (Name("a"), Name("b")))
    assert [(p.kind, p.options) for p in region.parts] == [
        ("box", {"gamma": 0.5, "k": -2.0}),
        ("nonneg", {}),
    ]
    call = Call("m", (Name("a"), Name("b")))
    assert spec == Spec(
        Name("s"),
        Call("m", (Name("b"), Name("a"))),
        Name("R"),
        None,
        call,
        0.1,
        0.95,
        0.99,
        "refuted",
    )
    assert bare == Spec(None, call)


def test_clauses_come_in_any_order():
    one = parse("spec s on R(k) given p margin 1 confidence .9 expect proved: q;")
    two = parse("spec s expect proved confidence .9 margin 1 given p on R(k): q;")
    assert one == two


def test_words_of_the_language_can_be_quoted_names():
    assert goal('"and" > "min"') == goal('str("and") > str("min")')
    assert goal(r'"a\"b\\" > c').sides[0][0].operand.args[0] == Name('a"b\\')


_MESSAGES = [
    (
        "spec s:\n  predict(truck => wheels > ears;",
        "cars.con:2:10: '(' is never closed: expected ')' or ',' before '=>' at 2:17\n"
        "  2 |   predict(truck => wheels > ears;\n"
        "    |          ^",
    ),
    (
        "wheels > ears",
        "cars.con:1:14: expected an operator ('and', '=>', …), a comparison ('>', …) or ';', "
        "got the end of the text; end the statement with ';'\n"
        "  1 | wheels > ears\n"
        "    |              ^",
    ),
    (
        "concept long-snout;",
        "cars.con:1:13: expected ',' or ';', got '-'; quote names with hyphens: \"long-snout\"\n"
        "  1 | concept long-snout;\n"
        "    |             ^",
    ),
    (
        "concept bright light;",
        "cars.con:1:16: expected ',' or ';', got 'light'; "
        'quote names of several words: "bright light"\n'
        "  1 | concept bright light;\n"
        "    |                ^^^^^",
    ),
    (
        "wheels = ears;",
        "cars.con:1:8: expected an operator ('and', '=>', …), a comparison ('>', …) or ';', "
        "got '='; strengths are compared by >, >=, < or <=\n"
        "  1 | wheels = ears;\n"
        "    |        ^",
    ),
    (
        "p AND q;",
        "cars.con:1:3: expected an operator ('and', '=>', …), a comparison ('>', …) or ';', "
        "got 'AND'; write 'and'\n"
        "  1 | p AND q;\n"
        "    |   ^^^",
    ),
    (
        "p\nspec s: q;",
        "cars.con:2:1: expected an operator ('and', '=>', …), a comparison ('>', …) or ';', "
        "got 'spec'; end the statement before it with ';'\n"
        "  2 | spec s: q;\n"
        "    | ^^^^",
    ),
    (
        "'wheels' > ears;",
        "cars.con:1:1: expected a declaration (class, concept, let, region, spec), a formula or "
        "the end, got '''; quote names with plain double quotes: \"long snout\"\n"
        "  1 | 'wheels' > ears;\n"
        "    | ^",
    ),
    (
        'wheels > "ears;',
        "cars.con:1:10: expected a concept, a quantity or a number, got '\"'; "
        "names in quotes must not be empty and must end on their line\n"
        '  1 | wheels > "ears;\n'
        "    |          ^",
    ),
    (
        "concept min;",
        "cars.con:1:9: 'min' is a word of the language; choose another name, "
        'or quote a class or concept of that name: "min"\n'
        "  1 | concept min;\n"
        "    |         ^^^",
    ),
    (
        "forall a in S, a in S: p;",
        "cars.con:1:16: 'a' stands here twice\n"
        "  1 | forall a in S, a in S: p;\n"
        "    |                ^",
    ),
    (
        "spec s margin 1 margin 2: p;",
        "cars.con:1:17: 'margin' stands in this spec twice\n"
        "  1 | spec s margin 1 margin 2: p;\n"
        "    |                 ^^^^^^",
    ),
    (
        "spec s confidence 95: p;",
        "cars.con:1:19: confidence must be in (0, 1), got 95\n"
        "  1 | spec s confidence 95: p;\n"
        "    |                   ^^",
    ),
    (
        "spec s expect good: p;",
        "cars.con:1:15: expect must be holds, proved, fails, refuted, vacuous or unknown, "
        "got 'good'\n"
        "  1 | spec s expect good: p;\n"
        "    |               ^^^^",
    ),
    (
        "a > 1e999;",
        "cars.con:1:5: numbers must be at most 1e+100, got 1e999\n"
        "  1 | a > 1e999;\n"
        "    |     ^^^^^",
    ),
    (
        ">(y, a, b);",
        "cars.con:1:3: the image must be called x, got 'y'\n  1 | >(y, a, b);\n    |   ^",
    ),
    (
        "let S = ;",
        "cars.con:1:9: expected a formula or a set, got ';'\n  1 | let S = ;\n    |         ^",
    ),
    (
        "forall a in : p;",
        "cars.con:1:13: expected a set such as {a, b}, got ':'\n"
        "  1 | forall a in : p;\n"
        "    |             ^",
    ),
]


@pytest.mark.parametrize(("text", "message"), _MESSAGES, ids=[t for t, _ in _MESSAGES])
def test_syntax_errors_say_where_and_what(text, message):
    with pytest.raises(SpecSyntaxError) as caught:
        parse(text, "cars.con")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "place", "before"),
    [
        ("not (a > b and c > d;", "1:5", "';' at 1:21"),
        ("p and (q or (r and s);", "1:7", "';' at 1:22"),
        ("p and ((q or r) and\n (s or q;", "2:2", "';' at 2:9"),
        ("a > b; # (\n(c > d;\n(e > f);", "2:1", "';' at 2:7"),
        ('("a (" > b;', "1:1", "';' at 1:11"),
        ("(a > b\nspec s: (c > d);", "1:1", "'spec' at 2:1"),
        ("p and (q or r", "1:7", "the end of the text at 1:14"),
        ("let S = {a, b;", "1:9", "';' at 1:14"),
        ("let S = {a, b);", "1:9", "')' at 1:14"),
        ("forall a in {b, c: a > b;", "1:13", "':' at 1:18"),
        ("region R = box(gamma=1;", "1:15", "';' at 1:23"),
        ("spec s on R(truck: p;", "1:12", "':' at 1:18"),
        ("spec s given (p and q: r;", "1:14", "':' at 1:22"),
    ],
)
def test_an_error_points_at_the_bracket_that_is_never_closed(text, place, before):
    with pytest.raises(SpecSyntaxError) as caught:
        parse(text)
    first, shown, caret = str(caught.value).split("\n")
    opened = "{" if "{" in text else "("
    assert first.startswith(f"spec:{place}: '{opened}' is never closed: expected ")
    assert first.endswith(f" before {before}")
    assert shown[caret.index("^")] == opened


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(a > b) c;", "spec:1:9: expected an operator"),  # every bracket is closed
        ("(a > ;", "spec:1:6: expected a concept"),  # a bracket could not close here
        ("a > b);", "spec:1:6: expected an operator"),
        ("(a AND b;", "spec:1:4: expected"),  # the other mistake comes first
    ],
)
def test_other_mistakes_near_brackets_stay_where_they_are(text, message):
    with pytest.raises(SpecSyntaxError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)
    assert "never closed" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("let m(p, p) = q;", "parameter 'p' stands here twice"),
        ("region R = box(gamma=1, gamma=2);", "option 'gamma' stands here twice"),
        ("spec s margin -1: p;", "margin must be at least 0, got -1"),
        ("spec s confidence .9 at 0: p;", "the rate must be in (0, 1], got 0"),
        ('" a" > b;', "names must be printable, without blanks around"),
        ("forall a in S, b in S, c in S, d in S, e in S, f in S, g in S, h in S, i in S: p;",
         "a quantifier must bind at most 8 names"),
        ("a > b\x00;", "got '\\x00'"),
        ("region R = box & ;", "expected a name, got ';'"),
    ],
)  # fmt: skip
def test_other_mistakes(text, part):
    with pytest.raises(SpecSyntaxError) as caught:
        parse(text)
    assert part in str(caught.value)


def nested(kind, n):
    return {
        "not": "not " * n + "p",
        "parentheses": "not (" * n + "p" + ")" * n,
        "implies": "p => " * n + "p",
        "forall": "forall a in S: " * n + "p",
        "xor": "p xor " * n + "p",
    }[kind]


@pytest.mark.parametrize("kind", ["not", "parentheses", "implies", "forall", "xor"])
def test_depth_is_bounded_without_recursion(kind):
    goal(nested(kind, MAX_DEPTH - 1))
    for n in (MAX_DEPTH, 20_000):
        with pytest.raises(SpecSyntaxError, match=f"must nest at most {MAX_DEPTH} deep"):
            goal(nested(kind, n))


def test_width_is_not_bounded():
    assert len(goal(" and ".join("p" for _ in range(5000))).parts) == 5000
    assert goal("(" * 5000 + "p" + ")" * 5000) == Call("p")


def test_long_lines_are_cut_around_the_mistake():
    with pytest.raises(SpecSyntaxError) as caught:
        parse("p and " * 100 + "@;")
    message, line, caret = str(caught.value).split("\n")
    assert message.startswith("spec:1:601: ")
    assert len(line) < 120
    assert line[caret.index("^")] == "@"


def test_files(tmp_path):
    path = tmp_path / "cars.con"
    path.write_bytes("\ufeffwheels ≥ ears;\r\n".encode())
    assert read(path) == parse("wheels >= ears;")
    path.write_bytes(b"\xff")
    with pytest.raises(SpecError, match="spec must be UTF-8 text, got byte 0xff at offset 0"):
        read(path)
    with pytest.raises(SpecError, match=r"spec must be a readable file, got .*none\.con"):
        read(tmp_path / "none.con")


def test_nothing_is_a_file_too():
    assert parse("  # nothing\n").statements == ()
