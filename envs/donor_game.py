"""The donor game: a gift doubles on its way to a stranger, of whom the donor hears what it gave itself (Vallinder and Hughes 2024).

P villagers start with `endowment` each. In every round half of them are donors, each paired with a recipient of the other half; whoever
gave in one round receives in the next.

Actions: a donor gives a share of what it has. Continuous (`levels` 0): a number in [0, 1]; with `punishment` in [-1, 1], where -x spends
    the share x on the recipient's loss. Discrete: 0 .. levels for the shares 0, 1/levels, ..., 1, with `punishment` also levels + s for
    spending s/levels. Recipients act too, but what they do is ignored; in the discrete game they may only choose 0.
Observations: `is_donor`; `round`, rounds played in this game; `resources`, own and the recipient's, as log2(1 + resources / endowment), so
    1 is the endowment and n about 2^n of it; `recipient`, 1 + its seat; with `trace_depth` links also `trace` [links, 2] (1 if the link
    exists, share given) and `trace_to` [links] (1 + the seat it went to): what the recipient gave in its last donor turn, what the one
    who got that had given in its own, and so on. With `punishment` a share below 0 was spent on harm, and `punished` says whether one was
    harmed in the last round. Recipients see 0 wherever a recipient or a trace would stand.
Reward: the change of one's resources: +multiplier * gift for the recipient, -gift for the donor; a harmed recipient loses `punishment`
    times what was spent on it, but never has less than nothing. Rewards of a game add up to final resources less the endowment.
End: after `rounds` rounds; with `games` 2 a second game follows with resources and traces as at first and roles swapped.
Measures: `gift`, share given by each donor; `punishes`, with `punishment`, 1 for each donor that did; after a game's last round
    `resources` of each and `gini` of all; at the end `fitness`, mean of the final resources over the games, and `survives`, 1 for the
    fitter half (ties go by lot).
Source: Vallinder and Hughes 2024 (arXiv 2412.10270). `notebook` does what their released notebook does where it departs from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from envs.chance import Purpose, permutation
from envs.game import ACTION_MASK, Mark, Observation, Role, Scene, Turn

GREEN, RED, GREY, PALE, INK = (64, 145, 108), (200, 80, 72), (205, 208, 212), (228, 230, 233), (40, 44, 52)


class DonorState(NamedTuple):
    """order: the seats as they stand in the schedule, the first half being those who give first. change: of resources, in the last round.
    fitness: the mean so far, final resources of the games that are over. links, links_to: each villager's trace, its own last gift first:
    shares, and 1 + the seats they went to (0: no link).
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    order: Int64[Tensor, "B P"]
    resources: Float[Tensor, "B P"]
    change: Float[Tensor, "B P"]
    fitness: Float[Tensor, "B P"]
    links: Float[Tensor, "B P L"]
    links_to: Int64[Tensor, "B P L"]


