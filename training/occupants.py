"""Everyone whom an experiment needs, checked before anything starts."""

from __future__ import annotations

from agents.agent import Agent
from agents.heads import head_of
from training.experiment import Experiment
from training.population import co_player
from training.settings import BadInput


def check(experiment: Experiment) -> None:
    """Raises BadInput where seats, spaces or names do not fit together."""
    import torch

    try:
        roles = experiment.roles()
        for name in experiment.scheme.learners(experiment.game):
            head_of(roles[name].action_space, 1)
        agents = experiment.build_learners()
    except ValueError as error:
        raise BadInput(str(error)) from error
    if experiment.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device is 'cuda', but PyTorch finds no GPU here; want 'cpu'")
    del agents
    seeds = torch.arange(1)
    state = experiment.game.start(seeds)
    observed = experiment.game.observe(state)
    for name in experiment.scheme.co_players(experiment.game):
        occupant, role = co_player(name), roles[name]
        if isinstance(occupant, Agent):
            spaces = (occupant.observation_space, occupant.action_space)
            if spaces != (role.observation_space, role.action_space):
                raise BadInput(
                    f"agent {name} sees {spaces[0]} and acts in {spaces[1]}; the game has {role.observation_space} and {role.action_space}"
                )
            continue
        seen = {field: value[:, 0] for field, value in observed[role.name].items()}
        try:
            occupant.act(seen, occupant.start(seeds), torch.zeros(1))
        except (KeyError, RuntimeError, IndexError) as error:
            raise BadInput(
                f"co-player {name!r} cannot play this game: it sees {', '.join(seen)} ({type(error).__name__}: {error})"
            ) from error
