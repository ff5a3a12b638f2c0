"""What channels carry."""

import numpy as np
import pytest

from faultlens.localize.channels import carried


def test_each_concept_rests_on_its_own_channels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 8)) * rng.uniform(0.1, 10, 8)
    z = x / x.std(axis=0)
    s = np.stack([z[:, 0] + z[:, 1], z[:, 2] + z[:, 5], z[:, 0] + z[:, 5]], axis=1)
    share = carried(x, np.arange(8) < 2, s)
    assert share == pytest.approx([1.0, 0.0, 0.5], abs=0.05)


def test_what_channels_do_not_tell_has_no_share():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 4))
    s = np.stack([x[:, 0], rng.normal(size=300)], axis=1)
    assert np.isnan(carried(x, np.ones(4, bool), s)).tolist() == [False, True]


def test_channels_that_never_change_do_not_break_it():
    x = np.random.default_rng(2).normal(size=(200, 3))
    x[:, 1] = 7
    assert carried(x, np.array([True, True, False]), x[:, :1]) == pytest.approx([1.0], abs=0.01)
