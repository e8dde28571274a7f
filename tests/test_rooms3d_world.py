"""The world of the 3D rooms: walking, bumping, lifting, opening, and who sees whom."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.chance import integers
from envs.rooms3d.camera import Camera
from envs.rooms3d.primitives import Kind, Slots
from envs.rooms3d.world import ACTIONS, World, WorldState, four_rooms, one_room
from training import tree

ROOM = one_room(4.0, 4.0)


def things_of(*things: tuple[Kind, float, float, float], batch: int = 1) -> Slots:
    """(kind, x, z, half size) of things that stand on the floor."""
    count = len(things)
    kind = torch.tensor([int(thing[0]) for thing in things], dtype=torch.int64).expand(batch, -1)
    position = torch.tensor([(x, size, z) for _, x, z, size in things]).reshape(count, 3).expand(batch, -1, -1)
    size = torch.tensor([(size,) * 3 for *_, size in things]).reshape(count, 3).expand(batch, -1, -1)
    one = torch.ones(batch, count)
    return Slots(kind, position, size, one * 0, one[..., None].expand(-1, -1, 3), kind * 0, one, one > 0)


def begin(world: World, *agents: tuple[float, float, int], things: tuple[tuple[Kind, float, float, float], ...] = ()) -> WorldState:
    """Agents (x, z, heading)."""
    places = torch.tensor([[(x, z) for x, z, _ in agents]])
    return world.start(places, torch.tensor([[heading for *_, heading in agents]]), things_of(*things))


def act(world: World, state: WorldState, *plays: str) -> WorldState:
    """Each play is what every agent does in one step: "forward", or "forward lift" for two of them."""
    for play in plays:
        state = world.move(state, torch.tensor([[ACTIONS.index(name) for name in play.split()]]))
    return state


def place_of(state: WorldState, seat: int = 0) -> tuple[float, float]:
    x, z = state.place[0, seat].tolist()
    return round(x, 4), round(z, 4)


@pytest.mark.parametrize(
    ("plays", "place"),
    [
        ("stay", (0.0, 1.0)),
        ("forward", (0.0, 1.3)),
        ("back", (0.0, 0.7)),
        ("left", (-0.3, 1.0)),
        ("right", (0.3, 1.0)),
        ("turn_right forward", (0.3, 1.0)),
        ("turn_left forward", (-0.3, 1.0)),
        ("turn_right right", (0.0, 0.7)),
        ("turn_left turn_left turn_left forward", (0.3, 1.0)),
        ("look_up forward", (0.0, 1.3)),
    ],
)
def test_walking_and_turning(plays: str, place: tuple[float, float]) -> None:
    world = World(ROOM, turn=90.0)
    assert place_of(act(world, begin(world, (0.0, 1.0, 0)), *plays.split())) == place


def test_turning_goes_round_and_looking_ends_at_sixty_degrees() -> None:
    world = World(ROOM, turn=15.0)
    state = begin(world, (0.0, 1.0, 0))
    assert act(world, state, *["turn_left"] * 25).heading.item() == 23
    assert act(world, state, *["look_up"] * 9).tilt.item() == 4
    assert act(world, state, *["look_up"] * 9, *["look_down"] * 9).tilt.item() == -4
    eyes = world.eyes(act(world, state, "turn_right", "turn_right", "look_down"))
    assert eyes.yaw.item() == pytest.approx(math.radians(30))
    assert eyes.pitch.item() == pytest.approx(math.radians(-15))


@pytest.mark.parametrize("turn", [1.2, 2.4, 3.6, 7.2, 20.0, 30.0, 72.0, 90.0])
def test_turns_that_divide_the_circle_go_round_and_looking_is_by_fifteen_degrees_whatever_they_are(turn: float) -> None:
    world = World(ROOM, turn=turn)
    state = begin(world, (0.0, 1.0, 0))
    assert act(world, state, *["turn_right"] * round(360 / turn)).heading.item() == 0
    assert math.degrees(world.eyes(act(world, state, "turn_right")).yaw.item()) == pytest.approx(turn)
    pitches = [math.degrees(world.eyes(act(world, state, *["look_down"] * count)).pitch.item()) for count in (1, 2, 4, 5)]
    assert pitches == pytest.approx([-15, -30, -60, -60])


def test_a_wall_stops_a_body_at_its_radius() -> None:
    """The far wall's face is at 4; a body of 0.2 gets as near as whole steps of 0.3 from 1 lead."""
    world = World(ROOM)
    assert place_of(act(world, begin(world, (0.0, 1.0, 0)), *["forward"] * 20)) == (0.0, 3.7)


