"""Settings to JSON and back, overrides, and one clear line for whatever is wrong."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.donor_game import DonorGame
from envs.iterated_dilemma import chicken, stag_hunt
from launch import main
from memory.depth_recurrent import DepthRecurrentConfig
from memory.frame_stack import FrameStackConfig
from memory.none import NoMemoryConfig
from training.algorithms import A2C
from training.evaluation.suites import FOCAL, SUITES
from training.experiment import Experiment
from training.plain import PlainTrainer
from training.population import co_player
from training.presets import PRESETS
from training.run import Run, Snapshot
from training.settings import BadInput, build, from_json, load, override, to_json, told


@dataclass(frozen=True)
class InnerConfig:
    depth: int = 1


@dataclass(frozen=True)
class Span:
    """Settings of every type that real ones have."""

    between: tuple[int, int] = (5, 15)
    moves: tuple[str, ...] = ("stay", "forward")
    pairs: tuple[tuple[int, int], ...] = ((1, 2),)
    weights: tuple[float, ...] | None = None
    worths: tuple[float, ...] = (1.0, 10.0)
    named: tuple[str, float] | None = None
    share: float = 0.5
    is_open: bool = True
    name: str = ""
    inner: InnerConfig = InnerConfig()


every_preset = pytest.mark.parametrize("preset", PRESETS)


@every_preset
def test_an_experiment_survives_json(preset: str) -> None:
    experiment = load(PRESETS[preset])()
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


@every_preset
def test_a_preset_learns_for_two_updates(preset: str) -> None:
    experiment = override(load(PRESETS[preset])(), "trials=24")
    if hasattr(experiment.game, "rounds"):
        experiment = override(experiment, "game.rounds=5")
    trainer = PlainTrainer(experiment, {name: co_player(name) for name in experiment.scheme.co_players(experiment.game)})
    trainer.train()
    trainer.train()
    assert trainer.iteration == 2


@every_preset
def test_a_preset_says_its_own_name_and_promises_something(preset: str) -> None:
    factory = load(PRESETS[preset])
    assert factory().preset == preset
    assert "promise" in factory.__doc__.lower()


@every_preset
def test_no_preset_trains_against_those_it_is_held_out_from(preset: str) -> None:
    experiment = load(PRESETS[preset])()
    met = set(experiment.scheme.co_players(experiment.game))
    for name in SUITES:
        scenarios = load(SUITES[name])(experiment).scenarios if name == experiment.suite else ()
        for scenario in scenarios:
            # Random tables are drawn anew for every trial; evaluation's luck is a stream of its own. One scenario says that it is not
            # held out.
            is_held_out = (name, scenario.name) != ("donor_game", "village")
            assert not is_held_out or not met & set(scenario.seats) - {"random_table", FOCAL}, scenario


def test_overrides_reach_every_depth() -> None:
    assignments = ("seed=7", "game=stag_hunt", "game.rounds=12", "agent.memory=none", "agent.memory.width=9", "algorithm=a2c")
    experiment = override(Experiment(), *assignments)
    assert experiment.seed == 7
    assert experiment.game.payoffs[0][0] == (4.0, 4.0)
    assert experiment.game.rounds == 12
    assert experiment.agent.memory == NoMemoryConfig(9)
    assert experiment.algorithm == A2C()


def test_who_takes_anothers_place_keeps_what_that_one_was_set_to() -> None:
    """So that memories are compared at one width and algorithms at one rate. What differs by default is each one's own."""
    preset = load(PRESETS["ipd_mixed_pool_quick"])()
    assert (preset.agent.memory.width, preset.algorithm.learning_rate, preset.algorithm.epochs) == (32, 0.003, 2)
    lstm = override(preset, "agent.memory=lstm").agent.memory
    assert (type(lstm).__name__, lstm.width) == ("LSTMConfig", 32)
    assert override(preset, "agent.memory=gru", "algorithm=ppo") == preset
    assert override(preset, "agent.memory=lstm:width=8").agent.memory.width == 8
    assert override(preset, "agent.memory.width=8", "agent.memory=lstm").agent.memory.width == 8
    a2c = override(preset, "algorithm=a2c").algorithm
    assert (type(a2c).__name__, a2c.learning_rate, a2c.discount, a2c.epochs) == ("A2C", 0.003, 0.9, 1)
    # A game is another game.
    assert override(preset, "game.rounds=7", "game=chicken").game.rounds == 7
    assert override(override(preset, "game.rounds=7"), "game=chicken").game.rounds == 100
    with pytest.raises(BadInput, match=r"^agent.memory.heads=5 with width=32 as before: .*does not divide"):
        override(preset, "agent.memory=transformer_xl:heads=5")


