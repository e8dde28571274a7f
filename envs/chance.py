"""Chance as a pure function: counter-based random numbers for whole batches of seeds.

A draw depends on (seed, purpose, counters) and on nothing else, so it is the same on a CPU and on a GPU, in a batch or alone, whoever
plays it (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The mixing function is the output step of SplitMix64
(Steele, Lea and Flood 2014): `fold(seed, c)` is the c-th output of a SplitMix64 generator seeded with `seed`. It passes the project's own
statistical tests; it is not for cryptography.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Purpose(IntEnum):
    """What a draw is for. Different purposes are different streams; the numbers are part of every recording, so never renumber."""

    TRIAL = 1
    EPISODE = 2
    OCCUPANT = 3
    ACTION = 4
    NOISE = 5
    CONTINUE = 6
    PARAMETERS = 8
    MINIBATCH = 9
    EVALUATION = 10
    GAME = 11


def _signed(value: int) -> int:
    """The same 64 bits, read as a signed number (what torch.int64 holds)."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = 0x9E3779B97F4A7C15
_GOLDEN_SIGNED = _signed(_GOLDEN)
_FACTOR_1 = _signed(0xBF58476D1CE4E5B9)
_FACTOR_2 = _signed(0x94D049BB133111EB)


def mix(bits: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """SplitMix64's finaliser: a bijection of 64 bits in which every input bit moves every output bit about half the time."""
    bits = _xor_shifted(bits, 30).mul_(_FACTOR_1)
    bits = _xor_shifted(bits, 27).mul_(_FACTOR_2)
    return _xor_shifted(bits, 31)


def _xor_shifted(bits: Int64[Tensor, "..."], by: int) -> Int64[Tensor, "..."]:
    """A new tensor; what happens in place saves half the time of a draw."""
    # torch shifts signed numbers arithmetically; the mask makes the shift logical.
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1).bitwise_xor_(bits)


def fold(seed: Int64[Tensor, "..."], *counters: int | Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """A new seed from a seed and counters, one after another (order matters). Shapes broadcast."""
    for counter in counters:
        if isinstance(counter, Tensor):
            seed = mix(seed + (counter + 1) * _GOLDEN_SIGNED)
        else:
            seed = mix(seed + _signed((int(counter) + 1) * _GOLDEN))
    return seed


def luck_of_trial(row: Int64[Tensor, "B"], trial: int | Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
    """A row's first trial has the row's seed; later ones follow from it."""
    later = fold(row, Purpose.TRIAL, trial)
    if isinstance(trial, int):
        return later if trial else row
    return torch.where(trial == 0, row, later)


def luck_of_episode(trial_luck: Int64[Tensor, "B"], episode: int | Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
    """All that a game's chance depends on in an episode of a trial."""
    return fold(trial_luck, Purpose.EPISODE, episode)


def luck_of_seat(luck: Int64[Tensor, "N"], seat: Int64[Tensor, "N"]) -> Int64[Tensor, "N"]:
    """All that the chance of whoever sits there depends on. luck: the trial's, or the episode's for whoever starts anew with each."""
    return fold(luck, Purpose.OCCUPANT, seat)


def uniform(seed: Int64[Tensor, "..."], *counters: int | Int64[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Numbers in [0, 1): multiples of 2^-24, so exact in float32 on every device."""
    return (fold(seed, *counters) >> 40).bitwise_and_((1 << 24) - 1).to(torch.float32).mul_(2.0**-24)


def integers(seed: Int64[Tensor, "..."], below: int, *counters: int | Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """Whole numbers 0 .. below-1, 1 <= below < 2^31 (multiply and shift; the bias is under below / 2^32)."""
    if not 1 <= below < 2**31:
        raise ValueError(f"integers: below is {below}; want a whole number from 1 to {2**31 - 1}")
    return (((fold(seed, *counters) >> 32) & 0xFFFFFFFF) * below) >> 32


def permutation(seed: Int64[Tensor, "..."], length: int, *counters: int | Int64[Tensor, "..."]) -> Int64[Tensor, "... length"]:
    """A random order of 0 .. length-1 for every seed."""
    each = torch.arange(length, device=seed.device)
    return fold(fold(seed, *counters)[..., None], each).argsort(-1)


def categorical(probs: Float[Tensor, "... A"], draw: Float[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """The choices that uniform draws pick by the inverse of the cumulative distribution. A choice of probability 0 is never picked.

    probs need not sum to exactly 1.
    """
    cumulative = probs.cumsum(-1)
    total = cumulative[..., -1:]
    # The second condition keeps rounding from stepping past the last choice that has any probability.
    passed = (cumulative <= draw[..., None] * total) & (cumulative < total)
    return passed.sum(-1)


def seeds_of(
    run_seed: int, purpose: Purpose, count: int, *counters: int, first: int = 0, device: torch.device | str = "cpu"
) -> Int64[Tensor, "N"]:
    """Seeds number first .. first+count-1 of a stream of a run. Which machine asks for which slice makes no difference."""
    root = fold(torch.tensor(_signed(run_seed), device=device), purpose, *counters)
    return fold(root, torch.arange(first, first + count, device=device))
