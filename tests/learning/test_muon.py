import pytest
import torch
from torch import nn

from fastcv.learning.muon import Muon, OrthogonalMomentum, orthogonalize


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2)
    )


def train(net, step, steps=4):
    torch.manual_seed(1)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(torch.randn(6, 3, 8, 8)), torch.arange(6) % 2)
        loss.backward()
        step()
        net.zero_grad()


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 6, 6)])
def test_orthogonalize_keeps_the_singular_vectors_and_evens_the_values(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.tensor([1e-3, 1.0, 1e3])[: shape[0], None, None]
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalize(matrices)
    values = u.transpose(1, 2) @ found @ vh.transpose(1, 2)  # diagonal if the vectors are kept
    assert torch.allclose(values, torch.diag_embed(values.diagonal(dim1=1, dim2=2)), atol=1e-4)
    large = s / s.norm(dim=1, keepdim=True) > 0.02
    assert large.float().mean() > 0.8
    assert values.diagonal(dim1=1, dim2=2)[large].min() > 0.6
    assert values.diagonal(dim1=1, dim2=2).max() < 1.3


def test_orthogonalize_equals_torchs():
    torch_muon = pytest.importorskip("torch.optim._muon")
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    settings = ((3.4445, -4.7750, 2.0315), 5, 1e-7)
    for matrix, found in zip(matrices, orthogonalize(matrices), strict=True):
        expected = torch_muon._zeropower_via_newtonschulz(matrix, *settings).float()
        torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)  # torch's is bfloat16


def test_orthogonalize_of_nothing_is_nothing():
    assert torch.equal(orthogonalize(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("outputs", [8, 40])  # wide and tall matrices
def test_filters_follow_torchs_muon(outputs, nesterov):
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(outputs, 2, 3, 3))
    flat = nn.Parameter(filters.detach().flatten(1).clone())
    settings = {"momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.5}
    ours = Muon(**settings)([filters], lr=0.1)
    torchs = torch.optim.Muon([flat], lr=0.1, **settings)
    for _ in range(5):
        gradient = torch.randn_like(filters)
        filters.grad = gradient.to(memory_format=torch.channels_last)
        flat.grad = gradient.flatten(1)
        ours.step()
        torchs.step()
    torch.testing.assert_close(filters.detach().flatten(1), flat.detach(), atol=0.02, rtol=0)
    assert (filters.detach().flatten(1) - flat.detach()).norm() < 0.01 * flat.norm()


def test_all_else_follows_torchs_sgd():
    ours, oracle = small_net(), small_net()
    scales = {1: 3.0, 2: 0.25}
    muon = Muon(weight_decay=0.02, other_momentum=0.85, bias_scale=3.0, matrix_scale=0.25)
    optimizer = muon(ours.parameters(), lr=0.1)
    # A scaled gradient is a scaled rate with a weight decay that is scaled back.
    sgd = torch.optim.SGD(
        [
            {"params": [p], "lr": 0.1 * scales[p.ndim], "weight_decay": 0.02 / scales[p.ndim]}
            for p in oracle.parameters()
            if p.ndim < 3
        ],
        momentum=0.85,
        nesterov=True,
    )

    def both():
        for p, q in zip(ours.parameters(), oracle.parameters(), strict=True):
            q.grad = p.grad.clone()
        optimizer.step()
        sgd.step()

    train(ours, both)
    for p, q in zip(ours.parameters(), oracle.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6) == (p.ndim < 3)


def test_keep_norm_gives_filters_a_norm_of_one_on_average_before_the_step():
    filters = nn.Parameter(7 * torch.randn(5, 2, 3, 3))
    direction = (filters / filters.norm()).detach()
    optimizer = Muon(keep_norm=True)([filters], lr=0.0)
    filters.grad = torch.randn_like(filters)
    optimizer.step()
    assert filters.flatten(1).norm(dim=1).square().mean().item() == pytest.approx(1.0)
    torch.testing.assert_close((filters / filters.norm()).detach(), direction)


def test_memory_format_changes_nothing():
    plain, last = small_net(), small_net().to(memory_format=torch.channels_last)
    for net in (plain, last):
        optimizer = Muon(keep_norm=True)(net.parameters(), lr=0.1)
        train(net, optimizer.step)
    for p, q in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3)


def test_parameters_without_gradient_stay_as_they_are():
    net = small_net()
    net[1].requires_grad_(False)
    before = [p.detach().clone() for p in net[1].parameters()]
    optimizer = Muon(keep_norm=True, weight_decay=0.1)(net.parameters(), lr=0.1)
    train(net, optimizer.step)
    assert all(torch.equal(p, q) for p, q in zip(net[1].parameters(), before, strict=True))


def test_rate_may_be_a_tensor():
    number, tensor = small_net(), small_net()
    for net, lr in ((number, 0.1), (tensor, torch.tensor(0.1))):
        optimizer = Muon(weight_decay=0.1)(net.parameters(), lr=0.1)
        for group in optimizer.opt.param_groups:
            group["lr"] = lr
        train(net, optimizer.step)
    for p, q in zip(number.parameters(), tensor.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_state_goes_through_a_checkpoint(tmp_path):
    straight, resumed = small_net(), small_net()
    settings = Muon(momentum=0.6, keep_norm=True)
    optimizer = settings(straight.parameters(), lr=0.1)
    train(straight, optimizer.step)
    torch.save((straight.state_dict(), optimizer.state_dict()), tmp_path / "file")
    weights, state = torch.load(tmp_path / "file", weights_only=True)
    resumed.load_state_dict(weights)
    other = settings(resumed.parameters(), lr=0.1)
    other.load_state_dict(state)
    train(straight, optimizer.step)
    train(resumed, other.step)
    assert all(map(torch.equal, straight.parameters(), resumed.parameters()))


def test_groups_are_filters_biases_and_the_head():
    optimizer = Muon()(small_net().parameters(), lr=slice(None, 0.3))
    assert isinstance(optimizer.opt, OrthogonalMomentum)
    dimensions = [{p.ndim for p in group["params"]} for group in optimizer.opt.param_groups]
    assert dimensions == [{4}, {1}, {2}]
    assert [group["lr"] for group in optimizer.opt.param_groups] == [0.3] * 3


def test_given_groups_or_no_filters_are_refused():
    net = small_net()
    with pytest.raises(ValueError, match="must make the parameter groups itself, got 2"):
        Muon()([list(net[0].parameters()), list(net[1].parameters())], lr=0.1)
    with pytest.raises(ValueError, match="must have filters to train"):
        Muon()(net[4].parameters(), lr=0.1)