def test_what_something_falls_to_is_kept_only_with_what_it_falls_from() -> None:
    """A supervised learner has no bonus for entropy by default; it must not rise to the preset's last one."""
    preset = load(PRESETS["hidden_object_quick"])()
    algorithm = override(preset, "algorithm=supervised").algorithm
    assert (algorithm.entropy_coefficient, algorithm.final_entropy_coefficient) == (0.0, None)
    assert (algorithm.learning_rate, algorithm.final_learning_rate) == (0.003, 0.001)


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_shown_can_be_typed(name: str) -> None:
    preset = load(PRESETS[name])()
    assert override(preset, *[line for line in told(preset) if "=" in line]) == preset


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("memory.width=8", "'agent.memory.width'"),
        ("learning_rate=0.01", "'algorithm.learning_rate'"),
        ("memory=gru", "'agent.memory'"),
        ("width=64", "'agent.memory.width'"),
        ("agent.width=64", "'agent.memory.width'"),
        ("rounds=5", "'game.rounds'"),
        ("seeds=5", "'seed'"),
    ],
)
def test_a_setting_is_looked_for_at_every_depth(typed: str, meant: str) -> None:
    with pytest.raises(BadInput, match=rf"did you mean {meant}\?$"):
        override(load(PRESETS["ipd_mixed_pool_quick"])(), typed)


def test_what_would_be_trained_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ipd_mixed_pool_quick", "agent.memory=lstm", "seed=3", "--show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"agent.memory: LSTMConfig", "agent.memory.width=32", "seed=3", "game.rounds=100"} <= set(lines)
    typed = [line for line in lines if "=" in line]
    preset = load(PRESETS["ipd_mixed_pool_quick"])()
    assert override(preset, "agent.memory=lstm", *typed) == override(preset, "agent.memory=lstm", "seed=3")
    assert main(["train", "memory_benchmark", "seeds=2", "--show"]) == 0
    assert "seeds=2" in capsys.readouterr().out.splitlines()
    assert not list(tmp_path.iterdir())


def test_a_memory_within_a_memory_can_be_chosen_and_set() -> None:
    assignments = (
        "agent.memory=depth_recurrent",
        "agent.memory.core=frame_stack",
        "agent.memory.core.frames=3",
        "agent.memory.width=9",
    )
    experiment = override(Experiment(), *assignments)
    assert experiment.agent.memory == DepthRecurrentConfig(9, FrameStackConfig(frames=3))
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment
    assert experiment.agent.memory.build(4).core.layers[0].weight.shape == (9, 27)


def test_a_whole_number_will_do_for_a_real_one_but_not_the_other_way() -> None:
    assert override(Experiment(), "algorithm.discount=1").algorithm.discount == 1.0
    with pytest.raises(BadInput, match=r"trials is 2.5; want a whole number"):
        override(Experiment(), "trials=2.5")


@pytest.mark.parametrize("order", list(itertools.permutations(["game=donor_game", "game.rounds=2", "game.trace_depth=1"])), ids=str)
def test_what_is_right_only_together_can_be_given_in_any_order(order: tuple[str, ...]) -> None:
    """A donor's trace may not be longer than the game, and it is 3 unless one says otherwise."""
    with pytest.raises(BadInput, match="trace_depth is 3"):
        override(Experiment(), "game=donor_game", "game.rounds=2")
    experiment = override(Experiment(), *order, "seed=3")
    assert experiment.game == DonorGame(rounds=2, trace_depth=1)
    assert experiment.seed == 3


