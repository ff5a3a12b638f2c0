"""Initial values: all equal, far too large or too small for the width of their layer, and the loss
that they give before any step."""

import numpy as np

from faultlens.training.reading import Block, Reading
from faultlens.training.symptom import Force, Sign
from faultlens.training.trace import LayerInfo, ParameterInfo

#: Spread of the weights times the root of their inputs: sound schemes give 0.3 to 2.
_SMALL, _LARGE = 0.05, 5.0
_COMMON = 2.0
#: First losses, in multiples of the trivial one: sound beginnings give one to three, since their
#: outputs are small; from the first on it is odd, at the second it is sure.
_ODD, _WILD = 10.0, 1000.0
_LARGE_INPUT = 10.0


def initial_values(reading: Reading) -> list[Sign]:
    """Weights that start equal (no gradient can tell units apart), or out of all proportion."""
    signs = []
    for block in reading.blocks:
        if block.layer.role not in ("affine", "recurrent"):
            continue
        weights = [p for p in block.layer.parameters if p.role == "weight" and len(p.shape) > 1]
        for p in weights[:1]:
            equal = (p.is_constant or p.equal_units) and block is not reading.last
            if equal and _n_units(p) > 1:
                signs.append(_equal(block.layer, p, _force(reading, block)))
            elif not p.is_constant:
                signs += _size(block, p)
    return signs[:1] if not signs else [max(signs, key=lambda s: s.strength)]


def _n_units(p: ParameterInfo) -> int:
    return max(p.shape[0], p.shape[-1])


def _force(reading: Reading, block: Block) -> Force:
    """Return how sure it is that the units of a layer of equal weights stay equal.

    Different biases, dropout, or different weights of the layer that reads them (as where only the
    last factor of a product starts at 0) tell the units apart after the first steps.
    """
    after = next((b for b in reading.blocks if _reads(reading, b, block)), None)
    if after is None or not all(_is_constant(b, "weight") for b in (block, after)):
        return "evidence"
    is_mixed = any(layer.role == "dropout" for _, layer in reading.executed)
    return "error" if _is_constant(block, "bias") and not is_mixed else "blocked"


def _is_constant(block: Block, role: str) -> bool:
    return all(p.is_constant for p in block.layer.parameters if p.role == role)


def _reads(reading: Reading, block: Block, source: Block) -> bool:
    """Tell whether a layer reads another through nothing that has weights."""
    before = block.layer.inputs_from
    while len(before) == 1 and before[0] != source.layer.name:
        layer = reading.trace.layer(before[0])
        before = () if layer.parameters else layer.inputs_from
    return before == (source.layer.name,)


def _equal(layer: LayerInfo, p: ParameterInfo, force: Force) -> Sign:
    value = f"are all {p.mean:g}" if p.is_constant else "are the same for every unit"
    return Sign(
        "initial_values", f"The initial weights of {layer.name} {value}: its units stay equal.",
        "forward", {"initialization": 0.95, "vanishing": 0.3},
        0.85 if force == "evidence" else 0.95, layer, force=force,
        evidence={"mean": p.mean, "std": p.std},
    )  # fmt: skip


def _size(block: Block, p: ParameterInfo) -> list[Sign]:
    shape = block.layer.input_shape
    width = int(np.prod(p.shape)) // max(_fan_out(block), 1)
    if not shape or width < 2:
        return []
    scale = p.std * float(np.sqrt(width))
    if _SMALL < scale < _LARGE:
        return []
    large = scale >= _LARGE
    far = np.log10(scale / _LARGE if large else _SMALL / max(scale, 1e-12))
    other = "exploding" if large else "vanishing"
    return [Sign(
        "initial_values", f"The initial weights of {block.layer.name} have a spread of "
        f"{p.std:.2g}, {'large' if large else 'small'} for {width} inputs.", "forward",
        {"initialization": 0.9, other: 0.5}, float(np.interp(far, (0, _span(p)), (0.35, 0.8))),
        block.layer, evidence={"std": p.std, "inputs": width, "scale": scale},
    )]  # fmt: skip


def _span(p: ParameterInfo) -> float:
    """Return the decades over which a spread becomes a sure sign.

    Weights of spread 1 are common, and train slowly; larger ones are nobody's choice.
    """
    return 1.0 if p.std > _COMMON else 2.25


def _fan_out(block: Block) -> int:
    out = block.layer.output_shape
    p = block.layer.parameters[0]
    if out and len(out) > 1 and out[-1] in p.shape and len(p.shape) == 2:
        return out[-1]
    return p.shape[-1] if "Dense" in block.layer.kind else p.shape[0]


def first_loss(reading: Reading) -> list[Sign]:
    """A loss far above the trivial one before any step was made, where something explains it.

    The step size has no part in it: weights or inputs are too large from the beginning (Karpathy,
    "A recipe for training neural networks", 2019: verify the loss at init).
    """
    loss, s, x = reading.trace.loss, reading.success, reading.inputs
    is_known = s.is_trivial_known and s.trivial > 0 and len(loss) and np.isfinite(loss[0])
    if not is_known or loss[0] < _ODD * s.trivial:
        return []
    kinds = {}
    large = [v for v in initial_values(reading) if v.evidence.get("scale", 0.0) >= _LARGE]
    if large:
        kinds["initialization"] = 0.85
    if x is not None and max(abs(x.minimum), abs(x.maximum)) > _LARGE_INPUT:
        kinds["data_scaling"] = 0.95
    if not kinds:
        return []
    times = float(loss[0] / s.trivial)
    bounds = np.log10([_ODD, _WILD])
    return [Sign(
        "first_loss", f"Before any step the loss is {times:.2g} times that of a constant "
        "prediction.", "forward", kinds, float(np.interp(np.log10(times), bounds, (0.3, 0.9))),
        large[0].layer if large else None, 1,
        evidence={"first_loss": float(loss[0]), "times_trivial": times},
    )]  # fmt: skip
