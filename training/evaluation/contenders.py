"""Who is evaluated: learners of runs, trained agents, whole directories of them, scripts, and policies of other people's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agents.co_players import CO_PLAYERS
from agents.occupant import Occupant
from envs import GAMES
from envs.game import Game
from training.experiment import Experiment
from training.population import co_player, load_agent, members
from training.run import Run
from training.settings import BadInput, lookup, override, told


class Member(NamedTuple):
    """One policy. learner: its name in its run; "" where it belongs to none."""

    occupant: Occupant
    run: Run | None = None
    learner: str = ""


class Contender(NamedTuple):
    """One line of the results: the same learner of several seeds of an experiment, or somebody alone.

    kin: contenders of one experiment have this in common; they are not compared with one another.
    """

    name: str
    kin: str
    members: tuple[Member, ...]


class Entrants(NamedTuple):
    """Everyone in an evaluation, and what they play. experiment: the first run's, or one with nothing but a game. plays_its_runs_game:
    nobody asked for another, so that results belong into the runs' directories.
    """

    contenders: tuple[Contender, ...]
    runs: tuple[Run, ...]
    experiment: Experiment
    plays_its_runs_game: bool


def enter(
    names: Sequence[str | Path | Run],
    game: str | None = None,
    episodes: int | None = None,
    *,
    trust: bool = False,
    skip: Callable[[str], None] | None = None,
) -> Entrants:
    """Finds everyone who is named. A name is a run, an agent's directory, a directory of agents, or a co-player's (see
    `training.population.co_player`). Runs that differ only in their seed are seeds of one contender.

    game: by name, with settings if need be (`chicken:rounds=50,noise=0.1`); otherwise the runs', or that of the run in whose population an
    agent lies, or the prisoner's dilemma. episodes: of a trial; otherwise the runs'. skip: told of damaged agents, which are then left
    out; without it they are refused. Raises BadInput.
    """
    runs: list[Run] = []
    alone: list[Contender] = []
    homes: list[Run] = []
    for name in names:
        if isinstance(name, Run) or (Path(name) / "experiment.json").is_file():
            runs.append(name if isinstance(name, Run) else Run.open(name, trust))
        elif str(name) not in CO_PLAYERS and (Path(name).is_dir() or "/" in str(name)):
            paths = members(name) if Path(name).is_dir() else _missing(Path(name))
            alone += _load(paths, trust, skip)
            homes += [Run.open(Path(path).parent.parent, trust) for path in paths if (Path(path).parents[1] / "experiment.json").is_file()]
        else:
            alone.append(Contender(str(name), str(name), (Member(co_player(str(name))),)))
    played = [run.experiment for run in (*runs, *homes)]
    for experiment in played:
        if (experiment.game, experiment.episodes) != (played[0].game, played[0].episodes):
            raise BadInput(f"these play different games: {_apart(played[0], experiment)}; evaluate them apart")
    chosen = played[0] if played else Experiment(game=_first_game())
    if game is not None:
        chosen = override(chosen, f"game={game}")
    if episodes is not None:
        chosen = replace(chosen, episodes=episodes)
    contenders = [*_seeds_together(runs, skip), *alone]
    if not contenders:
        raise BadInput("nobody is left to evaluate")
    same = not played or (chosen.game, chosen.episodes) == (played[0].game, played[0].episodes)
    return Entrants(tuple(_with_different_names(contenders)), tuple(runs), chosen, same)


def _apart(one: Experiment, other: Experiment) -> str:
    """What is not the same in two experiments' games, in words."""
    if type(one.game) is not type(other.game):
        return f"{type(one.game).__name__} and {type(other.game).__name__}"
    sides = [
        {**dict(line.split("=", 1) for line in told(each.game) if "=" in line), "episodes": str(each.episodes)} for each in (one, other)
    ]
    there = [(name, *(side.get(name, "nothing") for side in sides)) for name in sides[0] | sides[1]]
    return ", ".join(f"{name} is {first} and {second}" for name, first, second in there if first != second)


def _first_game() -> Game:
    first: Game = lookup(GAMES, next(iter(GAMES)), "game")()
    return first


def _missing(path: Path) -> list[str]:
    raise BadInput(f"there is no {path}: want a run, an agent, or a directory of agents")


def _load(paths: list[str], trust: bool, skip: Callable[[str], None] | None) -> list[Contender]:
    found = []
    for path in paths:
        try:
            agent = load_agent(path, trust=trust)
        except BadInput as problem:
            if skip is None:
                raise BadInput(f"{problem} (--skip-damaged leaves it out)" if len(paths) > 1 else str(problem)) from problem
            skip(f"{problem}; left out")
            continue
        parts = [part for part in Path(path).parts if part != "population"]
        found.append(Contender("/".join(parts[-2:]), path, (Member(agent),)))
    return found


def _seeds_together(runs: list[Run], skip: Callable[[str], None] | None) -> list[Contender]:
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(repr(apart_from_seed(run.experiment)), []).append(run)
    presets = [family[0].experiment.preset for family in families.values()]
    contenders = []
    for family in families.values():
        seeds = [run.experiment.seed for run in family]
        for number, run in enumerate(family):
            if run.experiment.seed in seeds[:number]:
                raise BadInput(f"{run.directory} has seed {run.experiment.seed}, as another run has; only different seeds tell about seeds")
        preset = family[0].experiment.preset
        label = "" if len(families) == 1 else (preset if presets.count(preset) == 1 else family[0].directory.name) + "/"
        loaded = [(run, _population(run, skip)) for run in family]
        for learner in family[0].experiment.scheme.learners(family[0].experiment.game):
            present = tuple(Member(agents[learner], run, learner) for run, agents in loaded if learner in agents)
            if present:
                contenders.append(Contender(label + learner, family[0].directory.name, present))
    return contenders


def _population(run: Run, skip: Callable[[str], None] | None) -> dict[str, Occupant]:
    agents: dict[str, Occupant] = {}
    try:
        return dict(run.population())
    except BadInput as problem:
        if skip is None or not (run.directory / "population").is_dir():
            raise
        skip(f"{problem}; left out")
    for learner in run.experiment.scheme.learners(run.experiment.game):
        try:
            agents[learner] = load_agent(run.directory / "population" / learner)
        except BadInput:
            continue
    return agents


def apart_from_seed(experiment: Experiment) -> Experiment:
    """What makes two runs the same experiment: all that decides what is learned, save luck."""
    return replace(experiment, seed=0, runners=0, learners=0, device="cpu", checkpoint_every=1, suite="")


def _with_different_names(contenders: list[Contender]) -> list[Contender]:
    """The same name twice gets a number behind it."""
    seen: dict[str, int] = {}
    named = []
    for contender in contenders:
        seen[contender.name] = seen.get(contender.name, 0) + 1
        count = seen[contender.name]
        named.append(contender if count == 1 else contender._replace(name=f"{contender.name} ({count})"))
    return named
