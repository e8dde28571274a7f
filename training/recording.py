"""Recorded trials: everything that happened, and enough to play it again exactly. Safetensors with a JSON header; data, never code.

Tensors: the seeds, and every leaf of the rollout's log ([T, ...], by path: observations, actions, log-probabilities, values, policies,
rewards, measures, the game's state after each step). Header: the game, the seating, who the occupants are and digests of their weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from agents.occupant import Occupant
from envs.game import Game
from training import tree
from training.files import write_atomically
from training.population import co_player, is_an_agents_path, load_agent, wants_trust_to_play
from training.rollout import Rollout, Step, Table
from training.seating import Seating
from training.settings import BadInput, from_json, to_json

FORMAT = 1


class Recording(NamedTuple):
    """about: the header. tensors: by path."""

    about: dict[str, Any]
    tensors: dict[str, Tensor]


class Comparison(NamedTuple):
    """identical: bit for bit. worst: the largest difference of real numbers. differs: what else differs, "" where nothing does."""

    identical: bool
    worst: float
    differs: str


def play(
    game: Game,
    seating: Seating,
    occupants: Mapping[str, Occupant],
    seeds: Tensor,
    episodes: int = 1,
    look: Callable[[Rollout, Table], None] | None = None,
) -> tuple[Rollout, Step]:
    """Whole trials with everything kept. look: called before every step."""
    # A game of its own: whatever it counts, it counts from the start, now and when this is played again.
    rollout = Rollout(dataclasses.replace(game), seating, occupants, episodes=episodes, watched=None, keeps_states=True)  # type: ignore[type-var]
    table = rollout.start(seeds)
    if look is None:
        return rollout, rollout.play(table, rollout.trial_steps)[1]
    steps = []
    for _ in range(rollout.trial_steps):
        look(rollout, table)
        table, step = rollout.play(table, 1)
        steps.append(step)
    return rollout, tree.map_leaves(lambda *parts: torch.cat(parts), *steps)


def save(path: Path, rollout: Rollout, seeds: Tensor, log: Step, scenario: str, agents: Mapping[str, str]) -> None:
    """agents: {occupant: digest of its weights} for those of the run's population; the others are named in `CO_PLAYERS`."""
    seating = rollout.seating
    about = {
        "format": FORMAT,
        "scenario": scenario,
        "game": to_json(rollout.game),
        "episodes": rollout.episodes,
        "occupants": {name: {"agent": agents[name]} if name in agents else {"co_player": name} for name in seating.occupants},
        "seats": seating.seats.tolist(),
        "torch": torch.__version__,
    }
    tensors = {"seeds": seeds, **tree.named_leaves(log)}
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save_tensors({name: leaf.contiguous().clone() for name, leaf in tensors.items()}, {"coterie": json.dumps(about)})
    write_atomically(path, data)


def load(path: Path) -> Recording:
    """Raises BadInput naming the file and what is wrong with it."""
    if not path.is_file():
        raise BadInput(f"there is no recording {path}")
    try:
        with safe_open(path, framework="pt") as opened:
            about = json.loads((opened.metadata() or {})["coterie"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        found = about["format"]
        assert isinstance(about["occupants"], dict)
        assert isinstance(about["seats"], list)
        assert "seeds" in tensors
    except (safetensors.SafetensorError, KeyError, ValueError, OSError, TypeError, AssertionError) as error:
        raise BadInput(f"recording {path} is damaged: {error or 'it holds no trial'}") from error
    if found != FORMAT:
        raise BadInput(f"recording {path} has format {found}; this version reads format {FORMAT}")
    return Recording(about, tensors)


def replay(
    recording: Recording, run_directory: Path, trust: bool = False, look: Callable[[Rollout, Table], None] | None = None
) -> tuple[Rollout, Step]:
    """Plays the recorded trials again, with the run's agents. look: called before every step.

    Raises BadInput where an agent is not the one that was recorded.
    """
    about = recording.about
    occupants: dict[str, Occupant] = {}
    for name, who in about["occupants"].items():
        if not isinstance(who, dict):
            raise BadInput(f"the recording is damaged: occupant {name!r} is {who!r}")
        if "agent" in who:
            occupants[name] = _recorded_agent(run_directory, name, who["agent"])
        else:
            occupants[name] = _recorded_co_player(str(who.get("co_player")), trust)
    try:
        game = from_json(about["game"], trust)
        assert isinstance(game, Game)
        seats = torch.tensor(about["seats"], dtype=torch.int64)
        seating = Seating(tuple(about["occupants"]), seats, ("recorded",), torch.zeros(len(seats), dtype=torch.int64))
        return play(game, seating, occupants, recording.tensors["seeds"], about["episodes"], look)
    except BadInput:
        raise
    # Whatever a damaged file makes of itself: it is the file that is wrong.
    except Exception as error:
        raise BadInput(f"the recording is damaged: {error or 'it does not hold a game'}") from error


# Which of a third-party game's live environments played, and which time, is no part of what was played.
_NOT_OF_THE_TRIAL = ("seeds", "game.copy", "game.use")


def compare(recording: Recording, log: Step, tolerance: float = 1e-4) -> Comparison:
    """How the recorded trials and the replayed ones differ. Whole numbers (actions, states) must agree; real ones to `tolerance`."""
    replayed = {name: leaf for name, leaf in tree.named_leaves(log).items() if name not in _NOT_OF_THE_TRIAL}
    recorded = {name: leaf for name, leaf in recording.tensors.items() if name not in _NOT_OF_THE_TRIAL}
    if replayed.keys() != recorded.keys():
        return Comparison(False, 0.0, f"what is kept: {sorted(replayed.keys() ^ recorded.keys())[0]}")
    worst, identical = 0.0, True
    for name in recorded:
        a, b = recorded[name], replayed[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return Comparison(False, worst, f"{name}: its shape or type")
        same = (a == b) | (a.isnan() & b.isnan()) if a.is_floating_point() else a == b
        if bool(same.all()):
            continue
        identical = False
        if not a.is_floating_point() or not bool((a - b)[~same].abs().max() <= tolerance):
            step = int((~same).flatten(1).any(1).nonzero()[0, 0]) if a.ndim > 1 else 0
            return Comparison(False, worst, f"{name} at step {step + 1}")
        worst = max(worst, float((a - b)[~same].abs().max()))
    return Comparison(identical, worst, "")


def _recorded_agent(run_directory: Path, name: str, digest: str) -> Occupant:
    population = (run_directory / "population").resolve()
    folder = (population / name).resolve()
    if folder.parent != population:
        raise BadInput(f"the recording names an agent {name!r} outside the run's population")
    agent = load_agent(folder)
    if weights_digest(folder) != digest:
        raise BadInput(f"{folder} has other weights than when this was recorded; evaluate the run again to record anew")
    return agent


def _recorded_co_player(name: str, trust: bool) -> Occupant:
    if "/" in name or is_an_agents_path(name):
        raise BadInput(f"the recording names an agent {name!r} outside the run's population")
    if wants_trust_to_play(name) and not trust:
        raise BadInput(f"the recording wants to run the code of co-player {name!r}; say --trust if you know it")
    return co_player(name)


def weights_digest(folder: Path) -> str:
    """The digest of an agent's weights, as its agent.json states it."""
    return str(json.loads((folder / "agent.json").read_text())["weights_sha256"])