def test_a_body_slides_along_a_wall() -> None:
    """45 degrees to the right at the far wall: 0.3 * sqrt(1/2) aside each step, and no further ahead."""
    world = World(ROOM, turn=45.0)
    assert place_of(act(world, begin(world, (0.0, 3.75, 1)), "forward", "forward")) == (0.4243, 3.75)


def test_things_stand_in_the_way_until_they_are_lifted() -> None:
    world = World(ROOM)
    state = begin(world, (0.0, 1.0, 0), things=((Kind.BALL, 0.0, 2.0, 0.2),))
    assert place_of(act(world, state, "forward", "forward", "forward", "forward")) == (0.0, 1.6)
    assert place_of(act(world, state, "forward", "lift", "forward", "forward", "forward")) == (0.0, 2.2)


def test_corners_of_boxes_stand_farther_out_than_balls() -> None:
    """Half a diagonal of 0.283 against a radius of 0.2, before a body of 0.2 that comes from 0.42 away in steps of 0.01."""
    world = World(ROOM, step=0.01)
    for kind, gap in ((Kind.BALL, 0.02), (Kind.CYLINDER, 0.02), (Kind.BOX, -0.0628), (Kind.PYRAMID, -0.0628)):
        state = begin(world, (0.0, 1.58, 0), things=((kind, 0.0, 2.0, 0.2),))
        assert world.gaps(state).item() == pytest.approx(gap, abs=1e-3)


def test_two_who_meet_stop_without_touching() -> None:
    """1.3 metres apart, bodies of 0.2: after one step each they are 0.7 apart, and another would leave 0.1."""
    world = World(ROOM, agents=2, turn=90.0)
    state = act(world, begin(world, (0.0, 1.0, 0), (0.0, 2.3, 2)), *["forward forward"] * 4)
    assert (place_of(state, 0), place_of(state, 1)) == ((0.0, 1.3), (0.0, 2.0))
    # One alone may use the space that is left.
    assert place_of(act(world, state, "forward stay"), 0) == (0.0, 1.6)


def test_neither_gets_the_place_that_both_want() -> None:
    world = World(ROOM, agents=2, turn=90.0)
    state = act(world, begin(world, (-0.45, 1.0, 1), (0.45, 1.0, 3)), "forward forward")
    assert (place_of(state, 0), place_of(state, 1)) == ((-0.45, 1.0), (0.45, 1.0))


def test_nobody_ever_walks_into_walls_things_or_each_other() -> None:
    world = World(one_room(3.0, 3.0), agents=8, turn=30.0)
    seeds = torch.arange(12)
    spots = world.scatter(seeds, 10, 0.6)
    things = things_of((Kind.CYLINDER, 0.0, 0.0, 0.25), (Kind.BALL, 0.0, 0.0, 0.25), batch=12)
    things = things._replace(position=torch.stack([spots[:, 8:, 0], torch.full((12, 2), 0.25), spots[:, 8:, 1]], -1))
    state = world.start(spots[:, :8], integers(seeds[:, None], 12, 1, torch.arange(8)), things)
    walked = torch.zeros(12, 8)
    for step in range(150):
        after = world.move(state, integers(seeds[:, None], LIFT, 2, step, torch.arange(8)))
        x, z = after.place.unbind(-1)
        assert (x.abs() <= 1.3 + 1e-5).all()
        assert ((z >= 0.2 - 1e-5) & (z <= 2.8 + 1e-5)).all()
        apart = torch.cdist(after.place, after.place) + 9 * torch.eye(8)
        assert apart.min() >= 0.4 - 1e-5
        assert world.gaps(after).min() >= -1e-5
        walked += (after.place - state.place).norm(dim=-1)
        state = after
    assert walked.min() > 1.0


LIFT = ACTIONS.index("lift")


def test_four_rooms_are_left_through_doors_alone() -> None:
    """The walls between rooms of 5 are around z = 5.1 and x = 0; doors of 1.4 are in the middles of each room's two inner walls."""
    world = World(four_rooms(), turn=15.0)
    seeds = torch.arange(64)
    state = world.start(world.scatter(seeds, 1, 1.0), integers(seeds[:, None], 24, 1, 0)[:, None, 0], things_of(batch=64))
    crossings = 0
    for step in range(200):
        # Mostly forward, now and then a turn or a step aside.
        action = integers(seeds[:, None], 16, 2, step)
        after = world.move(state, torch.where(action < 8, action, ACTIONS.index("forward")))
        for axis, other, wall, doors in ((0, 1, 0.0, (2.5, 7.7)), (1, 0, 5.1, (-2.6, 2.6))):
            crossed = (state.place[..., axis] < wall) != (after.place[..., axis] < wall)
            where = after.place[..., other][crossed]
            assert all(min(abs(place - door) for door in doors) <= 0.5 + 1e-4 for place in where.tolist())
            crossings += int(crossed.sum())
        state = after
    assert crossings > 10


