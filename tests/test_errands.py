"""Errands in a 3D room: hands, crates, and what others took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.face import draw
from envs.rooms3d.errands import CRATE, OBJECT, Errands, ErrandsState, errands
from envs.rooms3d.tasks import NAMES
from envs.rooms3d.world import ACTIONS, LID


def act(game: Errands, state: ErrandsState, *plays: str) -> tuple[ErrandsState, list[Any]]:
    """Each play is what every agent does in one step; all turns come back."""
    turns = []
    for play in plays:
        state, turn = game.step(state, {"fetcher": torch.tensor([[ACTIONS.index(name) for name in play.split()]])})
        turns.append(turn)
    return state, turns


def staged(
    game: Errands, agents: list[tuple[float, float, int]], places: list[tuple[float, float]], order: list[list[int]]
) -> ErrandsState:
    """A game whose agents (x, z, heading) and things (x, z; crates first, of objects those in crates first) are where a test wants them."""
    state = game.start(torch.tensor([1]))
    world, height = state.world, state.world.things.position[0, :, 1].tolist()
    position = torch.tensor([[(x, y, z) for (x, z), y in zip(places, height, strict=True)]])
    world = world._replace(
        place=torch.tensor([[(x, z) for x, z, _ in agents]]),
        heading=torch.tensor([[heading for *_, heading in agents]]),
        things=world.things._replace(position=position),
    )
    return state._replace(world=world, order=torch.tensor([order]))


def words(game: Errands, state: ErrandsState) -> list[int]:
    found: list[int] = game.observe(state)["fetcher"]["word"][0].tolist()
    return found


def test_errands_worked_by_hand() -> None:
    # A crate ahead with object 0 in it, object 1 to the right.
    game = Errands(agents=1, crates=1, objects=2, hidden=1, names=2, errands=2, turn=90.0, size=8, limit=50)
    state = staged(game, [(0.0, 1.0, 0)], [(0.0, 1.8), (0.0, 1.8), (0.6, 1.0)], [[0, 1]])
    names = (1 + state.objects[0]).tolist()
    assert words(game, state) == [names[0]]
    # The lid is closed: what is in reach is the crate, which nobody lifts.
    state, turns = act(game, state, "lift", "open", "lift")
    assert [turn.rewards["fetcher"].item() for turn in turns] == [0, 0, 1]
    assert [bool(turn.over) for turn in turns] == [False] * 3
    assert all(bool(turn.measures["fetched"].isnan().all()) for turn in turns)
    assert words(game, state) == [names[1]]
    assert state.world.holder.tolist() == [[-1, 0, -1]]
    # With full hands one puts down, back into the crate; then for the other one.
    state, turns = act(game, state, "lift", "turn_right", "lift")
    assert [turn.rewards["fetcher"].item() for turn in turns] == [0, 0, 1]
    assert state.world.inside.tolist() == [[-1, 0, -1]]
    assert turns[-1].over.item()
    assert turns[-1].measures["fetched"].tolist() == [[1.0]]
    assert words(game, state) == [0]
    assert state.step.item() == 6


def test_what_one_holds_another_waits_for_and_what_is_held_already_counts_at_once() -> None:
    game = Errands(agents=2, crates=0, objects=2, hidden=0, names=2, errands=2, turn=90.0, size=8, limit=50)
    # Both want object 0 between them; seat 0, which then wants object 1, is the nearer.
    state = staged(game, [(0.0, 1.0, 0), (0.0, 2.4, 2)], [(0.0, 1.6), (0.6, 1.0)], [[0, 1], [0, 1]])
    state, turns = act(game, state, "lift lift")
    assert turns[0].rewards["fetcher"].tolist() == [[1.0, 0.0]]
    state, turns = act(game, state, "stay lift", "lift stay", "turn_right lift", "lift stay", "lift lift")
    assert [turn.rewards["fetcher"].tolist()[0] for turn in turns] == [[0, 0], [0, 0], [0, 1], [1, 0], [0, 0]]
    # Seat 0 put object 1 down where it had lifted it. Seat 1 has put object 0 down as well; it takes object 1 only if it goes there.
    assert state.done.tolist() == [[2, 1]]
    assert not turns[-1].over.item()
    # Asked for what it holds already.
    state = state._replace(world=state.world._replace(holder=torch.tensor([[-1, 1]])))
    state, turns = act(game, state, "stay stay")
    assert turns[0].rewards["fetcher"].tolist() == [[0.0, 1.0]]
    assert turns[0].over.item()
    assert turns[0].measures["fetched"].tolist() == [[1.0, 1.0]]


def test_time_runs_out() -> None:
    game = Errands(agents=2, limit=3, size=8)
    _, turns = act(game, game.start(torch.tensor([4])), *["stay stay"] * 3)
    assert [turn.over.item() for turn in turns] == [False, False, True]
    assert turns[-1].measures["fetched"].tolist() == [[0.0, 0.0]]


def test_everything_has_a_place_of_its_own_and_the_hidden_are_in_crates() -> None:
    game, batch = errands(), 500
    state = game.start(torch.arange(batch))
    things, crates = state.world.things.position, game.crates
    assert state.world.inside[0].tolist() == [-1, -1, 0, 1, -1, -1, -1]
    assert torch.equal(things[:, :2, ::2], things[:, 2:4, ::2])
    assert things[:, 2:4, 1].unique().item() == pytest.approx(LID + OBJECT)
    apart = torch.cat([state.world.place, things[:, :2, ::2], things[:, 4:, ::2]], 1)
    distance = torch.cdist(apart, apart) + 10 * torch.eye(apart.shape[1])
    assert distance.min() > 1.09
    # Names, hiding places and errands are all drawn: of ten names each is as often hidden as any other.
    assert len(state.objects.unique()) == 10
    assert (state.objects.sort(1).values.diff(dim=1) > 0).all()
    hidden = torch.bincount(state.objects[:, :2].flatten(), minlength=10)
    assert hidden.min() > 60
    assert (state.order.sort(2).values.diff(dim=2) > 0).all()
    assert torch.bincount(state.order[:, 0, 0]).min() > 60
    assert len(state.world.heading.unique()) == 24
    assert crates == 2


def test_objects_of_every_kind_fit_into_a_crate_with_its_lid_closed() -> None:
    assert OBJECT * 2**0.5 <= CRATE
    assert 2 * OBJECT <= 2 * CRATE - LID


@pytest.mark.parametrize("agents", [1, 2, 8])
def test_agents_with_random_hands_fetch_something_and_nothing_is_lost(agents: int) -> None:
    game = Errands(agents=agents, size=4, limit=200, errands=2, room=6.0)
    batch = 480 // agents
    state, chance = game.start(torch.arange(batch)), torch.Generator().manual_seed(1)
    paid: Tensor = torch.zeros(batch, agents)
    lifted = 0
    for _ in range(200):
        action = torch.randint(len(ACTIONS), (batch, agents), generator=chance)
        before = state
        state, turn = game.step(state, {"fetcher": action})
        paid += turn.rewards["fetcher"]
        lifted += int((state.world.holder != before.world.holder).sum())
        held = (state.world.holder[:, None] == torch.arange(agents)[:, None]).sum(2)
        assert held.max() <= 1
    assert torch.equal(paid, state.done.float())
    assert lifted > 40
    assert paid.sum() > 0


def test_what_is_told_names_where_the_wanted_is() -> None:
    game = Errands(agents=2, crates=1, objects=2, hidden=1, names=2, errands=1, turn=90.0, size=8)
    state = staged(game, [(0.0, 1.0, 0), (1.5, 1.0, 0)], [(0.0, 1.8), (0.0, 1.8), (-1.5, 3.0)], [[0], [1]])
    first, second = (NAMES[number] for number in state.objects[0].tolist())
    told = game.describe(state, 0).text
    assert told == (
        f"step 0 of 300: fetcher 0 wants the {first}, in crate 1, closed (0 of 1 done); "
        f"fetcher 1 wants the {second}, on the floor (0 of 1 done)"
    )
    state, _ = act(game, state, "open stay")
    assert "in crate 1, open" in game.describe(state, 0).text
    state = state._replace(world=state.world._replace(holder=torch.tensor([[-1, 0, 0]])), done=torch.tensor([[1, 0]]))
    scene = game.describe(state, 0)
    assert f"fetcher 0 has done all its errands; fetcher 1 wants the {second}, which fetcher 0 holds" in scene.text
    assert np.unique(draw(scene)).size > 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agents": 0}, "agents is 0; want from 1 to 8"),
        ({"agents": 9}, "agents is 9; want from 1 to 8"),
        ({"crates": -1}, "crates is -1; want from 0 to 100"),
        ({"objects": 0}, "objects is 0; want from 1 to 40"),
        ({"hidden": 3}, "hidden is 3; want from 0 to 2, a crate for each, and no more than there are objects"),
        ({"names": 4}, "names is 4; want from 5, so that all differ, to 40"),
        ({"errands": 6}, "errands is 6; want from 1 to the number of objects, 5"),
        ({"limit": 0}, "limit is 0; want from 1 to 100,000 steps"),
        ({"room": 2.0}, "room is 2.0; want from 2.2 to 50 metres"),
        (
            {"room": 3.0},
            "room is 3.0; want it larger: it has 4 places, 1.1 metres apart, and agents, crates and the objects that are in none",
        ),
        ({"size": 0}, "size is 0; want from 1 to 2048 pixels"),
        ({"stride": 0.0}, "stride is 0.0; want from 0.05 to 0.4 metres"),
        ({"turn": 7.0}, "turn is 7.0; want degrees from 1 to 90 that divide 360"),
        ({"reach": 0.0}, "reach is 0.0; want above 0, up to 10 metres"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Errands(**settings)
