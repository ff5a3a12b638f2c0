"""Fault operators: each changes one thing of a healthy recipe, and knows what it should be called.

An operator returns whether it applies. Kinds are those of the declared programs; the first is the
fault itself, the others what it turns into.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from trainings.recipe import Recipe

HIDDEN = (nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU, nn.ELU, nn.SiLU)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class Operator:
    """A fault, the kinds that name it, and how it is put in."""

    name: str
    kinds: tuple[str, ...]
    apply: Callable[[Recipe], bool]


def places(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[nn.Module, str]]:
    """(parent, name) of every child of one of the kinds."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kinds) and not isinstance(parent, nn.MultiheadAttention):
                yield parent, name


def replace(
    recipe: Recipe, kinds: tuple[type[nn.Module], ...], new: Callable[[nn.Module], nn.Module]
) -> bool:
    found = list(places(recipe.model, kinds))
    for parent, name in found:
        setattr(parent, name, new(getattr(parent, name)))
    return bool(found)


def layers(recipe: Recipe) -> list[nn.Module]:
    return [m for m in recipe.model.modules() if isinstance(m, LAYERS)]


def weights(recipe: Recipe) -> list[nn.Parameter]:
    return [p for p in recipe.model.parameters() if p.ndim > 1]


def lr_too_high(r: Recipe) -> bool:
    r.lr *= 300 if r.optimizer == "Adam" else 200
    return True


def lr_too_low(r: Recipe) -> bool:
    r.lr *= 1e-5
    return True


def wrong_sign(r: Recipe) -> bool:
    r.sign = -1
    return True


def no_zero_grad(r: Recipe) -> bool:
    r.does_zero_grad = False
    return True


def no_step(r: Recipe) -> bool:
    r.does_step = False
    return True


def wrong_parameters(r: Recipe) -> bool:
    """The optimizer holds the parameters of a copy, as after `model = model.to(…)` gone wrong."""
    r.parameters = [nn.Parameter(p.detach().clone()) for p in r.model.parameters()]
    for p in r.parameters:
        p.grad = torch.zeros_like(p)
    return True


def weight_decay(r: Recipe) -> bool:
    r.weight_decay = 10.0 if r.optimizer == "Adam" else min(10.0, 0.5 / r.lr)
    return True


def momentum(r: Recipe) -> bool:
    r.momentum = 0.9999
    return True


def batch_one(r: Recipe) -> bool:
    """One row a step at a rate meant for a batch."""
    r.batch = 1
    return not any(isinstance(m, nn.BatchNorm2d) for m in r.model.modules())


def eval_mode(r: Recipe) -> bool:
    r.mode = "eval"
    return any(isinstance(m, nn.Dropout | nn.BatchNorm2d) for m in r.model.modules())


def dropout(r: Recipe) -> bool:
    put = replace(r, HIDDEN, lambda m: nn.Sequential(m, nn.Dropout(0.99)))
    for m in r.model.modules():
        if isinstance(m, nn.Dropout):
            m.p, put = 0.99, True
    return put


def double_softmax(r: Recipe) -> bool:
    r.model = nn.Sequential(r.model, nn.Softmax(1))
    return isinstance(r.loss_fn, nn.CrossEntropyLoss)


def sigmoid_twice(r: Recipe) -> bool:
    r.model = nn.Sequential(r.model, nn.Sigmoid())
    return isinstance(r.loss_fn, nn.BCEWithLogitsLoss)


def softmax_of_one(r: Recipe) -> bool:
    """A softmax over the only unit, before a loss of probabilities."""
    is_logit = isinstance(r.loss_fn, nn.BCEWithLogitsLoss)
    if is_logit:
        r.model, r.loss_fn = nn.Sequential(r.model, nn.Softmax(1)), nn.BCELoss()
        return True
    return isinstance(r.loss_fn, nn.BCELoss) and replace(r, (nn.Sigmoid,), lambda _: nn.Softmax(1))


def relu_at_the_end(r: Recipe) -> bool:
    r.model = nn.Sequential(r.model, nn.ReLU())
    return r.task in ("values", "logit", "classes") and r.name != "autoencoder"


def sigmoid_regression(r: Recipe) -> bool:
    r.model = nn.Sequential(r.model, nn.Sigmoid())
    return r.task == "values" and r.name != "autoencoder"


def logits_into_nll(r: Recipe) -> bool:
    """Raw scores where log-probabilities are due."""
    if isinstance(r.loss_fn, nn.CrossEntropyLoss):
        r.loss_fn = nn.NLLLoss()
        return True
    return isinstance(r.loss_fn, nn.NLLLoss) and replace(
        r, (nn.LogSoftmax,), lambda _: nn.Identity()
    )


def probabilities_into_nll(r: Recipe) -> bool:
    return isinstance(r.loss_fn, nn.NLLLoss) and replace(
        r, (nn.LogSoftmax,), lambda _: nn.Softmax(1)
    )


def wrong_loss(r: Recipe) -> bool:
    """Mean absolute error of a logit or probability against 0 and 1; Poisson for values."""
    if r.task in ("logit", "probability"):
        r.loss_fn = nn.L1Loss() if r.name == "segmentation" else nn.PoissonNLLLoss()
        return True
    if r.task == "values":
        r.loss_fn = nn.PoissonNLLLoss(log_input=False)
        return True
    return False


def missing_activation(r: Recipe) -> bool:
    return replace(r, HIDDEN, lambda _: nn.Identity())