def test_what_is_lifted_goes_along_and_is_put_down_ahead() -> None:
    """Put down at 0.2 + 0.1 + 0.05 before the body's middle."""
    world = World(ROOM, turn=90.0)
    state = act(world, begin(world, (0.0, 1.0, 0), things=((Kind.BALL, 0.0, 1.6, 0.1),)), "lift")
    assert state.holder.tolist() == [[0]]
    state = act(world, state, "turn_right", "forward", "forward", "lift")
    assert state.holder.tolist() == [[-1]]
    assert state.things.position[0, 0].tolist() == pytest.approx([0.95, 0.1, 1.0])


def held_at(world: World, state: WorldState) -> list[float]:
    """Where the first thing is seen: after floor, ceiling and walls."""
    return world.slots(state).position[0, 2 + len(world.walls)].tolist()


def test_what_is_held_is_seen_on_its_holders_side_of_a_wall() -> None:
    """Before the chest, 0.2 + 0.1 + 0.15 ahead, but no nearer than its radius to a wall, of which there is one from z = 2 to 2.1."""
    world = World((*ROOM, (-2.0, 2.0, 2.0, 2.1)), turn=90.0)
    ball = (Kind.BALL, 0.0, 1.5, 0.1)
    state = act(world, begin(world, (0.0, 1.0, 0), things=(ball,)), "lift")
    assert held_at(world, state) == pytest.approx([0.0, 0.9, 1.45])
    state = act(world, state, "forward", "forward")
    assert place_of(state) == (0.0, 1.6)
    assert held_at(world, state) == pytest.approx([0.0, 0.9, 1.9], abs=2e-3)
    assert held_at(world, act(world, state, "turn_right")) == pytest.approx([0.45, 0.9, 1.6], abs=2e-3)
    # Who is in the other room sees it no more than what else is on this side.
    watcher = World(world.walls, turn=90.0, agents=2)
    state = act(watcher, begin(watcher, (0.0, 1.7, 0), (0.0, 3.5, 2), things=((Kind.BALL, 0.0, 1.98 - 0.1, 0.1),)), "lift stay")
    assert state.holder.tolist() == [[0]]
    assert 2 + len(world.walls) + 1 not in watcher.look(state, Camera(64)).segmentation[0, 1].unique().tolist()


@pytest.mark.parametrize("kind", [Kind.BALL, Kind.BOX])
def test_what_is_held_is_in_no_wall_wherever_its_holder_goes(kind: Kind) -> None:
    """The largest thing that can be lifted, 0.3 in radius, in rooms of four with doors."""
    size = 0.3 if kind == Kind.BALL else 0.21
    world = World(four_rooms(), turn=15.0)
    seeds = torch.arange(64)
    state = world.start(
        world.scatter(seeds, 1, 1.0), integers(seeds[:, None], 24, 1, 0)[:, None, 0], things_of((kind, 0.0, 0.0, size), batch=64)
    )
    state = state._replace(holder=torch.zeros_like(state.holder))
    corners, walked = torch.tensor(world.walls), 0.0
    for step in range(150):
        action = integers(seeds[:, None], 16, 2, step)
        after = world.move(state, torch.where(action < 8, action, ACTIONS.index("forward")))
        walked += float((after.place - state.place).abs().sum())
        state = after
        place = world.slots(state).position[:, 2 + len(world.walls), ::2]
        nearest = torch.minimum(torch.maximum(place[:, None], corners[:, :2]), corners[:, 2:])
        assert (place[:, None] - nearest).norm(dim=-1).min() > 0.29
        # It is beside its holder: no wall is between them.
        assert world._no_wall_before(state, (place[:, None] - state.place)[:, :, None]).all()
    assert walked > 1000


