import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from fastcv import nets
from fastcv.learning.models import resnet10
from fastcv.predict import features, grad_cam


class Linear(nn.Module):
    """A net that is linear in its maps: convolution, mean, linear head."""

    def __init__(self, activation: nn.Module | None = None):
        super().__init__()
        self.maps = nn.Conv2d(2, 5, 3, padding=1)
        self.activation = activation or nn.Identity()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.activation(self.maps(x)).mean(dim=(2, 3)))


@pytest.fixture
def x():
    return torch.randn(4, 2, 6, 7, generator=torch.Generator().manual_seed(0))


CLASSES = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU(inplace=True)])
def test_cam_of_a_linear_head_is_its_weights_times_the_maps(x, activation):
    torch.manual_seed(1)
    net = Linear(activation).eval().requires_grad_(False)
    maps = F.conv2d(x, net.maps.weight, net.maps.bias, padding=1)
    maps = maps if activation is None else maps.clamp(min=0)
    weighed = torch.einsum("bk,bkhw->bhw", net.head.weight[CLASSES], maps) / (6 * 7)
    assert torch.allclose(grad_cam(net, x, CLASSES), weighed.clamp(min=0), atol=1e-6)


def test_cam_of_a_resnet_is_that_of_gradients_taken_by_hand():
    torch.manual_seed(2)
    net = resnet10().eval()
    x, classes = torch.randn(2, 3, 64, 64), torch.tensor([3, 7])
    y = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = net.layer4(net.layer3(net.layer2(net.layer1(y))))  # (2, 512, 2, 2)
    logits = net.fc(maps.mean(dim=(2, 3)))
    expected = []
    for image, label in enumerate(classes):  # one image, one channel, at a time
        (gradient,) = torch.autograd.grad(logits[image, label], maps, retain_graph=True)
        cam = sum(gradient[image, k].mean() * maps[image, k] for k in range(512))
        expected.append(cam.clamp(min=0))
    found = grad_cam(net, x, classes)
    assert found.shape == (2, 2, 2)
    assert torch.allclose(found, torch.stack(expected), atol=1e-6)


def test_a_layer_of_one_pixel_is_passed_over():
    net = resnet18().eval()
    assert grad_cam(net, torch.randn(1, 3, 64, 64), torch.tensor([0])).shape == (1, 2, 2)
    assert grad_cam(net, torch.randn(1, 3, 32, 32), torch.tensor([0])).shape == (1, 2, 2)


def test_the_evidence_lies_where_the_object_is():
    net = Linear().eval()
    with torch.no_grad():
        net.maps.weight.zero_()
        net.maps.weight[0, 0, 1, 1] = 1.0
        net.maps.bias.zero_()
        net.head.weight[1] = torch.tensor([1.0, 0, 0, 0, 0])
    x = torch.zeros(1, 2, 8, 8)
    x[0, 0, 2, 5] = 1.0
    (cam,) = grad_cam(net, x, torch.tensor([1]))
    assert cam.argmax() == 2 * 8 + 5
    assert cam.count_nonzero() == 1


@pytest.mark.parametrize("name", nets.__all__)
def test_every_net_is_explained_and_left_as_it_was(name):
    net = getattr(nets, name)(classes=3, size=32).eval().requires_grad_(False)
    x = torch.randn(2, 3, 32, 32)
    before, logits = x.clone(), net(x)
    cam = grad_cam(net, x, torch.tensor([0, 1]))
    assert cam.shape[0] == 2
    assert min(cam.shape[1:]) > 1
    assert cam.min() >= 0
    assert cam.isfinite().all()
    assert torch.equal(x, before)
    assert torch.equal(net(x), logits)
    assert not any(each.requires_grad or each.grad is not None for each in net.parameters())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in net.modules())


@pytest.fixture
def hurried():
    """Threads take turns a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 1000)
    yield
    sys.setswitchinterval(usual)


def test_other_threads_may_run_the_net_meanwhile(hurried):
    net = resnet10().eval().requires_grad_(False)
    x, other = torch.randn(2, 3, 64, 64)[:, None]
    expected = [grad_cam(net, x, torch.tensor([label])) for label in range(10)]
    given, logits, done = features(net, x), net(other), Event()

    def predict():
        with torch.inference_mode():
            while not done.is_set():
                assert torch.allclose(net(other), logits, atol=1e-5)

    def explain():
        for label in [*range(10)] * 3:
            cam = grad_cam(net, x, torch.tensor([label]))
            assert torch.allclose(cam, expected[label], atol=1e-5)
            assert torch.allclose(features(net, x), given, atol=1e-5)

    with ThreadPoolExecutor(4) as threads:
        predicting = [threads.submit(predict) for _ in range(2)]
        explaining = [threads.submit(explain) for _ in range(2)]
        try:
            for each in explaining:
                each.result()
        finally:
            done.set()
        for each in predicting:
            each.result()


def test_a_net_without_maps_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(ValueError, match="needs a layer that returns maps"):
        grad_cam(net, torch.randn(1, 3, 2, 2), torch.tensor([0]))


def test_features_are_what_the_last_linear_layer_is_given(x):
    net = Linear().eval()
    expected = net.maps(x).mean(dim=(2, 3))
    found = features(net, x)
    assert torch.allclose(found, expected)
    assert torch.allclose(net.head(found), net(x))


def test_features_of_a_net_without_a_linear_layer_are_its_output():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, 2, 4, 4)
    assert torch.allclose(features(net, x), net(x))
