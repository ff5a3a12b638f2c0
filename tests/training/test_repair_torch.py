"""Repairs of PyTorch models: made on a copy, and proven by a replay."""

import pytest

from faultlens.training.repair import Change, Repair

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def of(kind, **parameters):
    return Repair((Change(kind, "", kind, parameters),), ())


def training(model, x, y, loss="mse", lr=0.05, **changes):
    from faultlens.training.repair_torch import Training

    fn = {"mse": torch.nn.functional.mse_loss, "cross_entropy": torch.nn.functional.cross_entropy}
    batches = list(zip(torch.split(x, 32), torch.split(y, 32), strict=True))
    return Training(model, lambda p: torch.optim.SGD(p, lr), loss, fn[loss], batches, **changes)


def data(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(128, 4, generator=draw)
    return x, (x[:, :1] > 0).float()


def test_a_watched_fault_is_repaired_and_verified():
    from faultlens.training.repair_torch import verify_repair
    from faultlens.training.watch import watch

    torch.manual_seed(0)
    x, y = data()
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Softmax(-1)
    )
    state = {k: v.clone() for k, v in net.state_dict().items()}
    t = training(net, x, y, n_steps=60)
    optimizer = t.optimizer(net.parameters())
    with watch(net, optimizer, t.loss_fn, on_fault="ignore") as w:
        for a, b in t.batches * 3:
            loss = t.loss_fn(net(a), b)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss, inputs=a, targets=b)
    found = w.findings[0]
    assert (found.layer, found.causes[0].kind) == ("3", "wrong_activation")
    whole = found.repairs[0]
    assert not verify_repair(Repair((), ()), t, state=state).is_below_trivial
    proven = verify_repair(whole, t, state=state)
    assert proven.is_below_trivial
    assert proven.gain > 0.5
    assert proven.not_made == ()
    assert torch.equal(net[0].weight, state["0.weight"])


def test_changes_of_a_model():
    from faultlens.training.repair_torch import apply

    nn = torch.nn
    x, y = data()
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Sigmoid(),
                        nn.Linear(8, 1))  # fmt: skip
    net[0].weight.requires_grad_(False)
    parts = Repair(
        of("insert_activations", fn="relu").changes
        + of("set_hidden_activations", fn="relu", of=["sigmoid"]).changes
        + of("remove_dropout").changes
        + of("unfreeze").changes
        + of("set_last_activation", fn="sigmoid").changes
        + of("scale_inputs", how="standardise").changes
        + of("set_batch_size", batch_size=64).changes
        + of("pray").changes,
        (),
    )
    changed = apply(parts, training(net, 100 * x + 5, y))
    leaves = [type(m).__name__ for m in changed.model.modules() if not list(m.children())]
    assert leaves == ["Linear", "ReLU", "Identity", "Linear", "ReLU", "Linear", "Sigmoid"]
    assert all(p.requires_grad for p in changed.model.parameters())
    rows = torch.cat([a for a, _ in changed.batches])
    assert rows.mean(0).abs().max() < 1e-5
    assert len(changed.batches) == 2
    assert changed.unknown == ["pray"]
    assert not net[0].weight.requires_grad


def test_nothing_to_replay():
    from faultlens.errors import InputError
    from faultlens.training.repair_torch import verify_repair

    x, y = data()
    t = training(torch.nn.Linear(4, 1), x, y)
    t.batches = []
    with pytest.raises(InputError, match="at least one batch"):
        verify_repair(Repair((), ()), t)


def test_a_trained_network_is_taken_back_to_its_start(tmp_path):
    from faultlens.training.start import load_start
    from faultlens.training.watch import watch

    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sgd = torch.optim.SGD(net.parameters(), lr=0.5)
    with watch(net, sgd, "mse", trace=tmp_path, on_fault="ignore").keep_start() as w:
        loss = net(torch.randn(8, 4)).square().mean()
        loss.backward()
        sgd.step()
        w.step(loss)
    assert not torch.equal(net[0].weight, before["0.weight"])
    for kept in (w.initial_weights, load_start(tmp_path)):
        assert kept.keys() == before.keys()
        assert all(torch.equal(kept[name], before[name]) for name in before)


def test_a_start_that_cannot_be_kept_or_read(tmp_path):
    from faultlens.errors import InputError, StoreError
    from faultlens.training.start import FILE, copy_start, load_start
    from faultlens.training.watch import watch

    with pytest.raises(InputError, match=r"none yet in 'weight'; run a batch"):
        copy_start(torch.nn.LazyLinear(2))
    net = torch.nn.Linear(2, 1)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, sgd, on_fault="ignore") as w:
        loss = net(torch.ones(2, 2)).sum()
        loss.backward()
        sgd.step()
        w.step(loss)
        with pytest.raises(InputError, match="before the first step, got 1"):
            w.keep_start()
    with pytest.raises(StoreError, match=r"watch it with keep_start\(\)"):
        load_start(tmp_path)
    (tmp_path / FILE).write_bytes(b"no such thing")
    with pytest.raises(StoreError, match="must be the start of a training"):
        load_start(tmp_path)
