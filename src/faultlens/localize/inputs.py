"""Inputs: what feeding a network in another way gains, judged by paired tests.

The network itself runs again, so this is an intervention; whether the way is better is decided by
the labels, and whether it is the network's own by how decided it is then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.data.preprocess import Preprocessing
from faultlens.localize.compression import Compression
from faultlens.localize.gains import LEVEL, MIN_ENCODER_GAP, MIN_SHARE, Gain
from faultlens.stats import mcnemar_exact, paired_gain

#: The lower 95 % bound of a gain must exceed this where it removes a third of the errors. It is
#: less than of other gains: undoing such a mistake costs a minute.
MIN_INPUT_GAIN = 0.01


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """Numbers as the network gets them, channel by channel.

    Attributes:
        mean: One a channel, in the order of the channels.
        std: Likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def is_far(self) -> bool:
        """Whether they are far from mean 0 and deviation 1, where most networks are trained.

        Example:
            >>> InputStatistics((0.5,), (0.2,)).is_far, InputStatistics((120.0,), (60.0,)).is_far
            (False, True)
        """
        return max(map(abs, self.mean)) > 3 or max(self.std) > 5 or min(self.std) < 0.05


@dataclass(frozen=True, slots=True, eq=False)
class InputTrial:
    """One other preprocessing against the stated one, on the same images.

    Attributes:
        name: What it changes; completes "with …".
        preprocessing: The whole of it.
        rows: (n,) images, as rows of the measurements.
        predictions: (n,) of the network fed so.
        gain: Against the stated one.
        decided: How decided the network is then, and as it is fed now; see `decidedness`.
    """

    name: str
    preprocessing: Preprocessing
    rows: IntArray
    predictions: IntArray
    gain: Gain
    decided: tuple[float, float]

    @property
    def is_fault(self) -> bool:
        """Whether the stated preprocessing is wrong: much is gained, by a network no less decided.

        Other colours may also hide a cue from a model that learned one. That gains accuracy too,
        but the network then sees what it was not trained on, and is less decided.
        """
        return self.gain.is_fault and self.decided[0] >= self.decided[1]


@dataclass(frozen=True, slots=True, eq=False)
class InputTrials:
    """What was tried on the inputs of a network.

    Attributes:
        stated: The preprocessing that the model came with.
        statistics: Of the inputs that it makes.
        tried: Every other one, on the images that the best was chosen on; those that fell behind
            early saw only the first of them.
        chosen: The best on images that it was not chosen on; None where none was better.
        compression: What hard compression of the pictures costs; None where they show none.
    """

    stated: Preprocessing
    statistics: InputStatistics
    tried: tuple[InputTrial, ...]
    chosen: InputTrial | None
    compression: Compression | None


def gain_of(better: BoolArray, present: BoolArray) -> Gain:
    """Compare two ways of feeding the network on the same images.

    Args:
        better: (n,) images that the other way gets right.
        present: (n,) images that the stated way gets right.

    Returns:
        The gain, not corrected for the number of ways tried. It is significant where its lower
        bound exceeds `MIN_INPUT_GAIN`, and a fault where it also removes a third of the errors or
        is as large as an encoder fault (a weak network has many errors of its own).

    Example:
        >>> gain = gain_of(np.ones(100, bool), np.arange(100) >= 30)
        >>> gain.gain, gain.share, gain.is_fault
        (0.3, 1.0, True)
    """
    gained, lost = int((better & ~present).sum()), int((present & ~better).sum())
    n, n_errors = len(present), int((~present).sum())
    value, low, high = paired_gain(gained, lost, n)
    share = (gained - lost) / n_errors if n_errors else float("nan")
    p = mcnemar_exact(gained, lost)
    is_significant = p <= LEVEL and low > MIN_INPUT_GAIN
    is_fault = is_significant and (share >= MIN_SHARE or low > MIN_ENCODER_GAP)
    return Gain(None, gained, lost, n, value, (low, high), p, share, is_significant, is_fault)


def decidedness(logits: FloatArray) -> float:
    """Return by how much the network prefers its answers: a witness that needs no labels.

    The mean gap between the two largest logits, in standard deviations of all logits, each class
    less its mean over the images, so that neither large numbers nor a constant answer look sure.
    A network fed as in its training is the most decided.

    Args:
        logits: (n, K) of n images.

    Example:
        >>> decidedness(np.eye(4) * 1000) > decidedness(np.eye(4) + 3 * np.eye(4)[:, ::-1]) > 0
        True
        >>> decidedness(np.ones((4, 1)) * np.arange(4.0))
        0.0
    """
    centred = np.asarray(logits, np.float64) - logits.mean(axis=0, dtype=np.float64)
    largest = np.partition(centred, -2, axis=1)
    spread = float(centred.std())
    return float((largest[:, -1] - largest[:, -2]).mean()) / spread if spread > 0 else 0.0


def best(
    trials: Sequence[InputTrial], labels: IntArray, present: BoolArray, decided: float
) -> InputTrial | None:
    """Return the most decided of the trials that gain most; None where none seems to gain.

    It is not corrected for their number: other images have to confirm the one that is chosen.

    Args:
        trials: Those that fell behind early have fewer images and never win.
        labels: (n,) of the images.
        present: (n,) images that are right already.
        decided: How decided the network is already; one that is less so is not fed better.
    """
    gains = {
        i: gain_of(t.predictions == labels, present)
        for i, t in enumerate(trials)
        if len(t.predictions) == len(labels) and t.decided[0] >= decided
    }
    gaining = [trials[i] for i, g in gains.items() if g.p_value <= LEVEL]
    if not gaining:
        return None
    most = max(gaining, key=lambda t: int((t.predictions == labels).sum()))
    alike = [t for t in gaining if t is most or not _beats(most, t, labels)]
    return max(alike, key=lambda t: t.decided[0])


def as_good(trials: Sequence[InputTrial], chosen: InputTrial, labels: IntArray) -> list[str]:
    """Return the names of the other trials that the chosen one does not beat beyond chance.

    Args:
        trials: On the images that it was chosen on.
        chosen: One of them.
        labels: (n,) of these images.
    """
    return [
        t.name
        for t in trials
        if t is not chosen
        and len(t.predictions) == len(labels)
        and t.is_fault
        and not _beats(chosen, t, labels)
    ]


def _beats(one: InputTrial, other: InputTrial, labels: IntArray) -> bool:
    a, b = one.predictions == labels, other.predictions == labels
    return mcnemar_exact(int((a & ~b).sum()), int((b & ~a).sum())) <= LEVEL
