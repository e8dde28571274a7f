"""Agents on disk and co-players by name. An agent is two files of data: `agent.safetensors` (weights), `agent.json` (settings, spaces).

Loading one never executes code from the file: settings may only name this project's own dataclasses, weights are plain tensors.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from agents.agent import Agent, AgentConfig
from agents.co_players import CO_PLAYERS
from agents.occupant import Occupant
from training.files import write_atomically
from training.settings import BadInput, from_json, load, nearest, to_json

FORMAT = 1


def save_agent(agent: Agent, directory: Path) -> None:
    """Writes agent.safetensors, then agent.json with its digest; each atomically."""
    weights = save_tensors({name: value.detach().cpu().contiguous() for name, value in agent.state_dict().items()})
    about = {
        "format": FORMAT,
        "agent": to_json(agent.config),
        "observation_space": space_to_json(agent.observation_space),
        "action_space": space_to_json(agent.action_space),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "agent.safetensors", weights)
    write_atomically(directory / "agent.json", json.dumps(about, indent=1).encode())


def load_agent(directory: str | Path, device: torch.device | str = "cpu") -> Agent:
    """The agent that `save_agent` wrote, ready to play. Raises BadInput naming the file and what is wrong with it."""
    directory = Path(directory)
    about_file, weights_file = directory / "agent.json", directory / "agent.safetensors"
    for file in (about_file, weights_file):
        if not file.is_file():
            raise BadInput(f"{directory} is no agent: it has no {file.name}")
    try:
        about = json.loads(about_file.read_text())
        config = from_json(about["agent"])
        spaces = space_from_json(about["observation_space"]), space_from_json(about["action_space"])
        found, digest = about["format"], about["weights_sha256"]
    # Whatever a damaged file makes of itself: it is the file that is wrong.
    except Exception as error:
        raise BadInput(f"{about_file} is damaged: {error}") from error
    if found != FORMAT:
        raise BadInput(f"{about_file} has format {found}; this version reads format {FORMAT}")
    if not isinstance(config, AgentConfig) or not isinstance(spaces[0], gym.spaces.Dict):
        raise BadInput(f"{about_file} is damaged: it does not describe an agent")
    data = weights_file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadInput(f"{weights_file} is damaged: its contents do not match the digest in agent.json")
    agent = config.build(*spaces, seed=0)
    try:
        agent.load_state_dict(load_tensors(data))
    except (RuntimeError, safetensors.SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"{weights_file} does not fit the agent that agent.json describes: {first}") from error
    return agent.to(device).eval()


def co_player(name: str) -> Occupant:
    """An entry of `CO_PLAYERS`, or the trained agent at a path. Raises BadInput with the nearest match."""
    if name in CO_PLAYERS:
        occupant: Occupant = load(CO_PLAYERS[name])()
        return occupant
    if (Path(name) / "agent.json").exists() or "/" in name:
        return load_agent(name)
    raise BadInput(f"no co-player is called {name!r}; {nearest(name, CO_PLAYERS)} (a trained agent goes by its path)")


def space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    """A space as plain values. Raises ValueError for a kind that agents do not use."""
    match space:
        case gym.spaces.Discrete():
            return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
        case gym.spaces.MultiDiscrete():
            return {"kind": "multi_discrete", "n": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
        case gym.spaces.MultiBinary():
            return {"kind": "multi_binary", "n": [int(n) for n in space.shape]}
        case gym.spaces.Box():
            return {
                "kind": "box",
                "shape": list(space.shape),
                "dtype": str(space.dtype),
                "low": _bound_to_json(space.low),
                "high": _bound_to_json(space.high),
            }
        case gym.spaces.Dict():
            return {"kind": "dict", "fields": {name: space_to_json(field) for name, field in space.items()}}
    raise ValueError(f"{space} cannot be written; want Discrete, MultiDiscrete, MultiBinary, Box, or a Dict of these")


def space_from_json(data: dict[str, Any]) -> gym.Space[Any]:
    match data["kind"]:
        case "discrete":
            return gym.spaces.Discrete(data["n"], start=data["start"])
        case "multi_discrete":
            return gym.spaces.MultiDiscrete(data["n"], start=data["start"])
        case "multi_binary":
            return gym.spaces.MultiBinary(data["n"] if len(data["n"]) > 1 else data["n"][0])
        case "box":
            shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
            low, high = (np.broadcast_to(np.array(data[end], dtype=float), shape).astype(dtype) for end in ("low", "high"))
            return gym.spaces.Box(low, high, shape, dtype.type)
        case "dict":
            return gym.spaces.Dict({name: space_from_json(field) for name, field in data["fields"].items()})
    raise ValueError(f"no space is of kind {data['kind']!r}")


def _bound_to_json(bound: NDArray[Any]) -> Any:
    """One number where all are the same: pictures have many."""
    flat = bound.astype(float).ravel()
    return flat[0].item() if flat.size and (flat == flat[0]).all() else bound.astype(float).tolist()
