"""What a gate compares: shares, numbers and findings of a finished session."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from faultlens.errors import InputError, nearest
from faultlens.finding import Finding
from faultlens.gate.config import Findings, GateConfig, GroupLimit
from faultlens.gate.judge import Result, Value, judge, plain, share
from faultlens.session import DebugSession
from faultlens.spec.suite import Outcome
from faultlens.stats import CONFIDENCE


def metrics(session: DebugSession, config: GateConfig) -> Iterator[Result]:
    """Judge accuracy, error, head share and any other number of a session.

    Raises:
        InputError: A number that the session does not have.
    """
    n = len(session.images)
    n_wrong = sum(row["label"] != row["prediction"] for row in session.images)
    at = config.confidence
    if config.accuracy is not None:
        yield judge("metrics", share("accuracy", n - n_wrong, n, at), config.accuracy, config)
    if config.error is not None:
        yield judge("metrics", share("error", n_wrong, n, at), config.error, config)
    if config.head_share is not None:
        yield judge("metrics", _head_share(session, at), config.head_share, config)
    for name, limit in config.numbers.items():
        yield judge("metrics", _number(session, name, at), limit, config)


def groups(session: DebugSession, config: GateConfig) -> Iterator[Result]:
    """Judge the error of every class and every subclass.

    Raises:
        InputError: A limit names a group that the session does not have.
    """
    if config.class_error is not None:
        yield from _of_groups(session, config, "label", config.class_error)
    if config.subclass_error is not None:
        yield from _of_groups(session, config, "subclass", config.subclass_error)


def findings(session: DebugSession, config: Findings) -> Iterator[Result]:
    """Count faults and kinds of findings; what is allowed by its id does not count."""
    if session.status == "unknown" and not config.unknown_passes:
        message = f"nothing can be said of faults: {session.headline}"
        yield plain("findings", "session", Outcome.FAILED, message, required="a known status")
    left = [f for f in session.findings if f.id not in config.allow]
    faults = [f for f in left if f.severity == "fault"]
    if config.faults is not None:
        yield counted("faults", faults, config.faults)
    if config.confirmed_faults is not None:
        confirmed = [f for f in faults if f.confirmed]
        yield counted("confirmed faults", confirmed, config.confirmed_faults)
    for kind, most in config.kinds.items():
        yield counted(kind, [f for f in left if fnmatch(f.kind, kind)], most)


def _head_share(session: DebugSession, confidence: float) -> Value:
    numbers = session.numbers
    n = int(numbers["n_judged"] or 0)
    head = numbers["head_share"]
    n_head = round(head * n) if n and head is not None else 0
    found = share("head share", n_head, n, confidence)
    if found.value is not None:
        return found
    return Value("head share", None, n, None, "no error could be judged")


def _number(session: DebugSession, name: str, confidence: float) -> Value:
    numbers = session.numbers
    known = [k for k, v in numbers.items() if not isinstance(v, list | dict)]
    if name not in known:
        raise InputError(
            f"numbers must be those of the session, got '{name}'; {nearest(name, known)}"
        )
    value = numbers[name]
    interval = numbers.get(f"{name}_interval") if confidence == CONFIDENCE else None
    return Value(
        name,
        None if value is None else float(value),
        None,
        None if interval is None else (float(interval[0]), float(interval[1])),
        "the session does not know it",
        is_share=False,
    )


def _of_groups(
    session: DebugSession, config: GateConfig, key: str, limit: GroupLimit
) -> Iterator[Result]:
    what = "class" if key == "label" else "subclass"
    names: Mapping[str, Any] = dict.fromkeys(
        session.classes if key == "label" else sorted({r[key] for r in session.images if r[key]})
    )
    if not names:
        message = "could not be computed: the images have no subclasses"
        yield plain("subclasses", "subclass error", Outcome.FAILED, message)
        return
    for name in (*(limit.only or ()), *limit.except_):
        if name not in names:
            raise InputError(
                f"{what}_error must name known groups, got '{name}'; {nearest(name, names)}"
            )
    for name in names if limit.only is None else limit.only:
        if name in limit.except_:
            continue
        rows = [r for r in session.images if r[key] == name]
        n_wrong = sum(r["label"] != r["prediction"] for r in rows)
        value = share(f"error of {name}", n_wrong, len(rows), config.confidence)
        yield judge(f"{what}es", value, limit, config)


def counted(name: str, found: list[Finding], most: int, suite: str = "findings") -> Result:
    """Hold a number of findings against the most that may be there.

    Args:
        name: What is counted.
        found: The findings.
        most: So many pass.
        suite: The part of the gate.
    """
    outcome = Outcome.PASSED if len(found) <= most else Outcome.FAILED
    ids = ", ".join(f.id for f in found)
    told = f"{name}: {len(found)}, required at most {most}" + (f"; {ids}" if ids else "")
    detail = "\n".join(f"{f.id}: {f.claim}" for f in found)
    result = plain(
        suite, name, outcome, told,
        detail=detail, value=str(len(found)), required=f"at most {most}",
    )  # fmt: skip
    result.data.update(value=len(found), max=most, findings=[f.id for f in found])
    return result
