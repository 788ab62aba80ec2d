"""Initial weights, if a report did not use torch's defaults."""

from torch import nn


def he_normal(net: nn.Module) -> None:
    """Draw every convolution's weights as He et al. do for ReLU nets, and set its bias to zero.

    Weights come from N(0, 2 / fan_out), fan_out = output channels x kernel area, which keeps the
    gradient's variance the same at every depth. Batch norms already start at weight 1 and bias 0,
    and linear layers keep torch's default.

    Source: He et al. 2015, arXiv:1502.01852, section 2.2.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
