"""What a cross-play matrix says about a population: replicator dynamics, alpha-rank, Nash averaging, Elo ratings.

`payoff[i, j]` is the mean reward of agent i when it meets agent j, so the diagonal is how an agent fares with copies of itself. The four
answer different questions and may well disagree: in a dilemma Nash averaging, Elo and alpha-rank among pairs ask who earns more than the
one it meets, which defection does; replicator dynamics and alpha-rank in the whole population ask who would spread, copies among copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.linalg import null_space
from scipy.optimize import linprog, minimize
from scipy.special import expit, log_expit, logsumexp, softmax, xlogy

Array = NDArray[Any]

_MEAN_RATING = 1500.0


class Dynamics(NamedTuple):
    """times: [points], in units of 1 / reward. shares: [points, agents], each row sums to 1."""

    times: Array
    shares: Array


class AlphaRank(NamedTuple):
    """shares: [agents], how long the population consists of each agent, in the long run. alpha: the intensity of selection. settled:
    whether more of it changes nothing; None where alpha was given.
    """

    shares: Array
    alpha: float
    settled: bool | None


class NashAverage(NamedTuple):
    """shares: [agents], the Nash equilibrium. advantage: [agents], what each earns more than the equilibrium that it meets; at most 0."""

    shares: Array
    advantage: Array


def replicator(
    payoff: Float[Array, "agents agents"],
    start: Float[Array, "agents"] | None = None,
    duration: float | None = None,
    points: int = 201,
) -> Dynamics:
    """Shares that grow by how much more an agent earns than the population it lives in: dx_i/dt = x_i ((Ax)_i - x.Ax).

    start: shares at time 0, even ones if not given; who starts with none keeps none. duration: 100 / (largest - smallest payoff) if not
    given. Integrated as u = log x + constant, where du/dt = Ax: shares then stay positive and sum to 1 whatever the payoffs' sign.
    Taylor and Jonker 1978, "Evolutionarily Stable Strategies and Game Dynamics", the continuous dynamic.
    """
    _check_payoff(payoff)
    agents = len(payoff)
    shares = np.full(agents, 1 / agents) if start is None else start
    if len(shares) != agents or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"start {shares.tolist()}; want {agents} shares of at least 0 that sum to 1")
    duration = 100 / _spread(payoff) if duration is None else duration
    if duration <= 0 or points < 2:
        raise ValueError(f"duration {duration} with {points} points; want a positive duration and at least 2 points")
    times = np.linspace(0.0, duration, points)
    there = shares > 0
    among = payoff[np.ix_(there, there)]
    # What is added to all payoffs changes no share, but would take digits from u.
    among = among - among.mean()
    solution = solve_ivp(lambda _, u: among @ softmax(u), (0.0, duration), np.log(shares[there]), "DOP853", times, rtol=1e-9, atol=1e-9)
    over_time = np.zeros((points, agents))
    over_time[:, there] = softmax(solution.y, axis=0).T
    return Dynamics(times, over_time)


def alpha_rank(
    payoff: Float[Array, "agents agents"],
    alpha: float | None = None,
    population_size: int = 50,
    whole_population: bool = False,
) -> AlphaRank:
    """The stationary distribution over agents of a population in which one mutant at a time takes over or dies out.

    A mutant that leads by u = alpha (payoff[mutant, resident] - payoff[resident, mutant]) takes over a population of m with probability
    (1 - exp(-u)) / (1 - exp(-m u)), and 1 / m where u is 0: Omidshafiei et al. 2019, "alpha-Rank: Multi-Agent Evaluation by Evolution", the
    symmetric case of one population.

    alpha: intensity of selection. If not given, it is doubled from 0.1 / (largest - smallest payoff) until three doublings in a row move
    no share by more than 0.0001: the paper's way of taking it large enough.

    whole_population: whether each earns not from the other alone but from all that it lives among, its own kind included (Traulsen, Nowak
    and Pacheco 2006, "Stochastic Dynamics of Invasion and Fixation"). That decides between, say, tit for tat and defection.
    """
    _check_payoff(payoff)
    if population_size < 2 or (alpha is not None and alpha < 0):
        raise ValueError(f"alpha {alpha}, population_size {population_size}; want alpha of at least 0 and a population of at least 2")
    lead = _lead_of_mutants(payoff, population_size, whole_population)
    if alpha is not None:
        return AlphaRank(_stationary(_log_fixation(alpha * lead)), alpha, None)
    alpha = 0.1 / _spread(payoff)
    shares = _stationary(_log_fixation(alpha * lead))
    still = 0
    for _ in range(40):
        alpha *= 2
        before, shares = shares, _stationary(_log_fixation(alpha * lead))
        # At a low alpha all agents are nearly even, which is no ranking that settled.
        still = still + 1 if np.abs(shares - before).max() < 1e-4 and alpha * _spread(payoff) > 1 else 0
        if still == 3:
            break
    return AlphaRank(shares, alpha, still == 3)


def nash_average(payoff: Float[Array, "agents agents"]) -> NashAverage:
    """The Nash equilibrium of largest entropy of the game "earn more than the one you meet", payoff - payoff.T, whose value is 0.

    Copies of an agent share what it would have alone, so that nobody gains by entering twice. What an agent does with copies of itself
    does not count. Balduzzi et al. 2018, "Re-evaluating Evaluation", the maximum-entropy Nash average of agents against agents.
    """
    _check_payoff(payoff)
    advantage = payoff - payoff.T
    scaled = advantage / (np.abs(advantage).max() or 1.0)
    agents = len(payoff)
    every = [_equilibrium_with_most(agent, scaled) for agent in range(agents)]
    support = np.array([equilibrium[agent] > 1e-7 for agent, equilibrium in enumerate(every)])
    # Within the support everyone earns exactly 0 from every equilibrium: equilibria there are one of them plus a null space.
    start = np.mean([every[agent] for agent in np.flatnonzero(support)], 0)[support]
    free = null_space(np.vstack([scaled[np.ix_(support, support)], np.ones(support.sum())]), rcond=1e-9)
    shares = np.zeros(agents)
    shares[support] = _most_entropy(start, free, scaled[np.ix_(~support, support)])
    shares /= shares.sum()
    return NashAverage(shares, advantage @ shares)


def elo(per_trial: Float[Array, "agents agents trials"]) -> Float[Array, "agents"]:
    """Maximum-likelihood ratings [agents]: i beats j with probability 1 / (1 + 10^((rating_j - rating_i) / 400)); their mean is 1500.

    per_trial[i, j, t] and per_trial[j, i, t] are the two sides' rewards in the same game t; the larger wins, equal ones are a draw,
    counted as half a win for either; NaN is no game. Every pair is given one draw more than it played, so that a perfect record stays
    finite. Bradley and Terry 1952, "Rank analysis of incomplete block designs", the method of paired comparisons; Elo 1978 for the scale.

    One number per agent hides cycles: rock, paper and scissors are rated alike. And in a dilemma to beat the other is not to do well:
    whoever always defects never earns less than the one it meets.
    """
    return np.asarray(_MEAN_RATING + _ratings(_wins(per_trial).sum(-1)))


def analyse(
    names: Sequence[str],
    payoff: Float[Array, "agents agents"],
    per_trial: Float[Array, "agents agents trials"],
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """All of the above as plain JSON values, for results and the report.

    per_trial: as for `elo`; every pair plays trials of the same luck, which are resampled together. low and high are 95 % bootstrap
    intervals over these trials: they say nothing about other seeds of training.
    """
    if len(names) != len(payoff) or per_trial.shape[:2] != payoff.shape or not per_trial.shape[2]:
        raise ValueError(f"{len(names)} names, payoff {payoff.shape}, per_trial {per_trial.shape}; want [A], [A, A] and [A, A, at least 1]")
    trials = per_trial.shape[2]
    wins = _wins(per_trial)
    counts = np.random.default_rng(seed).multinomial(trials, np.full(trials, 1 / trials), size=resamples).astype(float)
    resampled = [_weighted_mean(per_trial, count) for count in counts]
    # A pair that played few of the trials may be missing from a resample.
    resampled = [matrix for matrix in resampled if np.isfinite(matrix).all()]

    dynamics, pairs, whole, nash = replicator(payoff), alpha_rank(payoff), alpha_rank(payoff, whole_population=True), nash_average(payoff)
    return {
        "agents": list(names),
        "trials": trials,
        "payoff": payoff.tolist(),
        "payoff_interval": _interval(resampled),
        "replicator": {"times": dynamics.times.tolist(), "shares": dynamics.shares.tolist()},
        "alpha_rank": {
            **_plain(pairs),
            **_interval([alpha_rank(matrix, pairs.alpha).shares for matrix in resampled]),
        },
        "alpha_rank_whole_population": {
            **_plain(whole),
            **_interval([alpha_rank(matrix, whole.alpha, whole_population=True).shares for matrix in resampled]),
        },
        "nash_average": {**_plain(nash), **_interval([nash_average(matrix).shares for matrix in resampled])},
        "elo": {"ratings": elo(per_trial).tolist(), **_interval([_MEAN_RATING + _ratings(wins @ count) for count in counts])},
    }


def _check_payoff(payoff: Array) -> None:
    if not len(payoff) or not np.isfinite(payoff).all():
        raise ValueError(f"payoff {payoff.tolist()}; want at least one agent and only finite numbers")


def _spread(payoff: Array) -> float:
    """The scale of payoffs: largest - smallest, or 1 where all are the same."""
    return float(np.ptp(payoff)) or 1.0


def _lead_of_mutants(payoff: Array, size: int, whole_population: bool) -> Array:
    """[residents, mutants, size - 1]: how much more a mutant earns than a resident while 1, 2, ... mutants are among `size`."""
    if not whole_population:
        return np.repeat((payoff.T - payoff)[..., None], size - 1, -1)
    mutants = np.arange(1, size)
    own = np.diag(payoff)
    of_mutant = (mutants - 1) * own[None, :, None] + (size - mutants) * payoff.T[..., None]
    of_resident = (size - mutants - 1) * own[:, None, None] + mutants * payoff[..., None]
    return np.asarray((of_mutant - of_resident) / (size - 1))


def _log_fixation(lead: Array) -> Array:
    """[residents, mutants] log probabilities that one mutant takes over. lead: as above, times alpha."""
    # 1 / (1 + sum over l of exp(-(lead of 1 mutant + ... + lead of l mutants))), which is 1 / size where leads are 0.
    exponents = np.concatenate([np.zeros((*lead.shape[:2], 1)), -np.cumsum(lead, -1)], -1)
    return np.asarray(-logsumexp(exponents, axis=-1))


def _stationary(log_rates: Array) -> Array:
    """[A] stationary distribution of a chain with log_rates [A, A] from row to column; the diagonal does not matter.

    States are taken out one by one (Grassmann, Taksar and Heyman 1985), which needs no subtraction and so can be done on logarithms:
    rates of exp(-100000) are told apart without underflow.
    """
    rates = log_rates.copy()
    for last in range(len(rates) - 1, 0, -1):
        rates[:last, last] -= logsumexp(rates[last, :last])
        rates[:last, :last] = np.logaddexp(rates[:last, :last], rates[:last, last, None] + rates[last, :last])
    weights = np.zeros(len(rates))
    for state in range(1, len(rates)):
        weights[state] = logsumexp(weights[:state] + rates[:state, state])
    return np.asarray(softmax(weights))


def _equilibrium_with_most(agent: int, advantage: Array) -> Array:
    """[A]: of all symmetric equilibria, one in which `agent` has the largest share."""
    agents = len(advantage)
    solution = linprog(
        -np.eye(agents)[agent],
        A_ub=advantage,
        b_ub=np.zeros(agents),
        A_eq=np.ones((1, agents)),
        b_eq=[1.0],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solution.x is None:
        raise ValueError(f"no equilibrium was found ({solution.message}); want payoffs whose differences are of like magnitudes")
    return np.asarray(solution.x)


def _most_entropy(start: Array, free: Array, outside: Array) -> Array:
    """The shares start + free @ z [S] of largest entropy that leave nobody with less than 0 and nobody in `outside` [O, S] with a gain."""
    if not free.shape[1]:
        return start

    def shares(z: Array) -> Array:
        return np.asarray(start + free @ z)

    solution = minimize(
        lambda z: xlogy(shares(z), np.maximum(shares(z), 1e-300)).sum(),
        np.zeros(free.shape[1]),
        jac=lambda z: free.T @ (np.log(np.maximum(shares(z), 1e-300)) + 1),
        constraints=[
            {"type": "ineq", "fun": shares, "jac": lambda z: free},
            {"type": "ineq", "fun": lambda z: -outside @ shares(z), "jac": lambda z: -outside @ free},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return np.asarray(np.maximum(shares(solution.x), 0.0))


def _wins(per_trial: Array) -> Array:
    """[A, A, n]: 1 where i earned more than j, a half where as much, 0 where less or where they did not play. Self-play is all draws."""
    other = per_trial.transpose(1, 0, 2)
    return np.asarray((per_trial > other) + 0.5 * (per_trial == other))


def _ratings(wins: Array) -> Array:
    """[A] maximum-likelihood ratings around 0; wins: [A, A], of which the diagonal changes nothing."""
    agents = len(wins)
    wins = wins + 0.5 * (1 - np.eye(agents))
    played = wins + wins.T

    # Whatever is added to all ratings changes no probability: the square of their mean holds it at 0.
    def loss(r: Array) -> float:
        return float(-(wins * log_expit(r[:, None] - r)).sum() + r.mean() ** 2)

    def gradient(r: Array) -> Array:
        return np.asarray((played * expit(r[:, None] - r) - wins).sum(1) + 2 * r.mean() / agents)

    def hessian(r: Array) -> Array:
        probability = expit(r[:, None] - r)
        weights = played * probability * (1 - probability)
        return np.asarray(np.diag(weights.sum(1)) - weights + 2 / agents**2)

    best = minimize(
        loss, np.zeros(agents), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-9 * max(1.0, played.max())}
    )
    return np.asarray(best.x * 400 / np.log(10))


def _weighted_mean(per_trial: Array, count: Array) -> Array:
    """[A, A] means over the trials that were played, trial t taken count[t] times; NaN where there is none."""
    there = ~np.isnan(per_trial)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.where(there, per_trial, 0.0) @ count) / (there @ count))


def _interval(resampled: list[Array]) -> dict[str, Any]:
    """{"low", "high"} of what was computed on each resample; None if on none."""
    if not resampled:
        return {"low": None, "high": None}
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return {"low": low.tolist(), "high": high.tolist()}


def _plain(result: AlphaRank | NashAverage) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in result._asdict().items()}
