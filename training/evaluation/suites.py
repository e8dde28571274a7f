"""Held-out scenarios for evaluation: versioned tables of who sits where. `SUITES` names them, as `module:function`.

A suite's numbers can be compared only within its version: change a scenario, raise the version. No preset trains against a suite's
co-players (tested), with two exceptions: random ones, drawn anew from luck that no run trains on, and the village of `donor_game_quick`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.co_players.referential import captioners, people
from envs.coin_game import CoinGame
from envs.commons import Commons
from envs.donor_game import DonorGame
from envs.game import Game, seat_count
from envs.iterated_dilemma import IteratedDilemma
from envs.public_goods import PublicGoods
from envs.referential import Referential
from training.experiment import Experiment
from training.population import is_an_agents_path
from training.settings import BadInput

SUITES: dict[str, str] = {
    "ipd_classics": "training.evaluation.suites:ipd_classics",
    "ipd_tables": "training.evaluation.suites:ipd_tables",
    "ipd_shapers": "training.evaluation.suites:ipd_shapers",
    "self_and_others": "training.evaluation.suites:self_and_others",
    "together": "training.evaluation.suites:together",
    "alone": "training.evaluation.suites:alone",
    "coin_game": "training.evaluation.suites:coin_game",
    "public_goods": "training.evaluation.suites:public_goods",
    "commons": "training.evaluation.suites:commons",
    "donor_game": "training.evaluation.suites:donor_game",
    "referential": "training.evaluation.suites:referential",
}

# Whoever is evaluated; another learner of the same run; the same learner of another seed.
FOCAL, PARTNER, OTHER_SEED = "<agent>", "<partner>", "<other seed>"


@dataclass(frozen=True)
class Scenario:
    """name: for tables. seats: one name per seat of the game: FOCAL, PARTNER, OTHER_SEED, a co-player's, or a learner's of the same run.
    A scenario without FOCAL is played once per run, and counts for every learner in it.
    """

    name: str
    seats: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """trials: per scenario and agent. seed: of the trials' luck, the same for every scenario, so that comparisons are paired."""

    name: str
    version: int
    scenarios: tuple[Scenario, ...]
    trials: int = 256
    seed: int = 20_260_101

    def check_fits(self, game: Game) -> None:
        """Raises BadInput where a scenario's seats do not fit the game."""
        for scenario in self.scenarios:
            where = f"suite {self.name!r}, scenario {scenario.name!r}"
            if len(scenario.seats) != seat_count(game):
                raise BadInput(
                    f"{where} seats {len(scenario.seats)}, {type(game).__name__} has {seat_count(game)} seats; "
                    f"want a game of {len(scenario.seats)} seats or another suite, such as --suite together"
                )
            if "" in scenario.seats:
                raise BadInput(f"{where}: seat {scenario.seats.index('')} is empty; want a name in every seat")
        names = [scenario.name for scenario in self.scenarios]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadInput(f"suite {self.name!r} has two scenarios called {twice[0]!r}; want different names")


def ipd_classics(experiment: Experiment) -> Suite:
    """Nineteen strategies of the literature, and random tables with luck that no run trains on."""
    _check_dilemma("ipd_classics", experiment)
    names = (
        "always_cooperate",
        "always_defect",
        "random",
        "tit_for_tat",
        "suspicious_tit_for_tat",
        "generous_tit_for_tat",
        "tit_for_two_tats",
        "two_tits_for_tat",
        "contrite_tit_for_tat",
        "gradual",
        "win_stay_lose_shift",
        "grim_trigger",
        "soft_majority",
        "firm_but_fair",
        "joss",
        "tullock",
        "shubik",
        "prober",
        "bully",
    )
    return Suite("ipd_classics", 2, (*_against(names), Scenario("unseen_tables", (FOCAL, "random_table"))))


def ipd_tables(experiment: Experiment) -> Suite:
    """Random tables from five distributions: even, mostly near 0 or 1, pure, reactive, and of two rounds' memory."""
    _check_dilemma("ipd_tables", experiment)
    tables = {
        "even": "random_table",
        "extreme": "random_table:a=0.25,b=0.25",
        "pure": "random_table:levels=2",
        "reactive": "random_reactive",
        "memory_two": "random_memory_two",
    }
    return Suite("ipd_tables", 1, tuple(Scenario(name, (FOCAL, who)) for name, who in tables.items()))


