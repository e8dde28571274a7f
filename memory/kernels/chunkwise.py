"""Matrix-valued recurrences over all steps at once, by chunks, with resets anywhere.

    gated:  S_t = diag(g_t) S_{t-1} + k_t v_t^T                                      Yang et al. 2023, Gated Linear Attention, section 4
    delta:  S_t = (I - beta_t k_t k_t^T) diag(g_t) S_{t-1} + beta_t k_t v_t^T        Yang et al. 2024, Parallelizing the Delta Rule
    both:   o_t = S_t^T q_t

Keys index rows here: S is [keys, values], the transpose of the papers'. Within a chunk everything is matrix products: step t reads what
step s <= t wrote through q_t . (k_s * product of g over (s, t]), and the delta rule is the gated one that writes u_t instead of v_t, where
the u of a chunk solve one triangular system (the papers' UT transform). Only the chunks' first states are taken one after another.

On a CPU Numba's version takes the steps in order instead. Compiled ones are differentiable once.

A reset is g_t = 0. Products of g are exponentials of sums of log g over just the steps in question: never quotients, nor differences of
longer sums, so that nothing overflows and little is lost, however strong the decay. The chunk's length is no part of the function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from memory.kernels.choice import numba_version, triton_version

# A power of two, for halving. Longer chunks spend more within chunks than they save between them.
CHUNK = 32


def matrix_scan(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    beta: Float[Tensor, "B T H"] | None,
    log_g: Float[Tensor, "B T H #K"] | None,
    state: Float[Tensor, "B H K V"],
    reset: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """All o_1..o_T and S_T from S_0 = state, in the type of state: by the delta rule, or by the gated one where beta is None.

    log_g <= 0: per key, per head (last axis 1), or None for no decay. Of the delta rule keys should have length one and beta lie in
    [0, 2], or the state may grow without bound.
    """
    q, k, v = (side.to(state.dtype) for side in (q, k, v))
    beta, log_g = (None if side is None else side.to(state.dtype) for side in (beta, log_g))
    if q.shape[1] == 0:
        return v, state
    fast = triton_version("chunkwise", state) or numba_version("chunkwise", state)
    if fast is None:
        return scan_plainly(q, k, v, beta, log_g, state, reset)
    o, after = fast.matrix_scan(q, k, v, beta, log_g, state, reset)
    return o, after


def scan_plainly(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor | None, log_g: Tensor | None, state: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    steps = q.shape[1]
    # Autocast would round the products.
    with torch.autocast(q.device.type, enabled=False):
        if steps == 1:
            return _step(q, k, v, beta, log_g, state, reset)
        chunk = min(CHUNK, 1 << (steps - 1).bit_length())
        q, k, v, begins = (_in_chunks(side, chunk) for side in (q, k, v, reset[:, :, None, None]))
        if log_g is None:
            since_first, to_last, scores = _undecayed(begins, state.dtype)
        else:
            since_first, to_last, scores = _decayed(_in_chunks(log_g, chunk).masked_fill(begins, -torch.inf))
        kept = k * to_last
        reads = q * since_first
        within = scores(q, k)
        corrections: tuple[Tensor, ...] = ()
        if beta is not None:
            beta = _in_chunks(beta[..., None], chunk)
            # Below the diagonal; the solver takes the diagonal for ones.
            overlap = beta * scores(k, k)
            u = torch.linalg.solve_triangular(overlap, beta * torch.cat([v, k * since_first], -1), upper=False, unitriangular=True)
            v, corrections = u[..., : v.shape[-1]], u[..., v.shape[-1] :].unbind(2)
        written, states = [], []
        # Taken apart at once: the backward pass of an index fills a whole tensor with zeros.
        for n, (kept_n, v_n, decay) in enumerate(zip(kept.mT.unbind(2), v.unbind(2), since_first[..., -1, :, None].unbind(2), strict=True)):
            states.append(state)
            written.append(v_n - corrections[n] @ state if corrections else v_n)
            state = decay * state + kept_n @ written[n]
        o = reads @ torch.stack(states, 2) + within @ torch.stack(written, 2)
    return o.flatten(2, 3)[:, :, :steps].transpose(1, 2), state


def _step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor | None, log_g: Tensor | None, state: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """The recurrence as it stands: for acting, several times as fast as matrix products of a single row."""
    begins = reset[:, :, None, None]
    kept = (~begins).to(state.dtype) if log_g is None else log_g.masked_fill(begins, -torch.inf).exp()
    state = kept[:, 0, :, :, None] * state
    q, k, v = q[:, 0, :, :, None], k[:, 0, :, :, None], v[:, 0]
    if beta is not None:
        v = beta[:, 0, :, None] * (v - (k * state).sum(-2))
    state = torch.addcmul(state, k, v[..., None, :])
    return (q * state).sum(-2)[:, None], state


def _in_chunks(side: Tensor, chunk: int) -> Tensor:
    """[B, T, H, K] as [B, H, chunks, chunk, K], zeros after the last step: they neither decay nor write."""
    missing = -side.shape[1] % chunk
    if missing:
        side = pad(side, (0, 0, 0, 0, 0, missing))
    return side.transpose(1, 2).unflatten(2, (-1, chunk))


def _sums_after(x: Tensor) -> Tensor:
    """Sums over the steps after each, in its chunk."""
    later = pad(x[..., 1:, :], (0, 0, 0, 1))
    return later.flip(-2).cumsum(-2).flip(-2)


# What is left of the state before a chunk at each step, what is left of each step at its end, both [.., C, #K], and `_scores` of q and k.
_Decay = tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]


def _undecayed(begins: Bool[Tensor, "B 1 N C 1"], dtype: torch.dtype) -> _Decay:
    """Where all is left but by resets: a step reads those of its own trial, in one product."""
    trial = begins.cumsum(-2)
    there = (trial == trial.mT).tril()
    left = (trial == 0, trial == trial[..., -1:, :])
    return left[0].to(dtype), left[1].to(dtype), lambda q, k: (q @ k.mT).masked_fill(~there, 0.0)


def _decayed(log_g: Float[Tensor, "B H N C #K"]) -> _Decay:
    return log_g.cumsum(-2).exp(), _sums_after(log_g).exp(), lambda q, k: _scores(q, k, log_g)


def _scores(q: Tensor, k: Tensor, log_g: Tensor) -> Tensor:
    """[.., t, s]: q_t . (k_s * product of g over (s, t]) where s <= t, else 0.

    From single steps upwards, two neighbouring blocks become one: the later reads the earlier by way of the boundary between them, which
    splits the product of g into a factor of the query's and a factor of the key's, neither above 1.
    """
    scores = (q * k).sum(-1)[..., None, None]
    half = 1
    while scores.shape[-3] > 1:
        (_, q_late), (k_early, _), (log_g_early, log_g_late) = (side.unflatten(-2, (-1, 2, half)).unbind(-3) for side in (q, k, log_g))
        late = q_late * log_g_late.cumsum(-2).exp()
        early = k_early * _sums_after(log_g_early).exp()
        within_early, within_late = scores.unflatten(-3, (-1, 2)).unbind(-3)
        scores = torch.cat([pad(within_early, (0, half)), torch.cat([late @ early.mT, within_late], -1)], -2)
        half *= 2
    return scores.squeeze(-3)
