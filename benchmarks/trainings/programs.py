"""The healthy programs by name, the two halves of them, and their healthy variants."""

from collections.abc import Callable

import torch

from trainings import healthy, healthy_more
from trainings.recipe import Recipe, Variant

#: Thresholds may be chosen on the first list alone; the second is for scoring.
DEVELOPMENT = (
    "mlp_digits", "cnn_digits", "lstm_signs", "autoencoder", "regression", "embedding_pool",
    "mlp_moons", "mlp_cancer", "cnn_shapes", "resnet", "transformer", "sine_tanh", "segmentation",
    "conv1d",
)  # fmt: skip
SCORING = (
    "depthwise_digits", "gated_wine", "gru_last", "conv_decay", "unet_rings", "words_topics",
    "vit_digits",
)  # fmt: skip
MAKERS: dict[str, Callable[[Variant], Recipe]] = {
    name: getattr(module, name)
    for names, module in ((DEVELOPMENT, healthy), (SCORING, healthy_more))
    for name in names
}
#: Programs without a hidden activation that could be exchanged.
FIXED_ACTIVATION = ("transformer", "lstm_signs", "gru_last")


def recipe(name: str, variant: Variant) -> Recipe:
    """A healthy program; its first weights come from the variant's seed."""
    torch.manual_seed(1000 + variant.seed)
    made = MAKERS[name](variant)
    made.lr *= variant.lr
    made.batch = max(2, round(made.batch * variant.batch))
    return made


def variants(name: str) -> list[Variant]:
    """Healthy variants: other seeds, widths, rates, batches and activations."""
    usual = [
        Variant(1), Variant(2), Variant(3, width=0.5), Variant(4, width=2), Variant(5, lr=0.5),
        Variant(6, lr=2), Variant(7, batch=2), Variant(8, batch=0.5),
    ]  # fmt: skip
    if name in FIXED_ACTIVATION:
        return usual
    return [*usual, Variant(9, activation="gelu"), Variant(10, activation="leaky_relu")]
