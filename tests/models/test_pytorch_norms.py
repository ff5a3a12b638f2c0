"""What normalisation layers remember, against what they are fed."""

import numpy as np
import pytest

from faultlens.models.drift import MIN_DRIFT, NormDrift, first_break

torch = pytest.importorskip("torch")
norm_drift = pytest.importorskip("faultlens.models.pytorch_norms").norm_drift
nn = torch.nn
pytestmark = pytest.mark.torch


def network(seed: int = 0):
    """A small network whose statistics were gathered on the very pictures that are returned."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    batches = [rng.normal(0, 1, (32, 3, 12, 12)).astype(np.float32) for _ in range(4)]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of all batches
    with torch.no_grad():
        for batch in batches:
            net.train()(torch.from_numpy(batch))
    return net.eval(), batches


def test_a_sound_network_knows_its_input():
    net, batches = network()
    found = norm_drift(net, batches)
    assert [d.layer for d in found] == ["1", "4", "7"]
    assert [d.n for d in found] == [128] * 3
    assert max(d.size for d in found) < 0.1
    assert first_break(found) is None


def test_batches_make_no_difference():
    net, batches = network()
    one = norm_drift(net, [np.concatenate(batches)])
    for a, b in zip(norm_drift(net, batches), one, strict=True):
        assert a.shift == pytest.approx(b.shift, abs=1e-6)
        assert a.stretch == pytest.approx(b.stretch, abs=1e-6)


@pytest.mark.parametrize(("at", "expected"), [(0, "1"), (3, "4"), (6, "7")])
def test_new_weights_show_in_the_next_layer(at, expected):
    net, batches = network()
    with torch.no_grad():
        net[at].weight.mul_(3)
    found = norm_drift(net, batches)
    assert found[first_break(found)].layer == expected


@pytest.mark.parametrize("at", [1, 4])
def test_lost_statistics_show_in_their_own_layer(at):
    net, batches = network()
    with torch.no_grad():
        net[at].running_mean += 2
    found = norm_drift(net, batches)
    assert found[first_break(found)].layer == str(at)


def test_nothing_is_changed_and_networks_without_such_layers_say_nothing():
    net, batches = network()
    before = {n: v.clone() for n, v in net.state_dict().items()}
    norm_drift(net, batches)
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
    assert not any(m._forward_pre_hooks for m in net.modules())
    assert norm_drift(nn.Sequential(nn.Conv2d(3, 2, 3)), batches) == []


def test_the_break_is_the_first_layer_beyond_the_threshold():
    calm, loud = NormDrift("a", 0.0, MIN_DRIFT / 2, 1), NormDrift("b", MIN_DRIFT, 0.0, 1)
    assert first_break([calm, calm, loud, calm]) == 2
    assert first_break([calm]) is None
    assert first_break([]) is None
