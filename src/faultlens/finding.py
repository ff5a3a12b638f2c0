"""Finding: one claim about a model, with the numbers behind it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from faultlens.errors import StoreError, nearest

#: Version of the JSON form; a reader refuses what it does not know.
SCHEMA = 1

Severity = Literal["fault", "notice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim a person can act on.

    Attributes:
        id: Short and stable within a session, such as `head-1`.
        kind: What was found, such as `localization.head` or `data.labels`.
        severity: `fault` makes the run fail; `notice` informs.
        subject: What it is about: the model, a class, a confusion, a group.
        claim: One sentence.
        statistic: The number behind the claim (named in `evidence["statistic"]`).
        interval: Its 95 % interval.
        n: Images it rests on.
        confidence: In [0, 1].
        confirmed: Whether an intervention confirmed it, not only an association.
        evidence: Numbers, concepts and image names behind the claim (JSON values only).
        advice: What to do next.

    Example:
        >>> f = Finding("head-1", "localization.head", "fault", "model", "The head is wrong.",
        ...             0.2, (0.1, 0.3), 100, 0.9)
        >>> Finding.from_json(f.to_json()) == f
        True
    """

    id: str
    kind: str
    severity: Severity
    subject: str
    claim: str
    statistic: float
    interval: tuple[float, float]
    n: int
    confidence: float
    confirmed: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self) | {"interval": list(self.interval)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Finding":
        """Read a JSON object; StoreError where a key is unknown or missing."""
        known = set(cls.__dataclass_fields__)
        for key in data.keys() - known:
            raise StoreError(f"finding has an unknown key '{key}'; {nearest(key, known)}")
        try:
            return cls(**{**data, "interval": tuple(data["interval"])})
        except (TypeError, KeyError) as error:
            raise StoreError(f"finding is incomplete: {error}; run the session again") from error
