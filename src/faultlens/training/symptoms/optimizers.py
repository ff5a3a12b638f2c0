"""The optimizer's settings as they stand before training."""

import numpy as np

from faultlens.training.reading import Reading
from faultlens.training.symptom import Sign

#: Steps that a momentum remembers, `1 / (1 - m)`: usual ones are 10 to 100 (0.9 to 0.99); from 300
#: on it is odd, and thousands are nobody's choice (0.999 is that of Adam's second moment).
_ODD, _WILD = 300.0, 3000.0


def momentum(reading: Reading) -> list[Sign]:
    """A momentum that remembers more steps than lead anywhere.

    A gradient then acts for so long that steps no longer follow the loss, and with plain momentum
    the steps add up to `1 / (1 - m)` times the learning rate (Sutskever et al., "On the importance
    of initialization and momentum in deep learning", ICML 2013, section 2).
    """
    values = [max(o.momentum, o.betas[0] if o.betas else 0.0) for o in reading.setup.optimizers]
    largest = max(values, default=0.0)
    memory = 1 / max(1 - largest, 1e-9)
    if memory < _ODD:
        return []
    bounds = np.log10([_ODD, _WILD])
    return [Sign(
        "momentum", f"A momentum of {largest:g} remembers the gradients of {memory:.0f} steps.",
        "update", {"optimizer": 0.95, "lr_too_high": 0.5},
        float(np.interp(np.log10(memory), bounds, (0.3, 0.85))),
        evidence={"momentum": largest, "steps": memory},
    )]  # fmt: skip
