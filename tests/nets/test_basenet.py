import pytest

from fastcv.nets import BaseNet, MnistCNN


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_basenet_has_the_starters_parameters():
    assert count(BaseNet(classes=100)) == 28_022


def test_basenet_norm_adds_a_weight_and_a_bias_per_channel():
    assert count(BaseNet(classes=100, norm=True)) == 28_022 + 2 * (6 + 16)


@pytest.mark.parametrize(("size", "features"), [(16, 16), (32, 400), (64, 16 * 13 * 13)])
def test_basenet_linear_fits_the_size(size, features):
    assert BaseNet(classes=100, size=size).classifier[0].in_features == features


def test_mnist_cnn_parameters_by_hand():
    convolutions = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64
    linears = (64 * 12 * 12 + 1) * 128 + (128 + 1) * 10
    assert count(MnistCNN(classes=10, channels=1, size=28)) == convolutions + linears == 1_199_882


def test_mnist_cnn_dropout_follows_every_hidden_layer():
    net = MnistCNN(classes=10, channels=1, size=28, dropout=0.2)
    names = [type(layer).__name__ for layer in [*net.features, *net.classifier]]
    expected = "Conv2d ReLU Dropout Conv2d MaxPool2d ReLU Dropout Linear ReLU Dropout Linear"
    assert names == expected.split()
    assert {layer.p for layer in net.modules() if type(layer).__name__ == "Dropout"} == {0.2}
