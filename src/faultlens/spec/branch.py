"""What a branch of a proof has asserted, and the exact test that a proof holds.

The rules are those of `proof`; nothing here rounds.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from faultlens.spec.bounds import Total, largest
from faultlens.spec.exact import signals_of
from faultlens.spec.formula import AtLeast, Comparison, Formula
from faultlens.spec.proof import Leaf, Phase, Proof, Split
from faultlens.spec.region import Readout, Region


@dataclass(frozen=True, slots=True)
class Branch:
    """The asserted formulas of one branch of a proof.

    Attributes:
        comparisons: In the order of their assertion, those of ReLU units apart.
        choices: The `AtLeast` that can be split; None where one was.
        is_closed: Whether an `AtLeast` was asserted that cannot hold.
    """

    comparisons: tuple[Comparison, ...] = ()
    choices: tuple[AtLeast | None, ...] = ()
    is_closed: bool = False

    def asserting(self, *formulas: Formula) -> "Branch":
        """Return the branch with formulas asserted, one after the other.

        Example:
            >>> a, b = Comparison(((0, 1.0),)), Comparison(((1, 1.0),))
            >>> branch = Branch().asserting(AtLeast(2, (a, AtLeast(1, (a, b)))))
            >>> len(branch.comparisons), len(branch.choices), branch.is_closed
            (1, 1, False)
        """
        comparisons, choices = list(self.comparisons), list(self.choices)
        is_closed = self.is_closed
        waiting = list(reversed(formulas))
        while waiting:
            formula = waiting.pop()
            if isinstance(formula, Comparison):
                comparisons.append(formula)
            elif formula.n > len(formula.parts):
                is_closed = True
            elif formula.n == len(formula.parts):
                waiting.extend(reversed(formula.parts))
            elif formula.n > 0:
                choices.append(formula)
        return Branch(tuple(comparisons), tuple(choices), is_closed)

    def split(self, place: int) -> tuple["Branch", "Branch"]:
        """Return the two branches of a `Split`.

        Args:
            place: Of a choice that was not split yet.

        Returns:
            Where its first part is asserted, and where it is left open.

        Raises:
            IndexError: There is no such choice, or it was split already.

        Example:
            >>> a, b = Comparison(((0, 1.0),)), Comparison(((1, 1.0),))
            >>> then, other = Branch().asserting(AtLeast(1, (a, b))).split(0)
            >>> then.comparisons == (a,), other.comparisons == (b,)
            (True, True)
        """
        choice = self.choices[place] if 0 <= place < len(self.choices) else None
        if choice is None:
            raise IndexError(place)
        choices = (*self.choices[:place], None, *self.choices[place + 1 :])
        rest = Branch(self.comparisons, choices, self.is_closed)
        first, others = choice.parts[0], choice.parts[1:]
        then = rest.asserting(first, AtLeast(choice.n - 1, others))
        return then, rest.asserting(AtLeast(choice.n, others))

    def phase(self, source: int, output: int) -> tuple["Branch", "Branch"]:
        """Return the two branches of a `Phase`: active and inactive.

        Args:
            source: The signal that is the unit's input.
            output: The signal that is its output.

        Example:
            >>> [len(branch.comparisons) for branch in Branch().phase(4, 5)]
            [2, 2]
        """
        active = (((source, 1.0),), ((source, 1.0), (output, -1.0)))
        inactive = (((source, -1.0),), ((output, -1.0),))
        first, second = (
            self.asserting(*(Comparison(terms, is_strict=False) for terms in rows))
            for rows in (active, inactive)
        )
        return first, second


def refutes(proof: Proof, formula: Formula, region: Region, readout: Readout) -> bool:
    """Test exactly whether a proof shows that a formula holds nowhere in a region.

    Args:
        proof: The tree of cases.
        formula: What is refuted, in the proof's order.
        region: Where.
        readout: What its signals mean.

    Returns:
        Whether the proof holds. False also where it is malformed: no verdict rests on it.

    Example:
        >>> import numpy as np
        >>> from faultlens.spec.region import Body, Shape
        >>> one = np.ones(1, np.float32)
        >>> box = Region("box", (Body(Shape.BOX, 0 * one, None, 0 * one, one),),
        ...     np.empty((0, 1), np.float32), 0 * one[:0])
        >>> readout = Readout(np.eye(1, dtype=np.float32), 0 * one,
        ...     (np.eye(1, dtype=np.float32),), (0 * one,))
        >>> refutes(Leaf(((0, 1.0),)), Comparison(((0, 1.0),), -1.0), box, readout)
        True
        >>> refutes(Leaf(((0, 1.0),)), Comparison(((0, 1.0),), -0.5), box, readout)
        False
    """
    signals = signals_of(readout)
    waiting = [(proof, Branch().asserting(formula))]
    while waiting:
        node, branch = waiting.pop()
        match node:
            case Leaf():
                if not _closes(node, branch, region, readout):
                    return False
            case Split(place, then, other):
                try:
                    first, second = branch.split(place)
                except IndexError:
                    return False
                waiting += [(other, second), (then, first)]
            case Phase(layer, unit, active, inactive):
                if not (0 <= layer < len(signals.hidden) and 0 <= unit < signals.hidden[layer]):
                    return False
                first, second = branch.phase(*signals.unit(layer, unit))
                waiting += [(inactive, second), (active, first)]
    return True


def _closes(leaf: Leaf, branch: Branch, region: Region, readout: Readout) -> bool:
    """Return whether a leaf's weighted sum contradicts its branch."""
    if branch.is_closed:
        return True
    weights = [w for _, w in (*leaf.multipliers, *leaf.halfspaces)]
    n_fixed = 3 * sum(signals_of(readout).hidden)
    n_places = n_fixed + len(branch.comparisons)
    if (
        not all(math.isfinite(w) and w >= 0 for w in weights)
        or not all(0 <= place < n_places for place, _ in leaf.multipliers)
        or not all(0 <= place < len(region.weights) for place, _ in leaf.halfspaces)
        or len({place for place, _ in leaf.multipliers}) < len(leaf.multipliers)
        or len({place for place, _ in leaf.halfspaces}) < len(leaf.halfspaces)
        or not 0 <= leaf.body < len(region.bodies)
    ):
        return False
    total = Total()
    is_strict = False
    for place, weight in leaf.multipliers:
        if place < n_fixed:
            total.add_unit(place, Fraction(weight), region, readout)
            continue
        comparison = branch.comparisons[place - n_fixed]
        total.add(comparison, Fraction(weight))
        is_strict |= comparison.is_strict and weight > 0
    for place, weight in leaf.halfspaces:
        total.halfspaces[place] += Fraction(weight)
    bound = largest(total, region, leaf.body, readout)
    return bound < 0 or (bound == 0 and is_strict)