def ipd_shapers(experiment: Experiment) -> Suite:
    """Co-players that pull: extortioners, a generous one, one that fixes what the other earns, and one that learns within the trial."""
    game = _check_dilemma("ipd_shapers", experiment)
    if game.payoffs != IteratedDilemma().payoffs:
        raise BadInput("suite 'ipd_shapers' is for the prisoner's dilemma's default payoffs, from which its strategies are computed")
    shapers = {
        "extortion_1.5": "extortion:slope=1.5",
        "extortion_2": "extortion:slope=2",
        "extortion_3": "extortion:slope=3",
        "extortion_5": "extortion:slope=5",
        "generosity_2": "generosity:slope=2",
        "equalizer": "equalizer",
        "naive_learner": "naive_learner",
    }
    return Suite("ipd_shapers", 1, tuple(Scenario(name, (FOCAL, who)) for name, who in shapers.items()))


def self_and_others(experiment: Experiment) -> Suite:
    """An agent with a copy of itself, with another learner of its run, and with agents of other seeds of its preset."""
    if seat_count(experiment.game) != 2 or len(experiment.game.roles) != 1:
        raise BadInput("suite 'self_and_others' is for games of two equal seats; try --suite together")
    scenarios = (
        Scenario("itself", (FOCAL, FOCAL)),
        Scenario("partner", (FOCAL, PARTNER)),
        Scenario("other_seeds", (FOCAL, OTHER_SEED)),
    )
    return Suite("self_and_others", 1, scenarios)


def together(experiment: Experiment) -> Suite:
    """The run's own learners with one another, each in the seats that it trained in, with luck that no run trains on."""
    seating = experiment.scheme.seat(experiment.game, experiment.trials, 0)
    learners = experiment.scheme.learners(experiment.game)
    rows = dict.fromkeys(tuple(seating.occupants[index] for index in row) for row in seating.seats.tolist())
    tables = [row for row in rows if set(row) <= set(learners)]
    if not tables:
        raise BadInput("suite 'together' wants learners that meet one another; in this run's scheme none do")
    return Suite("together", 1, tuple(Scenario(" + ".join(row), row) for row in tables))


def alone(experiment: Experiment) -> Suite:
    """Nobody but the agent, in a game of one seat. Scripts play it too, and show how little and how much can be reached."""
    if seat_count(experiment.game) != 1:
        raise BadInput(f"suite 'alone' is for games of one seat; this game has {seat_count(experiment.game)}; try --suite together")
    return Suite("alone", 1, (Scenario("alone", (FOCAL,)),))


