"""Muon in float32: momentum whose direction is orthogonalised before it is applied.

The same update as `torch.optim.Muon` (Jordan et al. 2024, the quintic Newton-Schulz iteration),
which computes in bfloat16: on a processor without bfloat16 units that alone is eight times the
rest of a training step. Here matrices of one shape are also orthogonalised together. Only
`pretrain` uses it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import torch
from typing_extensions import override

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS: Final = 5
_SMALLEST_NORM: Final = 1e-7


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Push the singular values of each matrix of a (count, rows, columns) stack towards one."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_SMALLEST_NORM)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return cast("torch.Tensor", x.mT if tall else x)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the rate grows with sqrt(rows / columns) if tall."""

    def __init__(
        self, matrices: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float
    ) -> None:
        """Take two-dimensional parameters only; the decay is decoupled, per unit of rate."""
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients that stand; a closure would be ignored."""
        del closure
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                rate = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
                directions = orthogonalised(
                    torch.stack([self._direction(m, momentum=group["momentum"]) for m in matrices])
                )
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction, alpha=-rate)

    def _direction(self, matrix: torch.nn.Parameter, *, momentum: float) -> torch.Tensor:
        gradient = cast("torch.Tensor", matrix.grad)
        buffer = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)
