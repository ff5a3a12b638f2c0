"""The network and its settings as they stand before training."""

from itertools import pairwise

from faultlens.training.reading import SQUASHING, Block, Reading
from faultlens.training.symptom import Sign

_DROPOUT = 0.65
_DECAY = 0.03
#: Strength of a long chain of sigmoids: six leave less than a thousandth of the gradient (4^-5).
_CHAIN = 0.85


def nonlinearity(reading: Reading) -> list[Sign]:
    """Layers that follow each other with nothing but affine maps between: together one map."""
    blocks = reading.blocks
    pairs = [(a, b) for a, b in pairwise(blocks) if _is_linear(reading, a, b)]
    if not pairs:
        return []
    is_whole = len(pairs) == len(blocks) - 1
    first = pairs[0][0].layer
    told = (
        "No layer of the network has an activation: it is one affine map"
        if is_whole
        else f"Nothing but an affine map follows {first.name} before {pairs[0][1].layer.name}"
    )
    # Layers of one affine map are wasted on any task; on labels hardly ever meant.
    strength = (0.9 if reading.is_classification else 0.7) if is_whole else 0.5
    return [Sign(
        "missing_nonlinearity", f"{told}.", "forward",
        {"missing_activation": 0.95, "architecture": 0.2},
        strength, first,
        evidence={"pairs": [(a.layer.name, b.layer.name) for a, b in pairs]},
    )]  # fmt: skip


def _is_linear(reading: Reading, a: Block, b: Block) -> bool:
    """Tell whether `b` reads what `a` gives, through nothing but dropout and reshaping.

    A function called inside `forward` cannot be seen; then `inputs_from` is empty.
    """
    if a.activation != "linear" or a.has_norm or a.has_mixing or b.layer.role != "affine":
        return False
    source = b.layer.inputs_from
    while len(source) == 1 and source[0] != a.layer.name:
        layer = reading.trace.layer(source[0])
        if layer.role not in ("dropout", "reshape", "other") or layer.activation != "linear":
            return False
        source = layer.inputs_from
    return source == (a.layer.name,)


def hidden_squashing(reading: Reading) -> list[Sign]:
    """Chains of sigmoid or tanh layers, each of which shrinks the gradient.

    See Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, section 3.
    """
    squashed = [b for b in reading.blocks[:-1] if b.activation in SQUASHING and not b.has_norm
                and b.layer.role == "affine"]  # fmt: skip
    n_sigmoid = sum(b.activation == "sigmoid" for b in squashed)
    if not n_sigmoid:
        return []
    return [Sign(
        "hidden_squashing", f"{len(squashed)} hidden layers end in "
        f"{squashed[0].activation}, whose slope is at most 1/4.", "forward",
        {"wrong_activation": 0.8, "vanishing": 0.8}, min(0.15 * n_sigmoid + 0.05, _CHAIN),
        squashed[0].activation_layer, evidence={"sigmoid_layers": n_sigmoid},
    )]  # fmt: skip


def regularization(reading: Reading) -> list[Sign]:
    """Dropout or weight decay so strong that little is left to learn with."""
    signs = []
    for _, layer in reading.executed:
        if layer.rate is not None and layer.role == "dropout" and layer.rate >= _DROPOUT:
            signs.append(Sign(
                "regularization", f"{layer.name} drops {layer.rate:.0%} of its inputs.", "forward",
                {"regularization": 0.95}, min(0.4 + 2 * (layer.rate - _DROPOUT), 0.9), layer,
                evidence={"rate": layer.rate},
            ))  # fmt: skip
    decay = max((o.weight_decay for o in reading.setup.optimizers), default=0.0)
    is_decoupled = any(o.name == "AdamW" for o in reading.setup.optimizers)
    if decay >= (1.0 if is_decoupled else _DECAY):
        signs.append(Sign(
            "regularization", f"The weight decay of {decay:g} pulls all weights to 0.", "update",
            {"regularization": 0.95}, 0.8, evidence={"weight_decay": decay},
        ))  # fmt: skip
    return signs


def batch_size(reading: Reading) -> list[Sign]:
    """Batches of one row, or so large that an epoch has only a few steps."""
    n, per_epoch = reading.setup.batch_size, reading.setup.batches_per_epoch
    if n == 1:
        told, strength = "A batch is a single row, so every step follows its noise", 0.2
    elif n and n >= 512 and per_epoch and per_epoch <= 4:
        told, strength = f"A batch of {n} rows leaves {per_epoch} steps an epoch", 0.4
    else:
        return []
    return [Sign("batch_size", f"{told}.", "update", {"batch_size": 0.9}, strength,
                 evidence={"batch_size": n, "steps_per_epoch": per_epoch})]  # fmt: skip
