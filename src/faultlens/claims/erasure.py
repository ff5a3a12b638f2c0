"""Interventions on embeddings: a concept is erased, the head is asked again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from faultlens.analysis import Analysis
from faultlens.arrays import BoolArray, IntArray
from faultlens.claims.wording import portion
from faultlens.localize.causal import (
    LEVEL,
    Confirmation,
    HeadFunction,
    Part,
    confirm,
    sample_rows,
)
from faultlens.localize.erase import embedding_directions, leace_eraser

#: Of the random directions and of the choice of images, for every concept anew.
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Erasure:
    """What a concept is erased from, and who is asked then.

    Attributes:
        embeddings: Of all images, reference and analysed.
        is_reference: Images that erasers are fitted on; none where the analysis is cross-fitted.
        directions: Unit concept directions of the vision-language space.
        head: The classifier's own.
        is_affine: Whether it is a single affine layer.
    """

    embeddings: Float[np.ndarray, "N D"]
    is_reference: Bool[np.ndarray, " N"]
    directions: Float[np.ndarray, "C E"]
    head: HeadFunction
    is_affine: bool

    def of(self, analysis: Analysis, errors: BoolArray, concept: int) -> Confirmation:
        """Erase one concept from a group's errors and from correct images of the same classes.

        Every image is erased by an eraser that never saw it: least-squares erasure of the
        concept's reading `Wᵀ q_c · z`, fitted on the reference images of the image's own map.

        Args:
            analysis: Knows the maps, and which of them never saw which image.
            errors: (n,) among the analysed images.
            concept: Index.

        Returns:
            What it repairs and breaks, beside 200 random directions of the vision-language space.
        """
        e = analysis.evidence
        classes = np.union1d(e.labels[errors], e.predictions[errors])
        correct = ~e.is_error & np.isin(e.labels, classes)
        rng = np.random.default_rng([SEED, concept])
        parts = self.parts(analysis, sample_rows(errors, correct, rng), [concept])
        root = np.asarray(analysis.full.map.weight, np.float64).T
        return confirm(parts, self.head, rng, is_affine=self.is_affine, root=root)

    def parts(self, analysis: Analysis, rows: IntArray, concepts: Sequence[int]) -> list[Part]:
        """Divide images by the map that never saw them, each part with its own eraser.

        Args:
            analysis: Knows the maps, and which of them never saw which image.
            rows: Among the analysed images.
            concepts: Indices of what is erased, in this order.
        """
        z, seen = self.embeddings[analysis.rows], self.embeddings[self.is_reference]
        parts = []
        for i, fit in enumerate(analysis.fits):
            mine = rows[analysis.fit_of[rows] == i]
            if not len(mine):
                continue
            reference = seen if len(seen) else z[analysis.fit_of != i]
            reading = embedding_directions(fit.map, self.directions[list(concepts)])
            eraser = leace_eraser(reference, reference @ reading.T)
            parts.append(Part(eraser, z[mine], analysis.evidence.labels[mine]))
        return parts


def told(name: str, found: Confirmation, p_value: float) -> dict[str, Any]:
    """Return the evidence of an erasure, with a sentence.

    Args:
        name: Of the concept.
        found: What the erasure did.
        p_value: After correction for the number of erasures tried.
    """
    r, b = found.repaired, found.broken
    sure = (
        f"more than {portion(1 - LEVEL)} of them do"
        if p_value <= LEVEL
        else "which is no more than chance"
    )
    return {
        "kind": "erasure",
        "concept": name,
        "told": (
            f"Erasing {name} from the embeddings repairs {portion(r.share)} of these errors, "
            f"random directions of equal size {portion(r.random_mean)}: {sure} "
            f"(p = {p_value:.3f}); it breaks {portion(b.share)} of the correct images of these "
            f"classes."
        ),
        "repaired": asdict(r),
        "moved": asdict(found.moved),
        "broken": asdict(b),
        "p_value": p_value,
        "n_random": found.n_random,
    }