def test_nothing_is_put_into_a_wall_a_thing_or_an_agent() -> None:
    world = World(ROOM, agents=2, turn=90.0)
    ball = (Kind.BALL, 0.0, 3.15, 0.1)
    state = act(
        world, begin(world, (0.0, 2.8, 0), (1.0, 1.0, 0), things=(ball,)), "lift stay", "forward stay", "forward stay", "forward stay"
    )
    assert place_of(state) == (0.0, 3.7)
    assert act(world, state, "lift stay").holder.tolist() == [[0]]
    state = begin(world, (0.0, 1.0, 0), (0.0, 1.45, 0), things=((Kind.BALL, 0.5, 1.0, 0.1), (Kind.BALL, -0.35, 1.0, 0.1)))
    state = act(world, state, "turn_right stay", "lift stay", "turn_left stay")
    assert state.holder.tolist() == [[0, -1]]
    assert act(world, state, "lift stay").holder.tolist() == [[0, -1]]
    state = act(world, state, "turn_left stay")
    assert act(world, state, "lift stay").holder.tolist() == [[0, -1]]
    state = act(world, state, "turn_left stay")
    assert act(world, state, "lift stay").holder.tolist() == [[-1, -1]]


@pytest.mark.parametrize(
    ("thing", "can"),
    [
        ((Kind.BALL, 0.0, 1.9, 0.1), True),
        ((Kind.BALL, 0.0, 2.2, 0.1), False),
        ((Kind.BALL, 0.4, 1.6, 0.1), True),
        ((Kind.BALL, 0.6, 1.6, 0.1), False),
        ((Kind.BALL, 0.0, 0.4, 0.1), False),
        ((Kind.BALL, 0.0, 1.8, 0.35), False),
    ],
    ids=["in reach", "too far", "a little aside", "too far aside", "behind", "too large"],
)
def test_what_can_be_lifted(thing: tuple[Kind, float, float, float], can: bool) -> None:
    world = World(ROOM)
    state = act(world, begin(world, (0.0, 1.0, 0), things=(thing,)), "lift")
    assert (state.holder.item() == 0) == can


def test_nothing_is_lifted_through_a_wall() -> None:
    world = World((*ROOM, (-2.0, 1.5, 2.0, 1.6)))
    assert act(world, begin(world, (0.0, 1.2, 0), things=((Kind.BALL, 0.0, 1.75, 0.1),)), "lift").holder.item() == -1
    assert act(world, begin(world, (0.0, 2.3, 12), things=((Kind.BALL, 0.0, 1.75, 0.1),)), "lift").holder.item() == 0


def test_of_two_who_lift_the_nearer_one_gets_it_whichever_seat_it_has() -> None:
    world = World(ROOM, agents=2, turn=90.0)
    for near, far, winner in ((0, 1, 0), (1, 0, 1)):
        agents = {near: (0.0, 1.1, 0), far: (0.0, 2.1, 2)}
        state = begin(world, agents[0], agents[1], things=((Kind.BALL, 0.0, 1.5, 0.1),))
        assert act(world, state, "lift lift").holder.item() == winner


def test_what_is_put_into_a_crate_is_hidden_when_its_lid_is_closed() -> None:
    world = World(ROOM, crates=1, turn=45.0)
    state = begin(world, (0.0, 1.0, 0), things=((Kind.CRATE, 0.0, 1.8, 0.3), (Kind.BALL, 0.6, 1.0, 0.15)))
    camera = Camera(48)

    def sees_ball(state: WorldState) -> bool:
        """Floor, ceiling and four walls are slots 1 to 6, the crate is 7, the ball 8."""
        return bool((world.look(state, camera).segmentation == 8).any())

    state = act(world, state, "turn_right", "turn_right", "lift", "turn_left", "turn_left")
    closed = act(world, state, "lift")
    assert closed.inside.tolist() == [[-1, -1]]
    state = act(world, state, "open", "lift", "look_down")
    assert (state.holder.tolist(), state.inside.tolist(), state.opened.tolist()) == ([[-1, -1]], [[-1, 0]], [[True]])
    assert state.things.position[0, 1].tolist() == pytest.approx([0.0, 0.18, 1.8])
    assert sees_ball(state)
    state = act(world, state, "open")
    assert not sees_ball(state)
    assert act(world, state, "lift").holder.tolist() == [[-1, -1]]
    state = act(world, state, "open", "lift")
    assert (state.holder.tolist(), state.inside.tolist()) == ([[-1, 0]], [[-1, -1]])


