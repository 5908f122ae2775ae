"""Batch norms that no longer learn, folded into the convolutions before them, to find faster.

A frozen norm is a factor and an offset for each channel: inside the convolution they cost no pass
over a map of their own. The results differ by rounding (1e-6 of the largest feature).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


@torch.no_grad()
def fold(convolution: nn.Conv2d, norm: Any) -> None:
    """Make `convolution` do what the batch norm `norm` does after it."""
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def unstride(first: nn.Conv2d, shortcut: nn.Conv2d) -> int:
    """Take the stride out of the 1x1 convolutions a stage begins with, and return it.

    The stage then wants its input with that step: three of four pooled cells are never looked at.
    """
    if first.kernel_size != (1, 1) or first.stride != shortcut.stride:
        return 1
    step = first.stride[0]
    first.stride = shortcut.stride = (1, 1)
    return step


def every(step: int, maps: Tensor) -> Tensor:
    """[P, C, H, W] -> [P, C, H / step, W / step], channels innermost."""
    return maps[:, :, ::step, ::step].contiguous(memory_format=torch.channels_last)