@dataclass(frozen=True)
class DonorGame:
    """villagers: P, even. rounds: of a game. endowment: what each has at first. multiplier: of gifts. levels: 0 for any share, or the steps
    from nothing to everything. trace_depth: links that a donor sees. punishment: what a recipient loses per unit spent on it, 0 if nobody
    may. games: 1, or 2 with roles swapped. notebook: what `_pairs`, `_remember` and `_fitness` say of it.
    """

    villagers: int = 12
    rounds: int = 12
    endowment: float = 10.0
    multiplier: float = 2.0
    levels: int = 0
    trace_depth: int = 3
    punishment: float = 0.0
    games: int = 1
    notebook: bool = False

    def __post_init__(self) -> None:
        if self.villagers < 4 or self.villagers % 2 or self.villagers > 1000:
            raise ValueError(f"villagers is {self.villagers}; want an even number from 4 to 1,000 (half give, half receive)")
        if not 1 <= self.rounds <= 1000:
            raise ValueError(f"rounds is {self.rounds}; want from 1 to 1,000")
        for name in ("endowment", "multiplier"):
            if not 1e-30 <= getattr(self, name) <= 1e30:
                raise ValueError(f"{name} is {getattr(self, name)}; want a finite number, from 1e-30 to 1e30")
        if math.log10(self.villagers * self.endowment) + self.rounds * math.log10(max(1.0, self.multiplier)) > 30:
            raise ValueError(f"rounds is {self.rounds}: with multiplier {self.multiplier} resources could pass 1e30; want fewer rounds")
        if not 0 <= self.levels <= 1000:
            raise ValueError(f"levels is {self.levels}; want 0 (any share) or up to 1,000")
        if not 0 <= self.trace_depth <= self.rounds:
            raise ValueError(f"trace_depth is {self.trace_depth}; want from 0 to {self.rounds}, the number of rounds")
        if not 0 <= self.punishment <= 1e30:
            raise ValueError(f"punishment is {self.punishment}; want 0 (nobody may punish) or a number above, up to 1e30")
        if self.games not in (1, 2):
            raise ValueError(f"games is {self.games}; want 1, or 2 for a second one with roles swapped")

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        lowest = -1.0 if self.punishment else 0.0
        names = self.villagers + 1
        fields: dict[str, gym.Space] = {
            "is_donor": gym.spaces.Discrete(2),
            "round": gym.spaces.Discrete(self.rounds + 1),
            "resources": gym.spaces.Box(0.0, np.inf, (2,), np.float32),
            "recipient": gym.spaces.Discrete(names),
        }
        if self.trace_depth:
            fields["trace"] = gym.spaces.Box(lowest, 1.0, (self.trace_depth, 2), np.float32)
            fields["trace_to"] = gym.spaces.MultiDiscrete([names] * self.trace_depth)
        if self.punishment:
            fields["punished"] = gym.spaces.Discrete(2)
        acts: gym.Space = gym.spaces.Box(lowest, 1.0, (), np.float32)
        if self.levels:
            acts = gym.spaces.Discrete(self._choices)
            fields[ACTION_MASK] = gym.spaces.MultiBinary(self._choices)
        return (Role("villager", self.villagers, gym.spaces.Dict(fields), acts),)

    @property
    def max_steps(self) -> int:
        return self.games * self.rounds

    def start(self, seeds: Int64[Tensor, "B"]) -> DonorState:
        order = permutation(seeds, self.villagers, Purpose.GAME)
        zero = torch.zeros_like(order, dtype=torch.float32)
        # The last gift is kept even where nobody sees a trace: it is what `describe` tells.
        links_to = torch.zeros_like(order)[:, :, None].repeat(1, 1, max(1, self.trace_depth))
        return DonorState(seeds, torch.zeros_like(seeds), order, zero + self.endowment, zero, zero, links_to.float(), links_to)

    def observe(self, state: DonorState) -> dict[str, Observation]:
        state = self._opened(state)
        partner, gives = self._pairs(state)
        riches = torch.log2(1 + state.resources / self.endowment)
        observation = {
            "is_donor": gives.long(),
            "round": (state.step - self._games_over(state) * self.rounds)[:, None].expand(-1, self.villagers),
            "resources": torch.stack([riches, riches.gather(1, partner) * gives], -1),
            "recipient": (1 + partner) * gives,
        }
        if self.trace_depth:
            whose = partner[:, :, None].expand_as(state.links)
            known = state.links_to.gather(1, whose) * gives[:, :, None]
            shares = state.links.gather(1, whose) * gives[:, :, None]
            observation["trace"] = torch.stack([(known > 0).float(), shares], -1)
            observation["trace_to"] = known
        if self.punishment:
            observation["punished"] = self._harmed(state).long()
        if self.levels:
            mask = gives.to(torch.int8)[:, :, None].repeat(1, 1, self._choices)
            mask[:, :, 0] = 1
            observation[ACTION_MASK] = mask
        return {"villager": observation}

    def step(self, state: DonorState, actions: Mapping[str, Shaped[Tensor, "B P"]]) -> tuple[DonorState, Turn]:
        state = self._opened(state)
        partner, gives = self._pairs(state)
        share = self._shares(actions["villager"]).masked_fill(~gives, 0.0)
        spent = share.abs() * state.resources
        effect = torch.where(share > 0, self.multiplier * spent, -self.punishment * spent)
        resources = (state.resources - spent + effect.gather(1, partner)).clamp_min(0.0)
        change = resources - state.resources
        links, links_to = self._remember(state, share, partner, gives)
        step = state.step + 1
        ends_game = (step % self.rounds == 0)[:, None]
        over = step >= self.max_steps
        fitness = torch.where(ends_game, self._fitness(state.fitness, resources), state.fitness)
        after = DonorState(state.seed, step, state.order, resources, change, fitness, links, links_to)
        measures = {
            "gift": share.clamp_min(0.0).masked_fill(~gives, torch.nan),
            "resources": resources.masked_fill(~ends_game, torch.nan),
            "gini": gini(resources).masked_fill(~ends_game[:, 0], torch.nan),
            "fitness": fitness.masked_fill(~over[:, None], torch.nan),
            "survives": self._top_half(after).masked_fill(~over[:, None], torch.nan),
        }
        if self.punishment:
            measures["punishes"] = (share < 0).float().masked_fill(~gives, torch.nan)
        return after, Turn({"villager": change}, over, measures)

    def describe(self, state: DonorState, index: int) -> Scene:
        """Who gave what to whom in the last round, what it had heard of the recipient, and what everyone has now."""
        one = DonorState(*(leaf[index : index + 1] for leaf in state))
        step, resources = int(one.step[0]), one.resources[0].tolist()
        partner, gives = (each[0].tolist() for each in self._pairs(one._replace(step=(one.step - 1).clamp_min(0))))
        donors = [seat for seat in range(self.villagers) if gives[seat]]
        if step == 0:
            rules = f"a gift is multiplied by {self.multiplier:g} on its way"
            rules += f", who is punished loses {self.punishment:g} times what was spent" if self.punishment else ""
            pairs = ", ".join(f"{donor} may give to {partner[donor]}" for donor in donors)
            text = f"before round 1 of {self.rounds}: {self.villagers} villagers have {self.endowment:g} each; {rules}; {pairs}"
            return Scene(text, self._picture("before round 1", donors, partner, None, resources))
        share, spent = one.links[0, :, 0].tolist(), one.change[0].abs().tolist()
        told = []
        for donor in donors:
            recipient = partner[donor]
            heard = one.links[0, recipient, : self.trace_depth].tolist(), one.links_to[0, recipient, : self.trace_depth].tolist()
            told.append(_deed(donor, recipient, share[donor], spent[donor]) + _hearsay(recipient, *heard))
        title = f"round {(step - 1) % self.rounds + 1} of {self.rounds}"
        title += f", game {(step - 1) // self.rounds + 1} of {self.games}" if self.games > 1 else ""
        have = ", ".join(f"{seat}: {amount:.1f}" for seat, amount in enumerate(resources))
        text = f"{title}: {'; '.join(told)}. They now have {have}"
        return Scene(text, self._picture(title, donors, partner, share, resources))

    @property
    def _choices(self) -> int:
        return 1 + self.levels * (2 if self.punishment else 1)

    def _shares(self, action: Shaped[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """Of what one has: above 0 to give, below 0 to spend on harm."""
        if not self.levels:
            return action.float()
        return torch.where(action > self.levels, self.levels - action, action).float() / self.levels

    def _pairs(self, state: DonorState) -> tuple[Int64[Tensor, "B P"], Bool[Tensor, "B P"]]:
        """(everyone's partner, who gives) in the round to come; a function of the seed and the round.

        With alternating roles everyone only ever meets the n = P/2 villagers of the other half. Half against half they are paired by a
        round robin: in round r of n, place i of the first half with place i + r of the second (mod n). Then the same n pairings come again
        with roles swapped. So no two villagers meet twice within the first n rounds, nor less than n - 1 rounds apart later, and no donor
        has the same recipient twice within P rounds. Everyone having n partners, no schedule with alternating roles can have more than n
        rounds without a second meeting, or more than P without a second gift to the same. Where n is even, neighbouring rounds change
        places the second time: in the same order the same would give again.

        `notebook` keeps the order and lets the donors of round n give in round n + 1 too: with 12 villagers the halves give in the order
        A B A B A B B A B A B A, which breaks the alternation that the paper states.
        """
        half = self.villagers // 2
        game, place = self._games_over(state), torch.arange(self.villagers, device=state.seed.device)
        clock = (state.step - game * self.rounds)[:, None]
        turn, comes_again = clock % half, clock % self.villagers >= half
        if self.notebook:
            shift, first_gives = turn, (turn % 2 == 0) ^ comes_again
        else:
            shift, first_gives = torch.where(comes_again & (half % 2 == 0), turn ^ 1, turn), clock % 2 == 0
        opposite = torch.where(place < half, half + (place + shift) % half, (place - half - shift) % half)
        partner = torch.empty_like(state.order).scatter_(1, state.order, state.order.gather(1, opposite))
        gives = torch.empty_like(partner, dtype=torch.bool).scatter_(1, state.order, (place < half) == (first_gives ^ (game == 1)[:, None]))
        return partner, gives

    def _games_over(self, state: DonorState) -> Int64[Tensor, "B"]:
        """How many games lie behind, but that the last counts on when it is over."""
        return (state.step // self.rounds).clamp_max(self.games - 1)

    def _opened(self, state: DonorState) -> DonorState:
        """The state in which the next round is played: where the second game begins, everything is as at first but the fitness."""
        if self.games == 1:
            return state
        opens = (state.step == self.rounds)[:, None]
        return state._replace(
            resources=state.resources.masked_fill(opens, self.endowment),
            links=state.links.masked_fill(opens[:, :, None], 0.0),
            links_to=state.links_to.masked_fill(opens[:, :, None], 0),
        )

    def _harmed(self, state: DonorState) -> Bool[Tensor, "B P"]:
        """Whom the last round's donors spent on to harm; nobody before a game's first round."""
        partner, gave = self._pairs(state._replace(step=(state.step - 1).clamp_min(0)))
        harms = (state.links[:, :, 0] < 0) & gave & (state.step != 0)[:, None] & (state.step % self.rounds != 0)[:, None]
        return harms.gather(1, partner)

    def _remember(
        self, state: DonorState, share: Float[Tensor, "B P"], partner: Int64[Tensor, "B P"], gives: Bool[Tensor, "B P"]
    ) -> tuple[Float[Tensor, "B P L"], Int64[Tensor, "B P L"]]:
        """A donor's trace becomes its gift, then its recipient's trace. `notebook`: who has nothing is said to have given everything;
        otherwise what counts is the share that it chose."""
        if self.notebook:
            share = torch.where(state.resources == 0, 1.0, share)
        whose = partner[:, :, None].expand_as(state.links)
        links = torch.cat([share[:, :, None], state.links.gather(1, whose)[:, :, :-1]], -1)
        links_to = torch.cat([1 + partner[:, :, None], state.links_to.gather(1, whose)[:, :, :-1]], -1)
        return torch.where(gives[:, :, None], links, state.links), torch.where(gives[:, :, None], links_to, state.links_to)

    def _fitness(self, so_far: Float[Tensor, "B P"], final: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """Mean of the final resources over the games. `notebook`: twice those of the last game, by a slip in a sum."""
        return final * 2 if self.notebook else so_far + final / self.games

    def _top_half(self, state: DonorState) -> Float[Tensor, "B P"]:
        """1 for the P/2 fittest, else 0. Equals go by their place in the schedule, which is drawn by lot."""
        places = state.fitness.gather(1, state.order).argsort(dim=1, descending=True, stable=True)
        seats = state.order.gather(1, places[:, : self.villagers // 2])
        return torch.zeros_like(state.fitness).scatter_(1, seats, 1.0)

    def _picture(
        self, title: str, donors: list[int], partner: list[int], share: list[float] | None, resources: list[float]
    ) -> tuple[Mark, ...]:
        """One line per pair: donor, the share that it gives (green) or spends on harm (red), recipient. Discs grow with the logarithm.

        share: None where nobody has given yet.
        """
        pitch = 0.8 / len(donors)
        # So that beside a disc there is room for an amount, however few the pairs.
        tall = min(pitch, 0.8 / 6)
        marks = [Mark("text", 0.5, 0.07, 0.07, INK, title)]
        marks += [Mark("text", x, 0.15, 0.045, INK, word) for x, word in ((0.16, "donor"), (0.5, "share given"), (0.84, "recipient"))]
        for row, donor in enumerate(donors):
            y = 0.19 + pitch * (row + 0.5)
            marks.append(Mark("box", 0.5, y, 0.32, PALE, height=0.36 * tall))
            if share is not None:
                long = 0.32 * abs(share[donor])
                if long > 0:
                    marks.append(Mark("box", 0.34 + long / 2, y, long, GREEN if share[donor] > 0 else RED, height=0.36 * tall))
                marks.append(Mark("text", 0.5, y, 0.34 * tall, INK, f"{share[donor]:.0%}"))
            for seat, x, side in ((donor, 0.24, 0.085), (partner[donor], 0.76, 0.915)):
                size = tall * min(0.96, 0.4 + 0.08 * math.log2(1 + resources[seat] / self.endowment))
                marks.append(Mark("disc", x, y, size, GREY))
                marks.append(Mark("text", x, y, 0.4 * tall, INK, str(seat)))
                marks.append(Mark("text", side, y, 0.34 * tall, INK, _short(resources[seat])))
        return tuple(marks)


def _deed(donor: int, recipient: int, share: float, spent: float) -> str:
    if share == 0:
        return f"{donor} gives nothing to {recipient}"
    if share < 0:
        return f"{donor} spends {spent:.1f} ({-share:.0%}) to punish {recipient}"
    return f"{donor} gives {spent:.1f} ({share:.0%}) to {recipient}"


def _hearsay(recipient: int, shares: list[float], to: list[int]) -> str:
    """A trace in words; to: 1 + seats, 0 where a link does not exist."""
    links = [
        f"gave {share:.0%} to {seat - 1}" if share >= 0 else f"punished {seat - 1} with {-share:.0%}"
        for share, seat in zip(shares, to, strict=True)
        if seat
    ]
    return f" (heard: {recipient} {', who before '.join(links)})" if links else ""


def _short(amount: float) -> str:
    """An amount in six letters at most."""
    return f"{amount:.1f}" if amount < 1000 else f"{amount:.0f}" if amount < 99_999.5 else f"{amount:.0e}"


def gini(amounts: Float[Tensor, "B P"]) -> Float[Tensor, "B"]:
    """Gini's coefficient, sum_ij |x_i - x_j| / (2 n sum_i x_i): 0 where all have the same, (n - 1) / n where one has everything."""
    count = amounts.shape[1]
    weights = 2 * torch.arange(count, device=amounts.device) - (count - 1)
    total = amounts.sum(1)
    return (amounts.sort(1).values * weights).sum(1) / (count * total.clamp_min(1e-30))


def donor_game() -> DonorGame:
    """Twelve villagers give to strangers known by hearsay, any share they like, for 12 rounds (Vallinder and Hughes 2024)."""
    return DonorGame()


def donor_generation() -> DonorGame:
    """Both donor games of a generation, roles swapped in the second; the half with the higher mean survives."""
    return DonorGame(games=2)


def donor_game_in_quarters() -> DonorGame:
    """The donor game with gifts of nothing, a quarter, half, three quarters or everything."""
    return DonorGame(levels=4)


def donor_game_with_punishment() -> DonorGame:
    """The donor game in which a donor may instead spend x to take 2x from the recipient."""
    return DonorGame(punishment=2.0)