@pytest.mark.parametrize(("half_height", "fits"), [(0.1, True), (0.28, True), (0.29, False), (0.6, False)])
def test_what_is_too_tall_is_not_put_under_a_lid(half_height: float, fits: bool) -> None:
    """A crate of 0.6 metres with a bottom of 0.03 has 0.57 for what is in it."""
    world = World(ROOM, crates=1, turn=90.0)
    state = begin(world, (0.0, 1.0, 1), things=((Kind.CRATE, 0.0, 1.8, 0.3), (Kind.CYLINDER, 0.6, 1.0, 0.1)))
    size = state.things.size.clone()
    size[0, 1, 1] = half_height
    state = act(world, state._replace(things=state.things._replace(size=size)), "lift", "turn_left", "open", "lift")
    # What does not fit stays in hand, for the crate is in the way of the floor.
    assert state.inside.tolist() == [[-1, 0 if fits else -1]]
    assert state.holder.tolist() == [[-1, -1 if fits else 0]]


def test_a_crate_holds_one_thing() -> None:
    world = World(ROOM, agents=2, crates=1, turn=90.0)
    things = ((Kind.CRATE, 0.0, 1.8, 0.3), (Kind.BALL, 0.6, 1.0, 0.1), (Kind.BALL, 0.6, 2.6, 0.1))
    state = begin(world, (0.0, 1.0, 1), (0.0, 2.6, 1), things=things)
    state = act(world, state, "lift lift", "turn_left turn_right", "open stay")
    assert state.holder.tolist() == [[-1, 0, 1]]
    assert act(world, state, "lift lift").inside.tolist() == [[-1, 0, -1]]
    assert act(world, state, "stay lift", "lift stay").inside.tolist() == [[-1, -1, 0]]


def test_each_sees_the_others_and_not_itself() -> None:
    """Two who look at each other: slots 7 and 8 are their bodies, then their heads and noses."""
    world = World(ROOM, agents=2, turn=90.0)
    first, second = world.look(begin(world, (0.0, 1.0, 0), (0.0, 3.0, 2)), Camera(64)).segmentation[0].unbind()
    assert {8, 10, 12} <= set(first.unique().tolist())
    assert {7, 9, 11} <= set(second.unique().tolist())
    assert not {7, 9, 11} & set(first.unique().tolist())
    assert not {8, 10, 12} & set(second.unique().tolist())
    back = world.look(begin(world, (0.0, 1.0, 0), (0.0, 3.0, 0)), Camera(64)).segmentation[0, 0]
    assert 12 not in back.unique().tolist()


def test_what_is_in_view_is_what_is_seen() -> None:
    """A ball somewhere in four rooms, looked for from everywhere: seen where its middle is in view, and else at most at an edge."""
    world, camera, seeds = World(four_rooms()), Camera(64), torch.arange(400)
    spots = world.scatter(seeds, 2, 0.8)
    things = things_of((Kind.BALL, 0.0, 0.0, 0.2), batch=400)
    height = 0.2 + 2 * integers(seeds, 1000, 3) / 1000
    things = things._replace(position=torch.stack([spots[:, 1, 0], height, spots[:, 1, 1]], -1)[:, None])
    state = world.start(spots[:, :1], integers(seeds, 24, 1)[:, None], things)._replace(tilt=integers(seeds, 5, 2)[:, None] - 3)
    in_view = world.has_in_view(state, camera, things.position[:, None])[:, 0, 0]
    seen = (world.look(state, camera).segmentation == 2 + len(world.walls) + 1).flatten(1).any(1)
    assert in_view.sum() > 20
    assert seen[in_view].all()
    assert seen[~in_view].sum() < 0.5 * in_view.sum()


def test_eight_agents_have_eight_views() -> None:
    world = World(ROOM, agents=8)
    places = world.scatter(torch.arange(2), 8, 0.5)
    state = world.start(places, torch.zeros(2, 8, dtype=torch.int64), things_of(batch=2))
    pixels = world.look(state, Camera(12)).pixels
    assert pixels.shape == (2, 8, 12, 12, 3)
    assert len(pixels[0].flatten(1).unique(dim=0)) == 8


def test_a_batch_walks_as_its_games_alone_to_the_last_bit() -> None:
    world = World(four_rooms(), agents=3, crates=1, turn=15.0)
    seeds = torch.arange(4)

    def play(seeds: Tensor) -> WorldState:
        things = things_of((Kind.CRATE, 2.0, 2.0, 0.3), (Kind.BALL, -2.0, 2.0, 0.2), batch=len(seeds))
        state = world.start(world.scatter(seeds, 3, 0.8), integers(seeds[:, None], 24, 1, torch.arange(3)), things)
        for step in range(20):
            state = world.move(state, integers(seeds[:, None], len(ACTIONS), 2, step, torch.arange(3)))
        return state

    together = tree.named_leaves(play(seeds))
    for row in range(4):
        for name, leaf in tree.named_leaves(play(seeds[row : row + 1])).items():
            assert torch.equal(together[name][row : row + 1], leaf), name


