"""Proofs that a formula holds nowhere in a region: a tree of cases, closed by multipliers.

What is refuted is one formula `F`: `all_of(given, negate(goal))` where a goal is proved, `given`
where it is vacuous. A branch keeps two lists, comparisons and choices; a place is an index in one
of them, and places never shift. `F` is asserted first. To assert

* a `Comparison` adds it to the comparisons;
* an `AtLeast` adds nothing if `n <= 0`, closes the branch if `n > len(parts)`, asserts its parts
  from left to right if `n = len(parts)`, and else is added to the choices.

Nothing is simplified, and a comparison asserted twice has two places. The H hidden units of a ReLU
head are numbered layer by layer. Unit h has two more signals, its input `x = C + K + 2h` and its
output `y = C + K + 2h + 1`, and three comparisons before all others, at the places 3h, 3h + 1 and
3h + 2: `y >= 0`; `y - x >= 0`; `u (x - l) - (u - l) y >= 0`, where `l <= 0 <= u` are bounds of x
(and zero) over the region's first body, by interval propagation. So the first comparison of `F`
has the place 3H.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaf:
    """A branch closed by multipliers: their weighted sum of comparisons is negative on the region.

    Attributes:
        multipliers: Pairs of a place in the branch's comparisons, each once, and a weight >= 0. A
            sum that is only <= 0 closes the branch if a strict comparison has a weight > 0. None
            are needed where an `AtLeast` that cannot hold closed it.
        halfspaces: Pairs of a half-space of the region and a weight >= 0, added to the sum.
        body: Over which of the region's bodies the sum is bounded.
    """

    multipliers: tuple[tuple[int, float], ...] = ()
    halfspaces: tuple[tuple[int, float], ...] = ()
    body: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """Two cases on a choice `AtLeast(n, parts)`, `0 < n < len(parts)`.

    Attributes:
        place: Which of the branch's choices; each can be split once, its place stays taken, and
            what remains of it is asserted anew.
        then: With `parts[0]` and then `AtLeast(n - 1, parts[1:])` asserted.
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
        active: With `x >= 0` and then `x - y >= 0` asserted.
        inactive: With `-x >= 0` and then `-y >= 0` asserted.
    """

    layer: int
    unit: int
    active: "Proof"
    inactive: "Proof"


Proof = Leaf | Split | Phase
