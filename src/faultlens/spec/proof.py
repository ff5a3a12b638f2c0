"""Proofs that a formula holds nowhere in a region: a tree of cases, closed by multipliers.

What is refuted is one formula `F` (the hypotheses and the negated goal, in negation normal form).
A branch keeps a list of *asserted* formulas, at first `F` alone. An asserted `AtLeast` with
`n = len(parts)` asserts its parts too; one with `n > len(parts)` closes the branch.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaf:
    """A branch closed by multipliers: their weighted sum of comparisons is negative on the region.

    Attributes:
        multipliers: Pairs of a place in the branch's list of asserted comparisons (in the order of
            their assertion) and a weight >= 0. With none, the branch is closed by an
            `AtLeast` that cannot hold.
        halfspaces: Pairs of a half-space of the region and a weight >= 0, added to the sum.
        body: Over which of the region's bodies the sum is bounded.
    """

    multipliers: tuple[tuple[int, float], ...] = ()
    halfspaces: tuple[tuple[int, float], ...] = ()
    body: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """Two cases on an asserted `AtLeast(n, parts)` with `n < len(parts)`.

    Attributes:
        place: Which of the branch's asserted proper `AtLeast` (in the order of their assertion;
            each can be split once, and what remains of it is asserted anew).
        then: With `parts[0]` and `AtLeast(n - 1, parts[1:])` asserted.
        other: With `AtLeast(n, parts[1:])` asserted: what `parts[0]` does is left open.
    """

    place: int
    then: "Proof"
    other: "Proof"


@dataclass(frozen=True, slots=True)
class Phase:
    """Two cases on a ReLU of the head: its input is >= 0, or <= 0.

    Attributes:
        layer: Hidden layer, from 0.
        unit: Unit in it.
        active: With the input >= 0.
        inactive: With the input <= 0.
    """

    layer: int
    unit: int
    active: "Proof"
    inactive: "Proof"


Proof = Leaf | Split | Phase