def test_scattered_places_are_different_and_free() -> None:
    world = World(four_rooms())
    places = world.scatter(torch.arange(50), 20, 1.0)
    assert (torch.cdist(places, places) + 9 * torch.eye(20)).min() >= 1.0 - 1e-4
    assert len(places.flatten(1).unique(dim=0)) == 50
    state = World(four_rooms()).start(places[:, :1], torch.zeros(50, 1, dtype=torch.int64), things_of(batch=50))
    assert not torch.equal(world.move(state, torch.full((50, 1), ACTIONS.index("forward"))).place, state.place)
    with pytest.raises(ValueError, match=r"count is 10; want at most 4 places, 1.0 metres apart, or larger rooms"):
        World(one_room(2.2, 2.2)).scatter(torch.arange(1), 10, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"walls": ()}, "walls is .*; want rectangles"),
        ({"walls": ((1.0, 0.0, 0.0, 1.0),)}, "walls is .*; want rectangles .* with left < right and near < far"),
        ({"agents": 0}, "agents is 0; want from 1 to 8"),
        ({"agents": 9}, "agents is 9; want from 1 to 8"),
        ({"agents": 8, "walls": one_room(0.9, 0.9)}, "agents is 8; want at most 4, for which the rooms have space, or larger rooms"),
        ({"crates": -1}, "crates is -1; want 0 or more"),
        ({"radius": 0.0}, "radius is 0.0; want from 0.05 to 1 metre"),
        ({"eye": 3.0}, "eye is 3.0; want a height above 0 and below the ceiling's 2.5"),
        ({"step": 0.5}, "step is 0.5; want above 0, at most twice the radius of 0.2"),
        ({"turn": 50.0}, "turn is 50.0; want degrees from 1 to 90 that divide 360"),
        ({"reach": 0.0}, "reach is 0.0; want above 0, up to 10 metres"),
        ({"paint": (1.0, 0.0, 3.0)}, "paint is .*; want red, green, blue from 0 to 1"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        World(**{"walls": ROOM, **settings})


def test_what_is_held_is_in_nobody_else() -> None:
    world = World(ROOM, agents=2)
    state = act(world, begin(world, (0.0, 0.5, 0), (0.0, 3.5, 12), things=((Kind.BALL, 0.0, 1.1, 0.2),)), "lift stay")
    assert state.holder.item() == 0
    for _ in range(12):
        state = act(world, state, "forward stay")
        ball = world.slots(state).position[0, -7]
        assert ball[2] >= state.place[0, 0, 1]
        assert torch.dist(ball[::2], state.place[0, 1]) >= 0.4 - 1e-6
    # Face to face it is drawn back by as much as they come together: 2 radii and a gap of less than a step.
    assert ball[2] - state.place[0, 0, 1] < 0.3


@pytest.mark.parametrize("half", [0.22, 0.3])
def test_an_open_crate_on_the_floor_shows_its_bottom_and_not_the_rooms(half: float) -> None:
    world, camera = World(one_room(5.0, 5.0), crates=1), Camera(100)
    state = act(world, begin(world, (0.0, 0.5, 0), things=((Kind.CRATE, 0.0, 1.2, half),)), "open", *["look_down"] * 3)
    assert state.opened.all()
    slots, eyes = world.slots(state), world.eyes(state)
    # Rays to the floor within the crate that pass its rim within it, too.
    middles = ((torch.arange(100) + 0.5) / 50 - 1) * camera.spread
    up, right = torch.meshgrid(-middles, middles, indexing="ij")
    cos, sin = eyes.pitch.cos(), eyes.pitch.sin()
    rise, ahead = sin + up * cos, cos - up * sin
    inside = rise < 0
    for height in (0.0, 2 * half):
        far = (height - world.eye) / rise
        inside &= ((right * far).abs() < half - 0.02) & ((ahead * far + 0.5 - 1.2).abs() < half - 0.02)
    assert inside.sum() > 50
    crate = 1 + 2 + len(world.walls)
    for picture in (camera.see(slots, eyes), camera.draw_plainly(slots, eyes, slots.visible[:, None])):
        assert (picture.segmentation[0, 0][inside] == crate).all()
