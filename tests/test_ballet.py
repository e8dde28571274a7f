"""Ballet: episodes of the original to the pixel, then rules, ends and chance by hand, and what a person reads and sees."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from agents.co_players.luck import new_luck
from agents.occupant import Decision
from envs.ballet import COMPASS, WORDS, Ballet, BalletState, ballet, ballet_symbols
from envs.ballet_data import COLOURS, DANCES, SHAPES
from envs.chance import Purpose, integers, seeds_of
from envs.face import draw
from tests.test_golden import assert_golden
from training.graph import CapturedRollout
from training.rollout import Rollout
from training.seating import one_table

# The original's own tables and whole episodes of it; see `README.md` there.
DATA = Path(__file__).parent / "data" / "ballet"
EPISODES = range(5)
N, NE, E, SE, S, SW, W, NW = range(8)
NONE = math.nan


def read(name):
    return json.loads((DATA / f"{name}.json").read_text())


def frames_of(number):
    with np.load(DATA / f"ballet_{number}.npz") as data:
        return data["frames"]


def cell(row, column):
    """Of the floor; rows and columns from 1 to 9, as the board with its wall counts them from 0 to 10."""
    return (row - 1) * 9 + column - 1


def opening(dancers):
    """The state of one game before its first step. dancers: as the original's episodes say it, homes as (row, column) of the board."""
    looks = [3 + list(SHAPES).index(d["shape"]) * 19 + list(COLOURS).index(d["color"]) for d in dancers]
    parts = ([cell(*d["home"]) for d in dancers], [list(DANCES).index(d["dance"]) for d in dancers], looks)
    target = [d["target"] for d in dancers].index(True)
    return BalletState(*(torch.tensor([n]) for n in (7, 0, 40)), *(torch.tensor([part]) for part in parts), torch.tensor([target]))


def cast(*homes, target=0):
    """Dancers at the given (row, column), of the first dances, shapes and colours."""
    names = zip(homes, DANCES, SHAPES, COLOURS, strict=False)
    return [
        {"home": home, "dance": dance, "shape": shape, "color": colour, "target": number == target}
        for number, (home, dance, shape, colour) in enumerate(names)
    ]


def play(game, state, moves):
    """The states after each move, and the turns."""
    states, turns = [], []
    for move in moves:
        state, turn = game.step(state, {"spectator": torch.tensor([[move]])})
        states.append(state)
        turns.append(turn)
    return states, turns


def choosing(game, row, column, dancers):
    """The word has just come, and the spectator stands somewhere."""
    return opening(dancers)._replace(step=torch.tensor([game.watching]), place=torch.tensor([cell(row, column)]))


def level(name):
    dancers, delay = (int(part) for part in name.split("_delay"))
    return {"dancers": dancers, "delay": delay, "limit": 320 if delay == 16 else 1024}


@pytest.mark.parametrize("number", EPISODES)
def test_an_episode_of_the_original_has_the_same_words_rewards_ends_and_pixels(number):
    episode, frames = read(f"ballet_{number}"), frames_of(number)
    game = Ballet(**level(episode["level"]))
    state = opening(episode["dancers"])
    states, turns = play(game, state, episode["actions"])
    assert len(frames) == len(states) + 1 == episode["num_frames"]
    for frame, word, after in zip(frames, episode["words"], [state, *states], strict=True):
        seen = game.observe(after)["spectator"]
        assert WORDS[seen["word"].item()] == word
        assert np.array_equal(seen["pixels"][0, 0].numpy(), frame)
    assert [turn.rewards["spectator"].item() for turn in turns] == episode["rewards"]
    assert [turn.over.item() for turn in turns] == [False] * (len(turns) - 1) + [True]


def symbols_in(picture, shapes, colours):
    """What a picture shows as (shape, colour) of 11 by 11 cells, by comparing pixels."""
    plain = {(0, 0, 0): (0, 0), (40, 40, 40): (1, 0), (255, 255, 255): (2, 0)}
    board = np.zeros((11, 11, 2), dtype=int)
    for row, column in np.ndindex(11, 11):
        tile = picture[9 * row : 9 * row + 9, 9 * column : 9 * column + 9]
        only = plain.get(tuple(tile[0, 0])) if (tile == tile[0, 0]).all() else None
        if only is None:
            colour = tile[tile.any(-1)][0].tolist()
            drawn = ["".join("#" if pixel.any() else "." for pixel in line) for line in tile]
            only = (3 + shapes.index(drawn), 1 + colours.index(colour))
        board[row, column] = only
    return board


