"""The convolution that is compiled for a CPU, against the plain one."""

import pytest
import torch

from memory.convolution import convolve_plainly
from memory.kernels import convolution_numba


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_steps_that_a_reset_cuts_short_are_mixed_as_if_each_had_been_masked(steps):
    luck = torch.Generator().manual_seed(steps)
    past, weight, weighting = (
        torch.randn(*shape, generator=luck, dtype=torch.float64) for shape in ((3, steps + 3, 5), (4, 5), (3, steps, 5))
    )
    # Half of them may look back all the way.
    reach = torch.randint(6, (3, steps), generator=luck)
    learned = [past.requires_grad_(), weight.requires_grad_()]
    results = []
    for convolve in (convolution_numba.convolve, convolve_plainly):
        mixed = convolve(*learned, reach)
        results.append([mixed, *torch.autograd.grad(mixed, learned, weighting)])
    for mine, want in zip(*results, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-12, atol=1e-12)


def test_what_lies_before_a_reset_is_not_even_multiplied_by_zero():
    past = torch.tensor([[[torch.inf], [torch.nan], [2.0], [3.0]]])
    mixed = convolution_numba.convolve(past, torch.tensor([[1.0], [10.0], [100.0]]), torch.tensor([[0, 1]]))
    assert mixed.flatten().tolist() == [2.0, 23.0]
