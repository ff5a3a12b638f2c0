"""What a gate asks: one YAML file of thresholds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from faultlens.concepts import read_yaml
from faultlens.errors import InputError, nearest

Judge = Literal["estimate", "bound"]
TooFew = Literal["fail", "skip"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Limit(_Strict):
    """A threshold.

    Attributes:
        min: The least that passes.
        max: The most that passes.
        judge: `estimate` compares the number itself; `bound` asks that its whole interval lies on
            the right side. None asks what the gate asks.
        too_few: What fewer than `min_images` images mean: `fail`, or `skip` (told, and not
            counted). None asks what the gate asks.
    """

    min: float | None = None
    max: float | None = None
    judge: Judge | None = None
    too_few: TooFew | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("min or max must be given")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be at most max, got {self.min:g} and {self.max:g}")
        return self


def _check_share(limit: Limit) -> Limit:
    for bound in (limit.min, limit.max):
        if bound is not None and not 0 <= bound <= 1:
            raise ValueError(f"shares must be in [0, 1], got {bound:g}; 0.9 stands for 90 %")
    return limit


Share = Annotated[Limit, AfterValidator(_check_share)]


class GroupLimit(Limit):
    """A threshold on each of several groups.

    Attributes:
        only: Names of the groups asked; None asks all.
        except_: Names of groups left out (`except` in the file), such as known problems.
    """

    only: tuple[str, ...] | None = None
    except_: tuple[str, ...] = Field(default=(), alias="except")


GroupShare = Annotated[GroupLimit, AfterValidator(_check_share)]


class Findings(_Strict):
    """How many findings may be there.

    Attributes:
        faults: At most so many faults, confirmed or not; None does not count them.
        confirmed_faults: At most so many faults that an intervention confirmed.
        kinds: At most so many findings of a kind; `localization.*` stands for all that begin so.
        allow: Ids of known findings, which do not count.
        unknown_passes: Whether a session that could tell nothing passes.
    """

    faults: int | None = Field(default=None, ge=0)
    confirmed_faults: int | None = Field(default=None, ge=0)
    kinds: dict[str, Annotated[int, Field(ge=0)]] = {}
    allow: tuple[str, ...] = ()
    unknown_passes: bool = False


class CheckSuite(_Strict):
    """Specifications to be checked on the images."""

    file: Path
    required_rate: float = Field(default=0.95, gt=0, le=1)
    exploratory: bool = False


class VerifySuite(_Strict):
    """Specifications to be verified."""

    file: Path
    region: str = "slabs(coverage=0.9)"
    timeout: float = Field(default=60.0, gt=0)


class Monitor(_Strict):
    """A monitor, evaluated on a session's images.

    Attributes:
        file: As `faultlens monitor fit` wrote it.
        session: Whose images; None asks the gate's.
        false_alarms: Share of correct predictions rejected.
        caught: Share of wrong predictions rejected.
        risk: Share of wrong ones among accepted predictions.
        accepted: Share of predictions accepted.
        auroc: Of the score.
        aurc: Of the score.
        fpr95: Of the score.
    """

    file: Path
    session: Path | None = None
    false_alarms: Share | None = None
    caught: Share | None = None
    risk: Share | None = None
    accepted: Share | None = None
    auroc: Share | None = None
    aurc: Share | None = None
    fpr95: Share | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(getattr(self, k) is None for k in type(self).model_fields if k not in _OF_MONITOR):
            raise ValueError("at least one threshold must be given, such as false_alarms")
        return self


_OF_MONITOR = ("file", "session")


class Training(_Strict):
    """A training, diagnosed from its trace.

    Attributes:
        trace: Folder that `faultlens.watch` wrote.
        faults: At most so many faults; None does not count them.
        kinds: At most so many findings of a kind, such as `training.dead_units`; `training.*`
            stands for all.
        loss: Mean of the last losses.
        gain: Share of the loss of the best constant prediction that was gained, up to 1.
        unknown_passes: Whether a training too short to be judged passes.
    """

    trace: Path
    faults: int | None = Field(default=None, ge=0)
    kinds: dict[str, Annotated[int, Field(ge=0)]] = {}
    loss: Limit | None = None
    gain: Limit | None = None
    unknown_passes: bool = False

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.faults is None and not self.kinds and self.loss is None and self.gain is None:
            raise ValueError("at least one threshold must be given, such as faults: 0")
        for kind in self.kinds:
            if not kind.startswith("training."):
                raise ValueError(f"kinds must begin with 'training.', got '{kind}'; write "
                                 f"'training.{kind}'")  # fmt: skip
        return self


class GateConfig(_Strict):
    """Thresholds on a session.

    Attributes:
        session: A finished session's folder.
        debug: Configuration of `faultlens debug` that is run first; instead of `session`.
        judge: `estimate` or `bound`, for thresholds that do not say it themselves.
        confidence: Of the intervals, in (0, 1).
        min_images: Fewer images than this are too few for a share.
        too_few: `fail` or `skip`, likewise.
        accuracy: Share of correct predictions.
        error: Share of wrong predictions.
        class_error: Share of wrong predictions among the images labelled so, for each class.
        subclass_error: The same for each subclass.
        head_share: Share of the judged errors that are the head's.
        numbers: Any other number of the session, by its name there.
        findings: How many findings may be there.
        check: Specifications to be checked.
        verify: Specifications to be verified.
        monitor: A monitor and what it must reach.
        training: The trace of a training and what it must reach; needs no session.
        baseline: An earlier session, against which nothing may have become significantly worse.
    """

    session: Path | None = None
    debug: Path | None = None
    judge: Judge = "estimate"
    confidence: float = Field(default=0.95, gt=0, lt=1)
    min_images: int = Field(default=10, ge=1)
    too_few: TooFew = "fail"
    accuracy: Share | None = None
    error: Share | None = None
    class_error: GroupShare | None = None
    subclass_error: GroupShare | None = None
    head_share: Share | None = None
    numbers: dict[str, Limit] = {}
    findings: Findings | None = None
    check: tuple[CheckSuite, ...] = ()
    verify: tuple[VerifySuite, ...] = ()
    monitor: Monitor | None = None
    training: Training | None = None
    baseline: Path | None = None

    @model_validator(mode="after")
    def _one_session(self) -> Self:
        if self.session is not None and self.debug is not None:
            raise ValueError("session and debug exclude each other; give one of them")
        return self

    @property
    def needs_session(self) -> bool:
        """Whether anything but a training is asked about."""
        rest = (k for k in type(self).model_fields if k not in (*_SETTINGS, "training"))
        return any(getattr(self, k) for k in rest)

    @classmethod
    def read(cls, path: str | Path) -> "GateConfig":
        """Read a YAML file; its paths count from its own folder.

        Raises:
            InputError: A key is unknown (with the nearest known ones) or a value is wrong.
            StoreError: The file cannot be read.
        """
        place = Path(path)
        data = read_yaml(place)
        if not isinstance(data, dict):
            raise InputError(f"{path} must be a mapping of thresholds, got {type(data).__name__}")
        return cls.parse(data, str(path)).under(place.parent)

    @classmethod
    def parse(cls, values: dict[str, Any], source: str = "gate") -> "GateConfig":
        """Check values; InputError with the place and the nearest known key.

        Example:
            >>> GateConfig.parse({"session": "out", "accuracy": {"min": 0.9}}).accuracy.min
            0.9
            >>> GateConfig.parse({"acuracy": {"min": 0.9}})
            Traceback (most recent call last):
            faultlens.errors.InputError: gate: unknown key 'acuracy'; did you mean 'accuracy'?
        """
        try:
            found = cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{source}: {_described(error, cls)}") from error
        if not any(getattr(found, k) for k in cls.model_fields if k not in _SETTINGS):
            raise InputError(
                f"{source} must ask for something, got no threshold; add accuracy: {{min: 0.9}}"
            )
        return found

    def under(self, folder: Path) -> "GateConfig":
        """Return the same with relative paths counted from a folder."""

        def moved(part: Any) -> Any:
            if isinstance(part, Path):
                return folder / part
            if isinstance(part, tuple):
                return tuple(moved(p) for p in part)
            if isinstance(part, BaseModel):
                changes = {k: moved(getattr(part, k)) for k in type(part).model_fields}
                return part.model_copy(update=changes)
            return part

        found: GateConfig = moved(self)
        return found


_SETTINGS = ("session", "debug", "judge", "confidence", "min_images", "too_few")


def _described(error: ValidationError, model: type[BaseModel]) -> str:
    """Say what is wrong and where; an unknown key with the nearest ones of its place."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        *above, key = first["loc"]
        known = _keys(_at(model, [str(p) for p in above]))
        return f"unknown key '{place}'; {nearest(str(key), known)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"'{place}' is wrong: {message}" if place else message


def _at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """Return the model that a place in the file belongs to."""
    for key in path:
        fields = {f.alias or name: f for name, f in model.model_fields.items()}
        if key in fields:
            model = next(_models(fields[key].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
