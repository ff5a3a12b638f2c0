"""From text to the syntax tree, and every mistake told in words, with line and caret."""

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from lark import Lark, Token, UnexpectedInput

from faultlens.errors import SpecError, SpecSyntaxError
from faultlens.spec import brackets
from faultlens.spec import syntax as s
from faultlens.spec.builder import Builder, Mistake

#: Formulas may nest this deep: far beyond what people write, far from what a stack can bear.
MAX_DEPTH = 64
_LONGEST = 40  # characters of a word that a message repeats

# What may come next, in words: where all of the first may, the words stand for all of the second.
_DECLARATION = {"_CLASS", "_CONCEPT", "_LET", "_REGION", "SPEC"}
_NUMBER = {"NUMBER", "PLUS", "MINUS"}
_TERM = {*_NUMBER, "NAME", "STRING", "EXTREME"}
_FORMULA = {*_TERM, "NOT", "TRUTH", "_OPEN", "QUANTIFIER", "GREATER"}
_SET = {"_BRACE", "ALL_NAMES", "RELEVANCE"}
_CLAUSE = {"ON", "GIVEN", "MARGIN", "CONFIDENCE", "EXPECT"}
_JOIN = {"AND", "XOR", "OR", "IMPLIES", "IFF"}
_COMPARATOR = {"GREATER", "COMPARATOR"}
_GROUPS = (
    (_DECLARATION, _DECLARATION, "a declaration (class, concept, let, region, spec)"),
    ({"NOT", "TRUTH"} | _SET, _FORMULA | _SET, "a formula or a set"),
    ({"NOT", "TRUTH"}, _FORMULA, "a formula"),
    ({"EXTREME", "NAME"}, _TERM, "a concept, a quantity or a number"),
    ({"NAME"} | _SET, {"NAME"} | _SET, "a set such as {a, b}"),
    ({"NAME", "NUMBER", *_COMPARATOR}, {"NAME", "STRING", *_NUMBER, *_COMPARATOR}, "an argument"),
    (_NUMBER, _NUMBER, "a number"),
    ({"NAME"}, {"NAME", "STRING"}, "a name"),
    (_JOIN, _JOIN | {"_OPEN"}, "an operator ('and', '=>', …)"),
    (_COMPARATOR, _COMPARATOR | {"PLUS", "MINUS", "STAR"}, "a comparison ('>', …)"),
    (_CLAUSE, _CLAUSE, "a clause (on, given, margin, confidence, expect)"),
    ({"PLUS", "MINUS"}, {"PLUS", "MINUS"}, "'+' or '-'"),
    ({"UNEQUAL"}, {"UNEQUAL", "_IS", "IN", "NOT"}, "'!=', '=' or 'in'"),
)
_SYMBOLS = {
    "_OPEN": "'('",
    "_CLOSE": "')'",
    "_BRACE": "'{'",
    "_UNBRACE": "'}'",
    "_COMMA": "','",
    "_COLON": "':'",
    "_END": "';'",
    "_IS": "'='",
    "STAR": "'*'",
    "IN": "'in'",
    "AND": "'and'",
    "_AT": "'at'",
    "_WHERE": "'where'",
}
_SYMBOLS_OF = {")": "_CLOSE", "}": "_UNBRACE"}


def _words(accepted: set[str]) -> str:
    """Say which tokens may come, in words that need no grammar."""
    found = []
    for needed, covered, words in _GROUPS:
        if needed <= accepted:
            found.append(words)
            accepted = accepted - covered
    found += sorted(_SYMBOLS.get(name, name) for name in accepted - {"$END"})
    found += ["the end"] if "$END" in accepted else []
    return ", ".join(found[:-1]) + (" or " if found[:-1] else "") + found[-1]


_QUOTES = dict.fromkeys("'‘’“”", 'quote names with plain double quotes: "long snout"') | {
    '"': "names in quotes must not be empty and must end on their line"
}
_WORD = re.compile(r"[^\W\d]\w*")
_HYPHENATED = re.compile(r"[^\W\d]\w*(?:-\w+)+")


def _hint(text: str, at: int, got: str, accepted: set[str]) -> str:
    """Say what to do where the mistake is a common one."""
    if "_END" in accepted and (not got or got in s.DECLARING):
        return "; end the statement before it with ';'" if got else "; end the statement with ';'"
    if got[:1] in _QUOTES:
        return f"; {_QUOTES[got[:1]]}"
    if got == "=" and "COMPARATOR" in accepted:
        return "; strengths are compared by >, >=, < or <="
    if got.lower() in s.RESERVED and got not in s.RESERVED:
        return f"; write '{got.lower()}'"
    return _name_hint(text, at, got)


