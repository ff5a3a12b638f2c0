"""The error tree: every mistake of a user has a type and a message that says what to do.

    FaultlensError
    ├── InputError (ValueError)       something given is wrong
    │   ├── ShapeError                an array has the wrong shape, type or values
    │   ├── ImageError                a file is not a picture that can be decoded
    │   └── SpecError                 a specification is wrong
    │       ├── SpecSyntaxError       it cannot be read; the message shows line and caret
    │       └── SpecNameError         it names a class, concept or region that is not known
    ├── InsufficientDataError         too few images for any statement
    ├── NotFittedError                fit() first
    ├── SolverError                   a solver broke down; no verdict
    ├── StoreError                    a file of a session is missing or damaged
    ├── WorkerError                   a process or machine that shares the work stopped
    ├── TrainingFaultError            a watched training is at fault and was told to stop
    └── MissingDependencyError (ImportError)   an extra is not installed

Wording: *argument* must be *expected*, got *actual*; *what to do*.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class FaultlensError(Exception):
    """Root of every error that FaultLens raises on purpose."""


class InputError(FaultlensError, ValueError):
    """Something the user gave is wrong; the message says what to do."""


class ShapeError(InputError):
    """An array has the wrong shape, type or values."""


class ImageError(InputError):
    """A file is not a picture that can be decoded."""


class SpecError(InputError):
    """A specification is wrong."""


class SpecSyntaxError(SpecError):
    """A specification cannot be read; the message shows line, column and caret."""


class SpecNameError(SpecError):
    """A specification names a class, concept, macro or region that is not known."""


class SolverError(FaultlensError):
    """A solver broke down; no verdict."""


class InsufficientDataError(FaultlensError):
    """Too few images for any statement; a run ends as unknown."""


class NotFittedError(FaultlensError):
    """A method was called that needs `fit` first."""


class StoreError(FaultlensError):
    """A stored file is missing, damaged or of another version."""


class WorkerError(FaultlensError):
    """A process or machine that shares the work stopped; what was finished is kept."""


class TrainingFaultError(FaultlensError):
    """A watched training has a fault and was to stop at one.

    Attributes:
        findings: What was found, worst first.
    """

    def __init__(self, message: str, findings: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class MissingDependencyError(FaultlensError, ImportError):
    """An optional package is not installed; the message shows the pip line."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} must be installed for this, but it is not; "
            f"run: pip install 'faultlens[{extra}]'"
        )
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.package, self.extra)  # so that it comes back from a worker


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return a hint with the `n` known names nearest to a wrong one.

    Example:
        >>> nearest("weels", ["wheels", "wings", "beak"])
        "did you mean 'wheels'?"
        >>> nearest("zzz", ["wheels", "beak"])
        "known: 'beak', 'wheels'"
    """
    names = sorted({str(k) for k in known})
    close = difflib.get_close_matches(name, names, n=n, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    shown = ", ".join(f"'{k}'" for k in names[:10])
    return f"known: {shown}" + (f" … ({len(names)} in all)" if len(names) > 10 else "")