def test_a_name_can_be_given_with_its_settings() -> None:
    experiment = override(
        Experiment(),
        "game=chicken:rounds=12,payoffs=[[[2,2],[0,3]],[[3,0],[1,1]]]",
        "agent.memory=depth_recurrent:core=frame_stack,core.frames=3,width=9",
        "agent.memory.iterations=2",
        "algorithm=a2c:discount=1",
    )
    assert experiment.game == replace(chicken(), rounds=12, payoffs=(((2.0, 2.0), (0.0, 3.0)), ((3.0, 0.0), (1.0, 1.0))))
    assert experiment.agent.memory == DepthRecurrentConfig(9, FrameStackConfig(frames=3), iterations=2)
    assert experiment.algorithm == A2C(discount=1.0)


def test_settings_given_apart_come_after_those_given_with_a_name() -> None:
    assert override(Experiment(), "game.rounds=5", "game=chicken:rounds=6").game.rounds == 5
    assert override(override(Experiment(), "game=chicken:rounds=6"), "game=stag_hunt").game == stag_hunt()


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["seed=1", "seed=2"], "seed is given twice: 1 and 2"),
        (["game=chicken:rounds=6", "game=stag_hunt"], "game is given twice: chicken:rounds=6 and stag_hunt"),
        (["game=chicken:rounds=5,rounds=6"], "game.rounds is given twice: 5 and 6"),
        (["agent.memory=hcam:chunks=4,chunks=4"], "agent.memory.chunks is given twice: 4 and 4"),
    ],
)
def test_nothing_is_given_twice(assignments: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=f"{said}; want it once"):
        override(Experiment(), *assignments)


def test_a_colon_between_settings_is_explained() -> None:
    with pytest.raises(
        BadInput, match=r"agent\.memory\.taps is '4:width=64'; want a whole number; settings of one thing have commas between them"
    ):
        override(Experiment(), "agent.memory=aaren:taps=4:width=64")


def test_a_name_in_other_letters_is_known() -> None:
    with pytest.raises(BadInput, match="no memory is called 'HCAM'; did you mean 'hcam'"):
        override(Experiment(), "agent.memory=HCAM")


@pytest.mark.parametrize("text", ["[5,2]", "(5,2)", "5,2", "( 5, 2 )", "5, 2"])
def test_a_pair_of_numbers_can_be_typed_with_any_brackets_or_none(text: str) -> None:
    settings = override(Span(), f"between={text}")
    assert settings == Span(between=(5, 2))
    assert type(settings.between[0]) is int


@pytest.mark.parametrize("text", ["[stay,forward]", "(stay,forward)", "stay,forward", "stay, forward", '["stay","forward"]'])
def test_several_texts_can_be_typed_with_any_brackets_or_none(text: str) -> None:
    assert override(Span(), f"moves={text}") == Span(moves=("stay", "forward"))


def test_lists_of_any_length_may_have_one_value_or_none_and_hold_lists() -> None:
    assert override(Span(), "moves=stay") == Span(moves=("stay",))
    assert override(Span(), "moves=()") == Span(moves=())
    assert override(Span(), "weights=3") == Span(weights=(3.0,))
    assert override(Span(), "worths=2") == Span(worths=(2.0,))
    assert override(Span(), "weights=none") == Span(weights=None)
    assert override(Span(), "weights=1,0.5") == Span(weights=(1.0, 0.5))
    assert override(Span(), "pairs=(1,2),(3,4)") == Span(pairs=((1, 2), (3, 4)))
    assert override(Span(), "pairs=((1,2),(3,4))") == Span(pairs=((1, 2), (3, 4)))
    assert override(Experiment(), "game=chicken:actions=(swerve,straight),rounds=3").game.actions == ("swerve", "straight")