def donor_game(experiment: Experiment) -> Suite:
    """A village of nothing but copies of the agent, then a third of the village among conditional, stingy and random villagers.

    In `village` half are image scorers who ask for half and give three quarters, and the others free riders: with 12 villagers that is
    where `donor_game_quick` trains, and what it promises can be read.
    """
    if not isinstance(experiment.game, DonorGame):
        raise BadInput("suite 'donor_game' is for the donor game; try --suite together")
    villagers = experiment.game.villagers
    among = {
        "image_scorers": "image_scoring_villager",
        "standing": "standing_villager",
        "matchers": "matching_villager",
        "misers": "constant_villager:gives=0.25",
        "random": "random_villager",
    }
    own = (FOCAL,) * (villagers // 3)
    scenarios = [Scenario(name, own + (who,) * (villagers - len(own))) for name, who in among.items()]
    scorers = ("image_scoring_villager:gives=0.75,threshold=0.5",) * (villagers // 2)
    village = own + scorers + ("free_riding_villager",) * (villagers - len(own) - len(scorers))
    return Suite("donor_game", 2, (Scenario("themselves", (FOCAL,) * villagers), Scenario("village", village), *scenarios))


def coin_game(experiment: Experiment) -> Suite:
    """Whoever takes every coin, its own alone, the other's in revenge, or whatever it walks onto; itself, another learner of its run, and
    agents of other seeds of its preset.
    """
    game = experiment.game
    if not isinstance(game, CoinGame):
        raise BadInput("suite 'coin_game' is for the Coin Game; try --suite together")
    names = ("coin_greedy", "coin_prosocial", "coin_conditional", "coin_wanderer")
    scenarios = tuple(Scenario(name, (FOCAL, f"{name}:size={game.size}")) for name in names)
    own = (Scenario("itself", (FOCAL, FOCAL)), Scenario("partner", (FOCAL, PARTNER)), Scenario("other_seeds", (FOCAL, OTHER_SEED)))
    return Suite("coin_game", 2, (*scenarios, *own))


def referential(experiment: Experiment) -> Suite:
    """A run's speakers and listeners with one another, and with simulated people 1000 to 1007, with whom no preset trains; where features
    are shown, with those who know the held-out captions, if any image has two.
    """
    game = experiment.game
    if not isinstance(game, Referential):
        raise BadInput("suite 'referential' is for referential games; try --suite together")
    roles = experiment.roles()
    speakers, listeners = (
        [name for name in experiment.scheme.learners(game) if roles[name].name == role] for role in ("speaker", "listener")
    )
    scenarios = [Scenario(f"{speaker} + {listener}", (speaker, listener)) for speaker in speakers for listener in listeners]
    if game.shows == "features" and game.caption_set.counts.max() < 2:
        return Suite("referential", 2, tuple(scenarios))
    who = "captions" if game.shows == "features" else "people"
    speaking, listening = captioners(game, held_out=True) if game.shows == "features" else people(game, first=1000)
    scenarios += [Scenario(f"{who} + {listener}", (speaking, listener)) for listener in listeners]
    scenarios += [Scenario(f"{speaker} + {who}", (speaker, listening)) for speaker in speakers]
    return Suite("referential", 2, tuple(scenarios))


def public_goods(experiment: Experiment) -> Suite:
    """Copies of the agent; then the agent alone among free riders, givers, conditional and random ones, and punishers where it can be."""
    game = experiment.game
    if not isinstance(game, PublicGoods):
        raise BadInput("suite 'public_goods' is for public goods; try --suite together")
    fits = f"players={game.players},levels={game.levels},punishment={game.punishes},exclusion={game.exclusion}"
    names = ["free_rider", "contributor", "conditional_contributor", "random_contributor"]
    among = {name: f"{name}:{fits}" for name in names}
    if game.has_sanctions:
        among["punisher"] = f"punisher:{fits},points_each={min(3, max(0, len(game.point_costs) - 1))}"
    return _alone_among("public_goods", game.players, among)


def commons(experiment: Experiment) -> Suite:
    """Copies of the agent; then the agent alone among greedy, sustainable, conditional and random harvesters."""
    game = experiment.game
    if not isinstance(game, Commons):
        raise BadInput("suite 'commons' is for the commons; try --suite together")
    fits = f"players={game.players},levels={game.levels},capacity={game.capacity},limit={game.limit}"
    names = ("greedy_harvester", "sustainable_harvester", "conditional_harvester", "random_harvester")
    return _alone_among("commons", game.players, {name: f"{name}:{fits}" for name in names})


def against(names: Sequence[str], game: Game) -> Suite:
    """No entry of `SUITES`, but one made up on the spot: the agent in the first seat, and one of these in all the others."""
    if len(game.roles) != 1 or seat_count(game) < 2:
        instead = "alone" if seat_count(game) == 1 else "together"
        raise BadInput(f"--against is for games of several equal seats; {type(game).__name__} has others; try --suite {instead}")
    short = [_short(name) for name in names]
    titles = names if len(set(short)) < len(short) else short
    return Suite(
        "against", 1, tuple(Scenario(title, (FOCAL, *(name,) * (seat_count(game) - 1))) for title, name in zip(titles, names, strict=True))
    )


def _short(name: str) -> str:
    """A path's last two parts, of which none says that it is a population; other names as they are."""
    return "/".join([part for part in Path(name).parts if part != "population"][-2:]) if is_an_agents_path(name) else name


def _alone_among(suite: str, players: int, among: dict[str, str]) -> Suite:
    """Copies of the agent in all seats, then the agent in the first and one of the others in all the rest."""
    scenarios = tuple(Scenario(name, (FOCAL, *(who,) * (players - 1))) for name, who in among.items())
    return Suite(suite, 1, (Scenario("themselves", (FOCAL,) * players), *scenarios))


def _against(names: tuple[str, ...]) -> list[Scenario]:
    return [Scenario(name, (FOCAL, name)) for name in names]


def _check_dilemma(suite: str, experiment: Experiment) -> IteratedDilemma:
    game = experiment.game
    if not isinstance(game, IteratedDilemma) or game.actions != ("cooperate", "defect") or not game.is_symmetric:
        raise BadInput(f"suite {suite!r} is for iterated dilemmas with the actions cooperate and defect; try --suite together")
    return game
