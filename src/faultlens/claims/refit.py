"""What refitting the head would change: one value behind every claim about the head."""

from collections.abc import Mapping
from dataclasses import dataclass

from faultlens.arrays import BoolArray
from faultlens.claims.case import Case
from faultlens.claims.wording import confused
from faultlens.localize.gains import Gain


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """The refitted head against the shipped one.

    Attributes:
        overall: Gain over all images.
        classes: Class index -> gain, of the classes where it is a fault; most images gained first.
        main: The gain that speaks for the fault.
        statistic: What `main` is, in words.
        repaired: (n,) errors that the refitted head gets right.
        where: The confusions among them as a part of a sentence; empty without any.
    """

    overall: Gain
    classes: Mapping[int, Gain]
    main: Gain
    statistic: str
    repaired: BoolArray
    where: str

    @property
    def is_fault(self) -> bool:
        """Whether the gain explains enough of the errors, of all images or of a class."""
        return self.overall.is_fault or bool(self.classes)

    @classmethod
    def of(cls, case: Case) -> "Refit":
        """Gather it from a case."""
        e, (overall, *others) = case.analysis.evidence, case.head_gains
        faulty = sorted((g for g in others if g.is_fault), key=lambda g: -g.gained)
        # A fault of few classes shows in their gain, not in that of all images.
        is_few = bool(faulty) and not overall.is_fault
        main = max(faulty, key=lambda g: g.interval[0]) if is_few else overall
        repaired = e.is_error & (e.refit == e.labels)
        said = confused(case.confusions(repaired), case.classes)
        return cls(
            overall=overall,
            classes={g.subject: g for g in faulty if g.subject is not None},
            main=main,
            statistic=f"accuracy gained by refitting the head, {_group(case, main)}",
            repaired=repaired,
            where=f", {said}" if said else "",
        )


def _group(case: Case, gain: Gain) -> str:
    if gain.subject is None:
        return "all images"
    return f"images that are or are called {case.classes[gain.subject]}"