def test_from_a_file_a_list_is_a_list() -> None:
    with pytest.raises(BadInput, match=r"^Span.between is '5,15'; want two whole numbers$"):
        build(Span, {"between": "5,15"}, "Span")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("between=-3", "between is -3; want two whole numbers, such as [5,15]"),
        ("between=5", "between is 5; want two whole numbers, such as [5,15]"),
        ("between=5,10,15", "between is '5,10,15'; want two whole numbers, such as [5,15]"),
        ("between=[5,10,15]", "between is [5,10,15]; want two whole numbers, such as [5,15]"),
        ("between=(5,1.5)", "between is '(5,1.5)'; want two whole numbers, such as [5,15]"),
        ("worths=abc", "worths is 'abc'; want a list of numbers, such as [1,10]"),
        ("between=soon,late", "between is 'soon,late'; want two whole numbers, such as [5,15]"),
        ("moves=1,2", "moves is '1,2'; want a list of texts, such as [stay,forward]"),
        ("pairs=(1,2),3", "pairs is '(1,2),3'; want a list of lists of two whole numbers, such as [[1,2]]"),
        ("weights=x", "weights is 'x'; want a list of numbers or none"),
        ("named=a", "named is 'a'; want a list of text and a number or none"),
        ("share=half", "share is 'half'; want a number"),
        ("share=none", "share is None; want a number"),
        ("is_open=1", "is_open is 1; want true or false"),
        ("name=5", "name is 5; want text"),
        ("inner=5", "inner is 5; want settings of Inner, one by one: inner.NAME=value"),
    ],
)
def test_what_is_wanted_is_said_in_words(assignment: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        override(Span(), assignment)
    assert str(refused.value) == words


def test_payoffs_can_be_given_as_json() -> None:
    experiment = override(Experiment(), "game.payoffs=[[[2,2],[0,3]],[[3,0],[1,1]]]")
    assert experiment.game.payoffs == (((2.0, 2.0), (0.0, 3.0)), ((3.0, 0.0), (1.0, 1.0)))


@pytest.mark.parametrize(
    "data",
    [
        {"type": "os:system", "command": "true"},
        {"type": "subprocess:Popen", "args": ["true"]},
        {"type": "training.files:write_atomically", "path": "x", "data": ""},
        {"type": "training.experiment:Path"},
    ],
)
def test_settings_from_a_file_name_nothing_but_settings(data: Any) -> None:
    with pytest.raises(BadInput, match="settings of type"):
        from_json(data)


# What someone might type, and what the one line must contain.
WRONG: list[tuple[list[str], list[str]]] = [
    (["train", "ipd_mixed_pol_quick"], ["ipd_mixed_pol_quick", "did you mean 'ipd_mixed_pool_quick'?"]),
    (["train"], ["name a preset", "ipd_mixed_pool_quick"]),
    (["trian"], ["'trian'", "did you mean 'train'?"]),
    (["train", "two_learners", "game=prisoner_dilemma"], ["'prisoner_dilemma'", "did you mean 'prisoners_dilemma'?"]),
    (["train", "two_learners", "agent.memory=gur"], ["'gur'", "did you mean 'gru'?"]),
    (["train", "two_learners", "agent.memory=depth_recurrent", "agent.memory.core=lsmt"], ["'lsmt'", "did you mean 'lstm'?"]),
    (
        ["train", "two_learners", "agent.memory=depth_recurrent", "agent.memory.core.width=9"],
        ["agent.memory.core.width=9", "want the block's own width, 128"],
    ),
    (["train", "two_learners", "scheme=self_pley"], ["'self_pley'", "did you mean 'self_play'?"]),
    (["train", "two_learners", "algorithm=pppo"], ["'pppo'", "did you mean 'ppo'?"]),
    (["train", "two_learners", "sed=3"], ["'sed'", "did you mean 'seed'?"]),
    (["train", "two_learners", "game.rouns=3"], ["'game.rouns'", "did you mean 'rounds'?"]),
    (["train", "two_learners", "game=chicken:rouns=3"], ["'game.rouns'", "did you mean 'rounds'?"]),
    (["train", "two_learners", "game=chicken:rounds"], ["'rounds' is no setting", "name=value"]),
    (["train", "two_learners", "agent.memory=gru:9"], ["'9' is no setting", "name=value"]),
    (["train", "two_learners", "game=donor_game:rounds=2", "game.trace_depth=5"], ["game.rounds=2 game.trace_depth=5: trace_depth is 5"]),
    (["train", "two_learners", "seed=3", "trials=0", "game.rounds=9"], ["error: trials=0: trials is 0"]),
    (["train", "two_learners", "seed=3", "trials=4", "runners=9"], ["error: trials=4 runners=9: trials is 4, fewer than the 9 runners"]),
    (
        ["train", "two_learners", "game=referential_captions", "game.captions=a"],
        ["game.captions=a: captions is 'a'", "want two files or none"],
    ),
    (["train", "two_learners", "seed"], ["'seed' is no setting", "name=value"]),
    (["train", "two_learners", "seed=three"], ["seed is 'three'; want a whole number"]),
    (["train", "two_learners", "seed.x=3"], ["seed is 0"]),
    (["train", "two_learners", "game.rounds=0"], ["rounds is 0", "from 1"]),
    (["train", "two_learners", "game.noise=1.5"], ["noise is 1.5", "from 0 to 1"]),
    (["train", "two_learners", "game.payoffs=[[[1,1],[2,0]]]"], ["payoffs", "2 rows of 2 pairs"]),
    (
        ["train", "two_learners", "game.payoffs=7"],
        ["game.payoffs is 7; want a list of lists of lists of two numbers, such as [[[1,1],[-1,2]],[[2,-1],[0,0]]]"],
    ),
    (["train", "two_learners", "agent.memory.width=0"], ["width is 0", "from 1"]),
    (["train", "two_learners", "algorithm.learning_rate=-1"], ["learning_rate is -1", "above 0"]),
    (["train", "two_learners", "trials=0"], ["trials is 0", "at least 1"]),
    (["train", "two_learners", "device=gpu"], ["device is 'gpu'", "'cpu' or 'cuda'"]),
    (["train", "two_learners", "game=pettingzoo:no.such_module"], ["'no.such_module'", "cannot be imported"]),
    (["train", "two_learners", "game=pettingzoo:json"], ["'json' has no parallel_env"]),
    (["train", "ipd_mixed_pool_quick", "game=pettingzoo:pettingzoo.classic.rps_v2"], ["'random_table' cannot play this game", "outcome"]),
    (["train", "ipd_mixed_pool_quick", "trials=4"], ["trials is 4", "too few for 4 minibatches"]),
    (["train", "two_learners", "game=ballet:delay=100000,limit=1000000"], ["of 1,000,000 steps", "GB", "want fewer trials, shorter ones"]),
    (["train", "two_learners", "trials=9", "learners=4"], ["trials is 9", "learner processes"]),
    (["train", "two_learners", "trials=true"], ["trials is True; want a whole number"]),
    (["train", "two_learners", "trials=1000000000000"], ["trials is 1000000000000", "at most"]),
    (["train", "two_learners", "game.rounds=1000000000000"], ["rounds is 1000000000000", "1,000,000"]),
    (["train", "two_learners", "agent.memory.width=1000000"], ["width is 1000000", "65,536"]),
    (
        ["train", "two_learners", 'game.payoffs=[[["a",1],[0,0]],[[1,1],[1,1]]]'],
        ['game.payoffs is [[["a",1],[0,0]],[[1,1],[1,1]]]; want a list of lists of lists of two numbers, such as [[[1,1],'],
    ),
    (["train", "two_learners", "game.payoffs=[[[NaN,1],[0,0]],[[1,1],[1,1]]]"], ["finite"]),
    (["train", "two_learners", 'game.actions=["cooperate","cooperate"]'], ["actions", "different names"]),
    (["train", "two_learners", "--evalute", "seed=3"], ["'--evalute' means nothing to train"]),
    (["train", "two_learners", "scheme=self_play:tit_for_tat"], ["'self_play' takes no co-player"]),
    (["train", "two_learners", "scheme=mixed_pool:tit_for_tatt"], ["'tit_for_tatt'", "did you mean 'tit_for_tat'?"]),
    (["train", "two_learners", "scheme=mixed_pool:runs/no/agent"], ["runs/no/agent is no agent"]),
    (["train", "two_learners", "--runs", "/etc/passwd/runs"], ["runs cannot be written to /etc/passwd/runs"]),
    (["train", "ipd_mixed_pool_quick", "trials=1"], ["trials is 1"]),
    (["train", "two_learners", "suite=nonsense"], ["no suite is called 'nonsense'", "ipd_classics"]),
    (["train", "ipd_mixed_pool_quick", "game=matching_pennies", "--evaluate"], ["suite 'ipd_classics' is for"]),
    (["train", "two_learners", "preset=../outside"], ["preset is '../outside'"]),
    (["train", "two_learners", "algorithm.clip=-1"], ["clip is -1"]),
    (
        [
            "train",
            "two_learners",
            'scheme={"type": "training.schemes.mixture:Mixture", "names": ["learner_0"], "pairings": []}',
        ],
        ["scheme"],
    ),
    (["train", "two_learners", "scheme=mixed_pool", "scheme.names=[]"], ["names is empty"]),
    (["train", "--resume", "runs/nothing"], ["runs/nothing"]),
    (["evaluate", "runs/nothing"], ["there is no runs/nothing: want a run"]),
    (["replay", "/etc"], ["/etc is no run", "experiment.json"]),
    (["evaluate", "runs/nothing", "--trials", "0"], ["--trials is 0"]),
    (["list", "gams"], ["'gams'", "did you mean 'games'?"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(arguments)[:60] for arguments, _ in WRONG])
def test_a_mistake_gets_one_clear_line_and_exit_code_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as left:
        code = int(str(left.code))
    printed = capsys.readouterr()
    assert code == 2
    assert printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err
    assert list(tmp_path.iterdir()) == [], "something was written"


def test_captions_from_files_are_learned_from_as_their_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs/games/referential.md").read_text()
    (command,) = (line for line in page.splitlines() if "python launch.py train" in line and "captions=" in line)
    monkeypatch.chdir(tmp_path)
    said = [f"{colour} {thing}" for colour in ("red", "blue", "green", "grey") for thing in ("cat", "boat", "tree")]
    annotations = [{"image_id": number, "caption": text} for number, text in enumerate(said)]
    Path("captions_train.json").write_text(json.dumps({"images": [{"id": number} for number in range(12)], "annotations": annotations}))
    np.save("features.npy", np.eye(12, 5, dtype=np.float32))
    trained: list[PlainTrainer] = []

    def train_plainly(run: Run, snapshot: Snapshot | None) -> None:
        trained.append(PlainTrainer(run.experiment, {}))
        trained[0].train()

    monkeypatch.setattr("training.train.train", train_plainly)
    assert main([*command.split()[2:], "trials=8", "agent.memory.width=8"]) == 0
    (run,) = Path("runs").iterdir()
    game = Run.open(run).experiment.game
    assert (game.captions, game.features, game.shows) == ("captions_train.json", "features.npy", "features")
    assert game.world == 12
    assert trained[0].iteration == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Exception("The current node timed out\nduring startup."), "Ray did not start (The current node timed out during startup.); want"),
        (TimeoutError("Timed out after 30 seconds"), "Ray did not start (Timed out after 30 seconds); want"),
        (ConnectionError(), "Ray did not start (ConnectionError); want"),
    ],
)
def test_a_machine_too_busy_to_start_ray_is_told_in_one_line(
    failure: Exception, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def refuse(**_: Any) -> None:
        raise failure

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", refuse)
    assert main(["train", "two_learners", "trials=8", "--runs", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert words in printed.err


@pytest.mark.parametrize(("typed", "activation"), [("none", "none"), ('"none"', "none"), ("silu", "silu")])
def test_a_name_may_be_none(typed, activation):
    assert override(Experiment(), f"agent.activation={typed}").agent.activation == activation