@pytest.mark.parametrize("number", [1, 3])
def test_the_symbols_are_what_the_originals_pixels_show(number):
    episode, frames = read(f"ballet_{number}"), frames_of(number)
    game = Ballet(**level(episode["level"]), pixels=False)
    state = opening(episode["dancers"])
    states, _ = play(game, state, episode["actions"])
    shapes, colours = list(read("shapes").values()), list(read("colors").values())
    chosen = [*range(0, len(states), 23), *range(len(states) - 4, len(states) + 1)]
    for step in chosen:
        seen = game.observe([state, *states][step])["spectator"]
        assert np.array_equal(seen["board"][0, 0].numpy(), symbols_in(frames[step], shapes, colours))
        assert WORDS[seen["word"].item()] == episode["words"][step]


def test_dances_shapes_and_colours_are_the_originals():
    assert {name: moves.split() for name, moves in DANCES.items()} == read("dances")
    assert {name: rows.split("/") for name, rows in SHAPES.items()} == read("shapes")
    assert {name: list(colour) for name, colour in COLOURS.items()} == read("colors")
    assert (len(DANCES), len(SHAPES), len(COLOURS), len(WORDS)) == (13, 15, 19, 14)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("2_delay16", 62), ("4_delay16", 124), ("8_delay16", 248), ("2_delay48", 126), ("4_delay48", 252), ("8_delay48", 504)],
)
def test_the_word_comes_after_as_many_steps_as_in_the_original(name, steps):
    game = Ballet(**level(name), pixels=False)
    state = game.start(torch.arange(3))._replace(step=torch.tensor([0, steps - 1, steps]))
    word = game.observe(state)["spectator"]["word"][:, 0]
    meant = state.dances[2, state.target[2]] + 1
    assert word.tolist() == [0, 0, meant]


def test_a_dance_goes_round_home_and_then_nobody_moves():
    game = Ballet(2, delay=3, limit=50, pixels=False)
    dancers = [
        {"home": (5, 2), "dance": "circle_cw", "shape": "ex", "color": "red", "target": True},
        {"home": (5, 8), "dance": "zee", "shape": "tee", "color": "blue", "target": False},
    ]
    state = opening(dancers)
    states, _ = play(game, state, [N] * 36)
    seen = []
    for each in [state, *states]:
        board = game.observe(each)["spectator"]["board"][0, 0, ..., 1]
        # The whole board is in view, and rows and columns count from the wall, 0.
        seen.append([tuple((board == colour).nonzero()[0].tolist()) for colour in (1, 3)])
    circle = [(4, 2), (4, 3), (5, 3), (6, 3), (6, 2), (6, 1), (5, 1), (4, 1)] * 2
    # North, east and so on from (5, 2), in the original's 16 moves; the last leads home.
    assert [first for first, _ in seen[:16]] == [*circle[:15], (5, 2)]
    assert [first for first, _ in seen[15:]] == [(5, 2)] * 22
    assert [second for _, second in seen[:18]] == [(5, 8)] * 18
    zee = [(4, 9), (4, 8), (4, 7), (4, 8), (4, 9), (5, 8), (4, 9), (5, 8), (6, 7), (6, 8), (6, 9), (6, 8), (6, 7), (5, 8), (6, 7), (5, 8)]
    assert [second for _, second in seen[18:34]] == zee
    assert [second for _, second in seen[34:]] == [(5, 8)] * 3


@pytest.mark.parametrize(("row", "column"), [(1, 1), (1, 5), (1, 9), (5, 1), (5, 5), (5, 9), (9, 1), (9, 5), (9, 9)])
def test_moves_go_by_the_compass_and_nobody_walks_into_the_wall_or_along_it_askew(row, column):
    offsets = {N: (-1, 0), NE: (-1, 1), E: (0, 1), SE: (1, 1), S: (1, 0), SW: (1, -1), W: (0, -1), NW: (-1, -1)}
    game = Ballet()
    for move, (down, right) in offsets.items():
        (after,), _ = play(game, choosing(game, row, column, cast((2, 2), (8, 8))), [move])
        there = (row + down, column + right)
        inside = 1 <= there[0] <= 9 and 1 <= there[1] <= 9
        assert after.place.item() == cell(*(there if inside else (row, column)))


def test_actions_count_from_the_step_after_the_word():
    game = Ballet()
    states, _ = play(game, opening(cast((2, 2), (8, 8))), [N] * 64)
    assert [state.place.item() for state in states[:62]] == [cell(5, 5)] * 62
    assert [state.place.item() for state in states[62:]] == [cell(4, 5), cell(3, 5)]