def _name_hint(text: str, at: int, got: str) -> str:
    """Tell how to quote a name with hyphens or of several words."""
    before = re.search(r"([^\W\d]\w*)([ \t]*)$", text[:at])
    if before is None or before[1] in s.RESERVED or len(before[1]) + len(got) > _LONGEST:
        return ""
    whole = _HYPHENATED.match(text, before.start())
    if whole and whole.end() > at:
        return f'; quote names with hyphens: "{whole[0]}"'
    if before[2] and _WORD.fullmatch(got) and got not in s.RESERVED:
        return f'; quote names of several words: "{before[1]} {got}"'
    return ""


def _complain(text: str, error: UnexpectedInput) -> tuple[s.Span, str]:
    """Return where an error is and what it says."""
    token = getattr(error, "token", None)
    if isinstance(token, Token) and token.type == "$END":
        span, got = (token.end_pos or 0, token.end_pos or 0), ""
    elif isinstance(token, Token):
        span, got = (token.start_pos or 0, token.end_pos or 0), str(token)
    else:
        at = error.pos_in_stream or 0
        span, got = (at, at + 1), text[at]
    state = _parser().parse_interactive(text[: span[0]])
    state.exhaust_lexer()
    accepted = set(state.accepts())  # type: ignore[no-untyped-call]
    got = got if len(got) < _LONGEST else got[:_LONGEST] + "…"
    shown = f"'{got}'" if got.isprintable() else repr(got)
    shown = shown if got else "the end of the text"
    hint = _hint(text, span[0], got, accepted)
    found = None if hint else _unclosed(text, span[0], got, accepted)
    if found is not None:
        place = s.place(text, span[0])
        message = f"'{text[found]}' is never closed: expected {_words(accepted)} before {shown}"
        return (found, found + 1), f"{message} at {place}"
    return span, f"expected {_words(accepted)}, got {shown}{hint}"


def _unclosed(text: str, at: int, got: str, accepted: set[str]) -> int | None:
    """Return the bracket that would have to be closed at `at`, and nowhere is."""
    found = brackets.never_closed(text, at, ends=got in s.DECLARING)
    if found is None or _SYMBOLS_OF[brackets.closing(text[found])] not in accepted:
        return None
    return found


@cache
def _parser() -> Lark:
    grammar = files("faultlens.spec").joinpath("con_spec.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=Builder())


def _check_depth(file: s.SpecFile) -> None:
    for statement in file.statements:
        if isinstance(statement, s.Spec):
            formulas = [statement.goal] + ([statement.given] if statement.given else [])
        elif isinstance(statement, s.Let) and not isinstance(statement.body, s.NameSet):
            formulas = [statement.body]
        else:
            continue
        for leaf, depth in (pair for f in formulas for pair in s.leaves(f)):
            if depth > MAX_DEPTH:
                message = f"formulas must nest at most {MAX_DEPTH} deep; name parts of it by let"
                raise SpecSyntaxError(s.point(file, leaf.span, message))


def parse(text: str, source: str = "spec") -> s.SpecFile:
    """Read a specification.

    Args:
        text: In the language of `docs/guide/con_spec.md`.
        source: How messages call it, such as the file's name.

    Raises:
        SpecSyntaxError: With line, column, caret and what was expected.

    Example:
        >>> parse("predict(truck) => wheels > ears;").statements[0].goal.operator
        '=>'
        >>> parse("predict(truck => wheels > ears;")
        Traceback (most recent call last):
        faultlens.errors.SpecSyntaxError: spec:1:8: '(' is never closed: expected ')' or ',' \
before '=>' at 1:15
          1 | predict(truck => wheels > ears;
            |        ^
    """
    blank = s.SpecFile((), source, text)
    try:
        file = s.SpecFile(_parser().parse(text), source, text)  # type: ignore[arg-type]
    except Mistake as e:
        raise SpecSyntaxError(s.point(blank, e.span, str(e))) from None
    except UnexpectedInput as e:
        span, message = _complain(text, e)
        raise SpecSyntaxError(s.point(blank, span, message)) from None
    _check_depth(file)
    return file


def read(path: str | Path) -> s.SpecFile:
    """Read a specification's file.

    Raises:
        SpecError: It cannot be read, or is not UTF-8.
        SpecSyntaxError: As `parse`.
    """
    path = Path(path)
    try:
        return parse(path.read_text(encoding="utf-8-sig"), path.name)
    except OSError as e:
        raise SpecError(
            f"spec must be a readable file, got {path}: {e.strerror}; check the path"
        ) from None
    except UnicodeDecodeError as e:
        raise SpecError(
            f"spec must be UTF-8 text, got byte 0x{e.object[e.start]:02x} at offset {e.start} "
            f"of {path.name}; save it as UTF-8"
        ) from None
