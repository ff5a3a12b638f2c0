"""Which channels arrive at another size than in training."""

import numpy as np
import pytest

from faultlens.models.drift import ChannelScales

torch = pytest.importorskip("torch")
channel_scales = pytest.importorskip("faultlens.models.pytorch_channels").channel_scales
nn = torch.nn
pytestmark = pytest.mark.torch


class Scaled(nn.Module):
    """Maps times a factor a channel."""

    def __init__(self, factor):
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, x):
        return x * self.factor[:, None, None]


class Net(nn.Module):
    """Two readers of one tensor, as where a residual block begins."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        nn.init.constant_(self.stage[0].bias, 0.5)  # every channel is alive
        self.main = nn.Sequential(nn.Conv2d(6, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16))
        self.side = nn.Sequential(nn.Conv2d(6, 16, 1, stride=2), nn.BatchNorm2d(16))

    def forward(self, x):
        x = self.stage(x)
        return (self.main(x) + self.side(x)).mean((2, 3))


def trained(seed: int = 0):
    """A network that remembers the very pictures that are returned."""
    torch.manual_seed(seed)
    net, rng = Net(), np.random.default_rng(seed)
    batches = [rng.random((32, 3, 12, 12)).astype(np.float32) for _ in range(3)]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        for batch in batches:
            net.train()(torch.from_numpy(batch))
    return net.eval(), batches


@pytest.mark.parametrize("factor", [3.0, 0.1, 0.0])
def test_scaled_channels_are_found_with_their_factors(factor):
    net, batches = trained()
    wanted = [1.0, factor, 1.0, factor, 1.0, 1.0]
    net.stage = nn.Sequential(*net.stage, Scaled(wanted))
    found = channel_scales(net, batches, "main.1")
    np.testing.assert_allclose(found.factors, wanted, rtol=0.1, atol=0.05)
    assert found.is_off.tolist() == [w != 1 for w in wanted]
    assert found.source in ("stage", "stage.2")
    assert found.unexplained < 0.02


def test_silent_channels_are_read_where_they_were_alive():
    net, batches = trained()
    alive = np.concatenate([net.stage(torch.from_numpy(b)).detach().mean((2, 3)) for b in batches])
    net.stage = nn.Sequential(*net.stage, Scaled([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    found = channel_scales(net, batches, "main.1")
    np.testing.assert_allclose(found.pooled, alive, rtol=1e-5)


def test_a_sound_network_has_no_channel_off():
    net, batches = trained()
    assert not channel_scales(net, batches, "main.1").is_off.any()


def test_other_weights_are_not_explained_by_channels():
    net, batches = trained()
    torch.manual_seed(9)
    net.main[0].reset_parameters()
    found = channel_scales(net, batches, "main.1")
    assert found.unexplained > 0.3
    assert not found.is_off.any()


def test_lost_statistics_are_no_scaled_channels():
    net, batches = trained()
    for part in (net.main, net.side):
        part[1].reset_running_stats()
        part[1].running_mean.zero_()
    assert not channel_scales(net, batches, "main.1").is_off.any()


def test_layers_without_a_convolution_before_them_say_nothing():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    x = np.random.default_rng(0).random((8, 3, 6, 6)).astype(np.float32)
    assert channel_scales(net, [x], "0") is None
    # The picture itself is no module's output.
    assert channel_scales(net[1:], [x], "1") is None


def test_nearly_all_channels_off_is_a_wrong_memory():
    pooled = np.zeros((2, 4))
    some = ChannelScales("a", "b", np.array([3.0, 1, 1, 1]), 0.0, pooled)
    assert some.is_off.tolist() == [True, False, False, False]
    assert not ChannelScales("a", "b", np.full(4, 3.0), 0.0, pooled).is_off.any()
    assert not ChannelScales("a", "b", some.factors, 0.5, pooled).is_off.any()