# A dancer at (2, 2) and one at (8, 8), the word means the first: where from, which move, at which step: reward, over, success, touched.
ENDS = [
    (3, 3, NW, 100, 1, True, 1, 1),
    (2, 3, W, 100, 1, True, 1, 1),
    (8, 9, W, 100, 0, True, 0, 1),
    (3, 3, N, 100, 0, False, NONE, NONE),
    (3, 3, N, 318, 0, False, NONE, NONE),
    (3, 3, N, 319, 0, True, 0, 0),
    (3, 3, NW, 319, 1, True, 1, 1),
    (7, 7, SE, 319, 0, True, 0, 1),
]


@pytest.mark.parametrize(("row", "column", "move", "step", "reward", "over", "success", "touched"), ENDS)
def test_a_dancer_that_is_touched_or_the_last_step_ends_it(row, column, move, step, reward, over, success, touched):
    game = Ballet()
    state = choosing(game, row, column, cast((2, 2), (8, 8)))._replace(step=torch.tensor([step]))
    _, (turn,) = play(game, state, [move])
    assert turn.rewards["spectator"].tolist() == [[reward]]
    assert turn.over.tolist() == [over]
    for name, value in (("success", success), ("touched", touched)):
        assert turn.measures[name].tolist() == pytest.approx([value], nan_ok=True)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_the_reward_is_for_the_dancer_that_the_word_means(target):
    game = Ballet(3)
    dancers = cast((2, 5), (5, 2), (5, 8), target=target)
    rewards = []
    for row, column, move in ((3, 5, N), (5, 3, W), (5, 7, E)):
        _, (turn,) = play(game, choosing(game, row, column, dancers), [move])
        rewards.append(turn.rewards["spectator"].item())
    assert rewards == [float(number == target) for number in range(3)]
    assert game.observe(choosing(game, 5, 5, dancers))["spectator"]["word"].item() == 1 + target


# Where the word's dancer is at home, where the spectator stands, and the move that is right there.
WAYS = [
    ((2, 2), (5, 5), NW), ((2, 5), (5, 5), N), ((2, 8), (5, 5), NE), ((5, 8), (5, 5), E),
    ((8, 8), (5, 5), SE), ((8, 5), (5, 5), S), ((8, 2), (5, 5), SW), ((5, 2), (5, 5), W),
    ((2, 2), (1, 9), SW), ((2, 2), (2, 9), W), ((2, 2), (3, 1), NE), ((8, 5), (9, 6), NW), ((8, 5), (1, 4), SE), ((5, 8), (9, 8), N),
]  # fmt: skip


@pytest.mark.parametrize(("home", "place", "move"), WAYS)
def test_the_right_move_is_the_nearest_way_to_the_words_dancer(home, place, move):
    game = Ballet(pixels=False)
    other = (2, 5) if home != (2, 5) else (8, 2)
    state = choosing(game, *place, cast(other, home, target=1))
    answer = game.answers(state)["spectator"]
    assert answer.action.tolist() == [[move]]
    assert answer.asked.tolist() == [[True]]
    assert not game.answers(state._replace(step=state.step - 1))["spectator"].asked.any()


def test_whoever_moves_as_is_right_finds_the_right_one_of_eight_in_three_steps():
    game, batch = Ballet(8, limit=320, pixels=False), 500
    state = game.start(seeds_of(20251123, Purpose.TRIAL, batch))._replace(step=torch.full((batch,), game.watching))
    for steps in (1, 2, 3):
        state, turn = game.step(state, {"spectator": game.answers(state)["spectator"].action})
        assert turn.over.all().item() == turn.over.any().item() == (steps == 3)
    assert turn.measures["success"].mean() == 1


def test_from_every_cell_the_spectator_sees_what_lies_within_five_cells():
    game = Ballet(8, limit=320, pixels=False)
    homes = [(2, 2), (2, 5), (2, 8), (5, 2), (5, 8), (8, 2), (8, 5), (8, 8)]
    world = {(row, column): (1, 0) for row in range(11) for column in range(11) if row in (0, 10) or column in (0, 10)}
    # Shape k in colour k, where shapes start at 3 and colours at 1.
    world |= {home: (3 + number, 1 + number) for number, home in enumerate(homes)}
    for row, column in [(r, c) for r in range(1, 10) for c in range(1, 10) if (r, c) not in homes]:
        board = game.observe(choosing(game, row, column, cast(*homes)))["spectator"]["board"][0, 0].tolist()
        for down in range(11):
            for right in range(11):
                there = (row + down - 5, column + right - 5)
                wanted = (2, 0) if there == (row, column) else world.get(there, (0, 0))
                assert tuple(board[down][right]) == wanted