def deep_sigmoids(r: Recipe) -> bool:
    """Six small layers of sigmoids in the place of the first activation."""
    is_plain = isinstance(r.model, nn.Sequential) and r.x.ndim == 2
    if not is_plain:
        return False
    first = next(i for i, m in enumerate(r.model) if isinstance(m, HIDDEN))
    width = next(m for m in r.model[first:] if isinstance(m, nn.Linear)).in_features
    inner = [m for _ in range(6) for m in (nn.LazyLinear(16), nn.Sigmoid())]
    r.model[first] = nn.Sequential(*inner, nn.Linear(16, width), nn.Sigmoid())
    r.model(r.x[:2])
    return True


def saturating(r: Recipe) -> bool:
    """Sigmoids fed by weights fifty times too large."""
    with torch.no_grad():
        for layer in layers(r)[:-1]:
            layer.weight.mul_(50)  # type: ignore[operator]
    has_norm = any(isinstance(m, nn.BatchNorm2d) for m in r.model.modules())
    return not has_norm and replace(r, HIDDEN, lambda _: nn.Sigmoid())


def dead_relu(r: Recipe) -> bool:
    with torch.no_grad():
        for layer in layers(r)[:-1]:
            if layer.bias is not None:
                layer.bias.fill_(-30)  # type: ignore[operator]
    return any(isinstance(m, nn.ReLU) for m in r.model.modules()) and not any(
        isinstance(m, nn.BatchNorm2d) for m in r.model.modules()
    )


def zero_init(r: Recipe) -> bool:
    with torch.no_grad():
        for p in weights(r):
            p.zero_()
    return True


def constant_init(r: Recipe) -> bool:
    with torch.no_grad():
        for p in r.model.parameters():
            p.fill_(0.5)
    return True


def huge_init(r: Recipe) -> bool:
    with torch.no_grad():
        for p in weights(r):
            p.mul_(100)
    return True


def frozen(r: Recipe) -> bool:
    """All but the last layer's bias asks for no gradient."""
    for p in list(r.model.parameters())[:-1]:
        p.requires_grad_(False)
    return True


class Detached(nn.Module):
    """A layer behind a cut: nothing before it gets a gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.detach())


def detached(r: Recipe) -> bool:
    last = layers(r)[-1]
    for parent in list(r.model.modules()):
        for name, child in list(parent.named_children()):
            if child is last:
                setattr(parent, name, Detached(child))
    return True


def is_real(r: Recipe) -> bool:
    return r.x.is_floating_point()


def unscaled_inputs(r: Recipe) -> bool:
    if is_real(r):
        r.x = r.x * 3000 + 20000
    return is_real(r)


def constant_input(r: Recipe) -> bool:
    r.x = r.x[:1].expand_as(r.x).clone()
    return r.name != "autoencoder"


def nan_in_data(r: Recipe) -> bool:
    if is_real(r):
        r.x = r.x.clone()
        r.x[::97] = float("nan")
    return is_real(r)


def shuffled_labels(r: Recipe) -> bool:
    order = torch.randperm(len(r.y), generator=torch.Generator().manual_seed(1))
    r.y = r.y[order]
    return True


def label_range(r: Recipe) -> bool:
    """Labels 1 and 2 where 0 and 1 are due."""
    r.y = r.y + 1
    return isinstance(r.loss_fn, nn.BCEWithLogitsLoss)


def target_scale(r: Recipe) -> bool:
    r.y = r.y * 1e4 + 3e4
    return r.task == "values"


OPERATORS: tuple[Operator, ...] = tuple(
    Operator(f.__name__, kinds, f)
    for f, kinds in (
        (lr_too_high, ("lr_too_high", "exploding")),
        (lr_too_low, ("lr_too_low", "epochs")),
        (wrong_sign, ("optimizer", "wrong_loss", "exploding")),
        (no_zero_grad, ("optimizer", "lr_too_high", "exploding")),
        (no_step, ("frozen", "optimizer")),
        (wrong_parameters, ("frozen", "optimizer")),
        (weight_decay, ("regularization",)),
        (momentum, ("optimizer", "lr_too_high", "exploding")),
        (batch_one, ("batch_size", "lr_too_high")),
        (eval_mode, ("other", "frozen", "architecture")),
        (dropout, ("regularization",)),
        (double_softmax, ("wrong_activation", "wrong_loss")),
        (sigmoid_twice, ("wrong_activation", "wrong_loss")),
        (softmax_of_one, ("wrong_activation",)),
        (relu_at_the_end, ("wrong_activation", "dead_relu")),
        (sigmoid_regression, ("wrong_activation", "data_scaling")),
        (logits_into_nll, ("wrong_loss", "wrong_activation")),
        (probabilities_into_nll, ("wrong_loss", "wrong_activation")),
        (wrong_loss, ("wrong_loss", "wrong_activation")),
        (missing_activation, ("missing_activation", "architecture")),
        (deep_sigmoids, ("vanishing", "wrong_activation")),
        (saturating, ("wrong_activation", "vanishing", "initialization")),
        (dead_relu, ("dead_relu", "initialization")),
        (zero_init, ("initialization",)),
        (constant_init, ("initialization",)),
        (huge_init, ("initialization", "exploding")),
        (frozen, ("frozen", "optimizer")),
        (detached, ("frozen", "architecture")),
        (unscaled_inputs, ("data_scaling",)),
        (constant_input, ("data_values",)),
        (nan_in_data, ("data_values", "numeric_nan")),
        (shuffled_labels, ("data_labels",)),
        (label_range, ("data_labels", "wrong_loss")),
        (target_scale, ("data_scaling",)),
    )
)
BY_NAME = {operator.name: operator for operator in OPERATORS}