def test_games_differ_in_everything_that_chance_decides_evenly():
    game = Ballet(3, limit=320)
    state = game.start(seeds_of(20251123, Purpose.TRIAL, 50_000))
    shapes, colours = (state.looks - 3) // 19, (state.looks - 3) % 19
    for parts, values in ((state.homes, None), (state.dances, 13), (shapes, 15), (colours, 19)):
        drawn = parts.sort(1).values
        assert (drawn[:, 1:] != drawn[:, :-1]).all()
        for seat in range(3):
            counts = parts[:, seat].unique(return_counts=True)[1] if values is None else parts[:, seat].bincount(minlength=values)
            assert len(counts) == (values or 8)
            assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    homes = {cell(*home) for home in ((2, 2), (2, 5), (2, 8), (5, 2), (5, 8), (8, 2), (8, 5), (8, 8))}
    assert set(state.homes.unique().tolist()) == homes
    assert stats.chisquare(state.target.bincount(minlength=3).numpy()).pvalue > 1e-3
    # Nothing says anything about anything else: not what the word's dancer looks like, where it stands, or when it dances.
    meant = [part.gather(1, state.target[:, None])[:, 0] for part in (state.homes, state.dances, shapes, colours)]
    for first, second in itertools.combinations([*meant, state.target], 2):
        table = stats.contingency.crosstab(first.numpy(), second.numpy()).count
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_whoever_walks_at_random_finds_the_right_one_of_two_as_often_as_in_the_original():
    game, batch = Ballet(pixels=False), 3000
    state = game.start(seeds_of(20251123, Purpose.TRIAL, batch))._replace(step=torch.full((batch,), 62))
    luck, success = torch.Generator().manual_seed(1), torch.full((batch,), NONE)
    for _ in range(320 - 62):
        state, turn = game.step(state, {"spectator": torch.randint(8, (batch, 1), generator=luck)})
        success = torch.where(success.isnan(), turn.measures["success"], success)
    # The original: 0.45 of 300 episodes, whose standard error is 0.03.
    assert 0.4 < success.mean().item() < 0.5


def test_the_spaces_say_what_is_seen():
    (role,) = ballet().roles
    assert role.observation_space["pixels"].shape == (99, 99, 3)
    assert role.observation_space["word"].n == 14
    assert role.action_space.n == 8
    (role,) = ballet_symbols().roles
    assert role.observation_space["board"].shape == (11, 11, 2)
    assert role.observation_space["board"].nvec[4, 7].tolist() == [18, 20]
    assert list(COMPASS) == ["N", "NE", "E", "SE", "S", "SW", "W", "NW"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dancers": 0}, "dancers is 0; want from 1 to 8"),
        ({"dancers": 9}, "dancers is 9; want from 1 to 8"),
        ({"delay": 0}, "delay is 0; want from 1 to 100,000"),
        ({"limit": 64}, "limit is 64; want from 65, the 62 steps until the word and 3 to a dancer, to 1,000,000"),
        ({"dancers": 8, "delay": 48}, "limit is 320; want from 507, the 504 steps until the word and 3 to a dancer, to 1,000,000"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Ballet(**settings)


def test_a_person_reads_who_dances_what_the_word_is_and_how_it_ends():
    game = Ballet()
    dancers = cast((2, 2), (8, 8))
    dancers[1] |= {"dance": "plus_cw", "shape": "empty_circle", "color": "dark_red"}
    state = opening(dancers)

    def told(step, place=(5, 5), target=0):
        here = state._replace(step=torch.tensor([step]), place=torch.tensor([cell(*place)]), target=torch.tensor([target]))
        return game.describe(here, 0).text

    intent = "watch 2, then find the one that the word means"
    assert told(0) == f"before step 1 of 320, {intent}: the red triangle at row 2, column 2 dances circle_cw, move 1 of 16: N"
    assert told(15) == "step 15: the red triangle at row 2, column 2 dances circle_cw, move 16 of 16: E"
    assert told(16) == "step 16: nobody dances; the next dance begins in 15"
    assert told(33) == "step 33: the dark red empty circle at row 8, column 8 dances plus_cw, move 3 of 16: E"
    assert told(61) == "step 61: nobody dances; the word comes in 1"
    assert told(62) == "step 62: who danced circle_cw? the red triangle at row 2, column 2; the spectator is at row 5, column 5"
    assert told(70, (2, 2)).endswith(
        "who danced circle_cw? the red triangle at row 2, column 2; the spectator is at row 2, column 2, found it, +1"
    )
    assert told(70, (2, 2), 1).endswith(
        "the spectator is at row 2, column 2, wrongly: the red triangle at row 2, column 2 danced circle_cw"
    )
    assert told(320).endswith("the spectator is at row 5, column 5; time is up")


def test_the_title_is_the_dance_then_the_question_then_the_outcome():
    game = Ballet()
    state = opening(cast((2, 2), (8, 8)))

    def title(step, place=(5, 5)):
        here = state._replace(step=torch.tensor([step]), place=torch.tensor([cell(*place)]))
        return game.describe(here, 0).marks[0].text

    assert [title(0), title(20), title(31), title(70)] == ["watch: circle_cw", "watch", "watch: circle_ccw", "who danced circle_cw?"]
    assert [title(70, (2, 2)), title(70, (8, 8))] == ["circle_cw: found, +1", "circle_cw: wrong"]


def test_the_picture_for_people_is_the_board_with_the_stage_that_matters_lit():
    game = Ballet()
    state = opening(cast((2, 2), (8, 8)))

    def colour_at(step, row, column, place=(5, 5)):
        here = state._replace(step=torch.tensor([step]), place=torch.tensor([cell(*place)]))
        # The board, wall included, lies between a tenth and nine tenths of the picture.
        picture = draw(game.describe(here, 0), 600)
        x, y = (int(600 * (0.1 + 0.8 * (number + 0.5) / 11)) for number in (column, row))
        return tuple(picture[y, x].tolist())

    white, wall, floor, red = (255, 255, 255), (40, 40, 40), (0, 0, 0), (255, 0, 0)
    stage, right, wrong = (52, 56, 84), (24, 92, 48), (120, 30, 30)
    assert [colour_at(0, *place) for place in ((5, 5), (0, 4), (4, 4), (1, 2), (3, 3), (7, 7))] == [white, wall, floor, red, stage, floor]
    assert [colour_at(20, *place) for place in ((2, 2), (3, 3), (7, 7))] == [red, floor, floor]
    assert [colour_at(36, *place) for place in ((2, 2), (3, 3), (7, 7))] == [red, floor, stage]
    assert [colour_at(62, *place) for place in ((2, 2), (3, 3), (7, 7))] == [red, right, floor]
    assert [colour_at(70, *place, place=(8, 8)) for place in ((3, 3), (7, 7))] == [right, wrong]
    # The second one's shape is an empty square, and the spectator shines through.
    assert [colour_at(70, 8, 8, place=place) for place in ((5, 5), (8, 8))] == [floor, white]


def test_golden_episode():
    episode = read("ballet_0")
    game = Ballet(pixels=False)
    state = opening(episode["dancers"])
    states, _ = play(game, state, episode["actions"])
    assert_golden("ballet_episode.txt", "".join(game.describe(each, 0).text + "\n" for each in [state, *states]))


class Wanderer:
    """Goes anywhere."""

    def start(self, seeds):
        return new_luck(seeds)

    def act(self, observation, state, reward):
        return Decision(integers(state.luck, 8, state.clock)), state.next()


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compares one with the CPU"))],
)
def test_a_captured_rollout_shows_the_same_as_the_rules_on_a_cpu(device, pixels):
    game = Ballet(3, delay=1, limit=80, pixels=pixels)
    rollout = Rollout(game, one_table(("wanderer",), 8), {"wanderer": Wanderer()}, watched=None, keeps_states=True, device=device)
    begun = rollout.start(torch.arange(8, device=device))
    _, log = CapturedRollout(rollout, begun, 79).play(begun)
    state = game.start(rollout.start(torch.arange(8, device=device)).game.seed.cpu())
    for step in range(79):
        running = log.trial[step].cpu() == 0
        for name, seen in game.observe(state)["spectator"].items():
            assert torch.equal(log.observations[0][name][step].cpu()[running], seen[running, 0])
        state, turn = game.step(state, {"spectator": log.decisions[0].action[step].cpu()[:, None]})
        assert torch.equal(log.rewards["spectator"][step].cpu()[running], turn.rewards["spectator"][running])
    assert running.any()
    assert not running.all()
