"""Train agents that remember, evaluate them, replay what they did.

python launch.py train PRESET [setting=value ...] [--seeds N] [--evaluate]
python launch.py train --resume RUN [iterations=N]
python launch.py evaluate RUN|AGENT|NAME ... [--suite NAME] [--cross-play]
python launch.py replay RUN [--recording NAME] [--look]
python launch.py list [KIND [NAME]]
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import os
import re
import shutil
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from training.run import Run, Snapshot

# How often torch's threads look for work before they sleep. By default they do so for milliseconds, which keeps others, and one another,
# from the cores: beside two busy processes on two cores training was fifteen times slower with that; alone it was as fast (docs/log.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Torch and Ray take seconds to import: everything that needs them is imported where it is used.
VERBS = ("train", "evaluate", "replay", "list")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, 1 if something failed, 2 if what was asked for does not exist or cannot begin, 130 if a person stopped it."""
    parser = _parser()
    options, more = parser.parse_known_args(arguments)
    # argparse takes a list of settings only in one piece; people write them around options.
    wrong = [word for word in more if options.verb != "train" or word.startswith("-") or "=" not in word]
    if wrong:
        parser.error(f"{wrong[0]!r} means nothing to {options.verb}")
    if more:
        options.settings = [*options.settings, *more]
    for name, value in vars(options).items():
        # As an unset variable of a shell's leaves it.
        if value == "" or (isinstance(value, list) and "" in value):
            parser.error(f"{name} is empty; want something there, or leave it out")
    try:
        if getattr(options, "trust", False):
            from training.settings import trust

            trust()
        return int(options.run(options))
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is not installed for {sys.executable}; try: make install, then . .venv/bin/activate")
    except ValueError as error:
        from training.settings import BadInput

        if not isinstance(error, BadInput):
            raise
        return _complain(str(error))
    except BrokenPipeError:
        # Whoever reads, `head` for one, has seen enough; what is still to be flushed has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _complain(f"{error.filename or 'a file'}: {error.strerror or error}", code=1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def train(options: argparse.Namespace) -> int:
    from training.memory_benchmark import SETTINGS
    from training.presets import STUDIES
    from training.run import Run, wants_trust
    from training.settings import BadInput, override, told
    from training.train import Failed, Stopped
    from training.train import train as train_run

    # Where no preset stands, argparse takes a setting for it.
    longer = [word for word in (options.preset, *options.settings) if word] if options.resume else []
    for word in longer:
        if word.partition("=")[0] != "iterations":
            raise BadInput(f"--resume takes no preset or settings but iterations=N, and {word!r} was given; a run keeps its own")
    if options.seeds < 1:
        raise BadInput(f"--seeds is {options.seeds}; want at least 1")
    if options.resume and options.seeds > 1:
        raise BadInput(f"--resume goes on with one run, which has its seed, but --seeds {options.seeds} was given")
    if options.show:
        if options.resume:
            raise BadInput("--show tells the settings of what would begin; those of a run are in its experiment.json")
        print("\n".join(told(_study_of(options) if options.preset in STUDIES else _experiment(options))))
        return 0
    if options.preset in STUDIES or (options.resume and Path(options.resume, SETTINGS).is_file()):
        if longer:
            raise BadInput(f"{options.resume} is a study, which keeps its settings, but {longer[0]!r} was given")
        return _study(options)
    if options.resume:
        runs: Iterable[tuple[Run, Snapshot | None]] = [_reopened(options, longer)]
    else:
        first = _experiment(options)
        # The last seed is looked at before the first one is trained.
        experiments = [override(first, f"seed={first.seed + number}") for number in range(options.seeds)]
        runs = ((Run.create(experiment, Path(options.runs)), None) for experiment in experiments)
    done: list[Run] = []
    for run, snapshot in runs:
        print(f"run {run.directory}", flush=True)
        left = options.seeds - len(done) - 1
        not_begun = f"; {left} of the {options.seeds} seeds had not begun" if left else ""
        try:
            train_run(run, snapshot)
        except Stopped as stopped:
            print(f"{stopped}{not_begun}", flush=True)
            # Ray's processes end with this one. Asking them first would take seconds that an impatient person does not have.
            os._exit(130)
        except Failed as failure:
            return _complain(f"{failure}{not_begun}", code=1)
        done.append(run)
    if options.evaluate:
        _evaluate(done, _parser().parse_args(["evaluate", "."]))
    trust = " --trust" if wants_trust(run.experiment) else ""
    is_active = os.environ.get("VIRTUAL_ENV") or sys.prefix == sys.base_prefix
    print("\nNext:" if is_active else "\nNext (after . .venv/bin/activate):")
    if not options.evaluate:
        print(f"  python launch.py evaluate {' '.join(str(run.directory) for run in done)}{trust}")
    print(f"  tensorboard --logdir {run.directory.parent}")
    if options.evaluate:
        print(f"  python launch.py replay {run.directory}{trust}")
    return 0


def _reopened(options: argparse.Namespace, longer: list[str]) -> tuple[Run, Snapshot]:
    """The run to go on with, and where. longer: settings that say for how long."""
    from training.run import Run
    from training.settings import BadInput, override

    run = Run.open(options.resume, trust=options.trust)
    snapshot = run.load_checkpoint(warn=lambda text: print(f"warning: {text}", file=sys.stderr))
    wanted = override(run.experiment, *longer).iterations
    if snapshot.iteration >= wanted:
        done = f"all {wanted} iterations are done" if not longer else f"iterations is {wanted}, and {snapshot.iteration} are done"
        raise BadInput(f"{run.directory} is complete: {done}; to go on for longer, say iterations=N with more")
    with run.held():
        run.go_on_for(wanted)
    return run, snapshot


def evaluate(options: argparse.Namespace) -> int:
    from training.settings import BadInput

    if options.trials is not None and options.trials < 1:
        raise BadInput(f"--trials is {options.trials}; want at least 1")
    if options.episodes is not None and options.episodes < 1:
        raise BadInput(f"--episodes is {options.episodes}; want at least 1")
    for name in ("record", "exploit", "best_responses"):
        if getattr(options, name) < 0:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; want 0 or more")
    if options.against and options.suite:
        raise BadInput(f"--against makes a suite of its own, but --suite {options.suite} was given; want one of the two")
    _evaluate(options.who, options)
    return 0


def replay(options: argparse.Namespace) -> int:
    from rich.console import Console

    from training.replay import replay as replay_run
    from training.run import Run

    run = Run.open(options.directory, trust=options.trust)
    return 0 if replay_run(run, options.recording, options.trial, Console(), options.trust, options.look) else 1


def list_names(options: argparse.Namespace) -> int:
    dictionaries = _dictionaries()
    wanted = [options.kind] if options.kind else list(dictionaries)
    if options.kind is not None and options.kind not in dictionaries:
        from envs.settings import nearest

        return _complain(f"nothing is listed under {options.kind!r}; {nearest(options.kind, dictionaries)}")
    if options.name is not None:
        return _tell_of(options.kind, options.name, dictionaries[options.kind])
    # Where nobody looks (`| grep`) an entry stays on one line.
    columns = shutil.get_terminal_size((sys.maxsize, 0)).columns
    for kind in wanted:
        print(kind)
        entries = dictionaries[kind]
        width = max(len(name) for name in entries)
        for name, path in entries.items():
            room = max(20, columns - width - 4)
            lines = textwrap.wrap(_first_sentence(path), room, break_long_words=False, break_on_hyphens=False)
            print(f"  {name:{width}}  " + f"\n{'':{width + 4}}".join(lines))
    return 0


def _tell_of(kind: str, name: str, entries: dict[str, str]) -> int:
    """All that is said of an entry where it is defined, and its settings as they are by default."""
    from envs.settings import nearest
    from training.settings import load, told

    if name not in entries:
        return _complain(f"nothing in {kind} is called {name!r}; {nearest(name, entries)}")
    found = load(entries[name])
    parameters = inspect.signature(found).parameters.values()
    made = found() if all(each.default is not each.empty for each in parameters) else None
    # A memory's equations are its module's.
    sources: list[Any] = [sys.modules[found.__module__]] if kind == "memories" or not found.__doc__ else []
    # What a function of a co-player makes is told by others' docstrings.
    is_made_elsewhere = kind == "co_players" and not isinstance(found, type)
    sources += [found, *(each for each in type(made).__mro__ if dataclasses.is_dataclass(each) and not is_made_elsewhere)]
    columns = shutil.get_terminal_size((sys.maxsize, 0)).columns
    for text in dict.fromkeys(inspect.cleandoc(source.__doc__) for source in sources if source.__doc__):
        for paragraph in text.split("\n\n"):
            # What is indented is a formula or a table.
            is_laid_out = any(line.startswith(" ") for line in paragraph.splitlines())
            print((paragraph if is_laid_out else textwrap.fill(" ".join(paragraph.split()), columns)) + "\n")
    if kind == "games":
        _tell_of_game(made)
    if kind == "co_players":
        # What may stand behind a name's colon, which is not always a setting of what it makes.
        print("\n".join(f"{each.name}={each.default}" for each in parameters))
    elif dataclasses.is_dataclass(made):
        print("\n".join(told(made)))
    return 0


def _tell_of_game(game: Any) -> None:
    from envs.game import KnowsAnswers

    for role in game.roles:
        shown = ", ".join(f"{field}: {_in_words(space)}" for field, space in role.observation_space.items())
        print(f"{role.name}, {role.seats} {'seat' if role.seats == 1 else 'seats'}, is shown {shown}; acts: {_in_words(role.action_space)}")
    knows = "It knows the right actions, so that algorithm=supervised can teach them." if isinstance(game, KnowsAnswers) else ""
    print(f"\n{game.max_steps:,} steps at most. {knows}".rstrip() + "\n")


def _in_words(space: Any) -> str:
    """A space without the bounds of each of its numbers."""
    kind = type(space).__name__
    if kind == "Discrete":
        return f"one of {space.n}"
    if kind == "Box" and not space.shape:
        return f"a number from {space.low:g} to {space.high:g}"
    return f"{kind} {list(space.shape)}" if space.shape else kind


def _study(options: argparse.Namespace) -> int:
    from training.memory_benchmark import carry_out, create, reopen
    from training.settings import BadInput

    if options.evaluate:
        raise BadInput("--evaluate means nothing here: a study tests what it trains")
    if options.seeds > 1:
        raise BadInput(f"--seeds means nothing here: a study has a setting for it; want seeds={options.seeds}")
    if options.resume:
        directory = Path(options.resume)
        study = reopen(directory)
    else:
        study = _study_of(options)
        directory = create(study, Path(options.runs))
    print(f"run {directory}", flush=True)
    go_on = f"python launch.py train --resume {directory}{' --trust' if study.names_modules else ''}"
    try:
        failed = carry_out(study, directory, lambda text: print(text, flush=True))
    except KeyboardInterrupt:
        print(f"stopped; go on with: {go_on}", flush=True)
        return 130
    print(f"table and figure: {directory}/table.md, figure.png")
    if failed:
        return _complain(f"{len(failed)} cells failed, which the table names; try them again with: {go_on}", code=1)
    return 0


def _study_of(options: argparse.Namespace) -> Any:
    from training.presets import STUDIES
    from training.settings import lookup, override

    study = override(lookup(STUDIES, options.preset, "study")(), *options.settings)
    study.check()
    return study


def _experiment(options: argparse.Namespace) -> Any:
    from training.occupants import check
    from training.presets import PRESETS, STUDIES
    from training.settings import BadInput, lookup, override

    if not options.preset:
        raise BadInput(f"name a preset: {', '.join(sorted(PRESETS | STUDIES))}")
    experiment = override(lookup(PRESETS | STUDIES, options.preset, "preset")(), *options.settings)
    check(experiment, evaluates=options.evaluate)
    return experiment


def _evaluate(who: list[Any], options: argparse.Namespace) -> None:
    from rich.console import Console

    from training.evaluation.contenders import enter
    from training.evaluation.evaluate import Extras
    from training.evaluation.evaluate import evaluate as evaluate_all
    from training.evaluation.screen import as_grids
    from training.evaluation.suites import against

    def warn(text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)

    entrants = enter(who, options.game, options.episodes, trust=options.trust, skip=warn if options.skip_damaged else None)
    extras = Extras(options.cross_play, options.exploit, options.best_responses)
    out = Path(options.out) if options.out else None
    suite = against(options.against, entrants.experiment.game) if options.against else options.suite
    done = evaluate_all(entrants, suite, options.trials, options.record, extras, out, lambda text: print(text, flush=True))
    console = Console()
    for grid in as_grids(done.results, console.width):
        console.print(grid)
        console.print()
    print(f"report: {done.report}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="launch.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="train | evaluate | replay | list", parser_class=_Parser)

    verb = verbs.add_parser("train", help="train a preset, or go on with a run", description="Train a preset, or go on with a run.")
    verb.add_argument("preset", nargs="?", help="a name from: launch.py list presets")
    verb.add_argument("settings", nargs="*", metavar="setting=value", help="for example seed=3 game=chicken:rounds=50 agent.memory=none")
    what = "a run's directory, to go on from its last checkpoint; with iterations=N for longer than it was to"
    verb.add_argument("--resume", metavar="RUN", help=what)
    verb.add_argument("--runs", default="runs", metavar="DIR", help="where runs live (default: runs)")
    what = "train N runs, one after the other, with this seed and the next ones"
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help=what)
    verb.add_argument("--evaluate", action="store_true", help="evaluate when done, all seeds together")
    verb.add_argument("--show", action="store_true", help="print every setting, as it would be, and train nothing")
    _add_trust(verb)
    verb.set_defaults(run=train)

    about = "Evaluate runs, agents and scripts. Runs that differ only in their seed are seeds of one line of the results."
    verb = verbs.add_parser("evaluate", help="meet held-out co-players", description=about)
    what = "a run, an agent's directory, a directory of agents, a name from: launch.py list co_players, or module:object"
    verb.add_argument("who", nargs="+", metavar="WHO", help=what)
    verb.add_argument("--suite", help="a name from: launch.py list suites (default: the preset's)")
    verb.add_argument("--against", action="append", metavar="NAME", help="instead of a suite: this co-player, and more if said again")
    verb.add_argument("--trials", type=int, help="per scenario and agent (default: the suite's)")
    verb.add_argument("--cross-play", action="store_true", help="also everyone with everyone, and what a population makes of it")
    verb.add_argument("--exploit", type=int, default=0, metavar="N", help="also train a fresh learner against each, N iterations")
    what = "also train a best response, N iterations, wherever none is known exactly"
    verb.add_argument("--best-responses", type=int, default=0, metavar="N", help=what)
    verb.add_argument("--record", type=int, default=4, metavar="N", help="trials to record per scenario (default: 4)")
    verb.add_argument("--game", help="by name, with settings as in chicken:rounds=50,noise=0.1 (default: the runs')")
    verb.add_argument("--episodes", type=int, help="of a trial (default: the runs')")
    verb.add_argument("--out", metavar="DIR", help="where results go (default: the runs' directories, or runs/evaluation-SUITE-DATE)")
    verb.add_argument("--skip-damaged", action="store_true", help="leave out agents that cannot be read instead of stopping")
    _add_trust(verb)
    verb.set_defaults(run=evaluate)

    verb = verbs.add_parser("replay", help="watch a recorded trial", description="Re-simulate a recording, check it, print it.")
    verb.add_argument("directory", metavar="RUN")
    verb.add_argument("--recording", metavar="NAME", help="a file of the run's episodes/ (default: the first)")
    verb.add_argument("--trial", type=int, default=0, help="which of its trials (default: 0)")
    verb.add_argument("--look", action="store_true", help="also show what each agent's memory looks at, step by step")
    _add_trust(verb)
    verb.set_defaults(run=replay)

    about = "What there is, by kind; of a NAME all that is said of it, and its settings as they are by default."
    verb = verbs.add_parser("list", help="what there is", description=about)
    kinds = "games, memories, co_players, schemes, algorithms, suites, presets or studies (default: all)"
    verb.add_argument("kind", nargs="?", metavar="KIND", help=kinds)
    verb.add_argument("name", nargs="?", metavar="NAME", help="for example: list memories hcam")
    verb.set_defaults(run=list_names)
    return parser


def _add_trust(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--trust", action="store_true", help="import the module of somebody else's that a run's file names")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, with the nearest verb where one was meant."""
        if "invalid choice" in message:
            wrong = message.split("invalid choice: ")[1].split(" ")[0].strip("'")
            from envs.settings import nearest

            message = f"nothing is called {wrong!r}; {nearest(wrong, VERBS)}"
        raise SystemExit(_complain(f"{message} (see {self.prog} --help)"))


def _complain(message: str, code: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _dictionaries() -> dict[str, dict[str, str]]:
    """The dictionaries' texts, read and not run: what defines them imports torch."""
    homes = {
        "games": ("envs", "GAMES"),
        "memories": ("memory", "MEMORIES"),
        "co_players": ("agents.co_players", "CO_PLAYERS"),
        "schemes": ("training.schemes", "SCHEMES"),
        "algorithms": ("training.settings", "ALGORITHMS"),
        "suites": ("training.evaluation.suites", "SUITES"),
        "presets": ("training.presets", "PRESETS"),
        "studies": ("training.presets", "STUDIES"),
    }
    return {kind: _literal(module, name) for kind, (module, name) in homes.items()}


def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text())


def _literal(module: str, name: str) -> dict[str, str]:
    for node in _tree(module).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name and node.value:
            entries: dict[str, str] = ast.literal_eval(node.value)
            return entries
    raise AssertionError(f"{module} has no {name}")


def _first_sentence(path: str) -> str:
    """About an entry: its own docstring's, or its module's where its own begins with settings."""
    module, _, name = path.partition(":")
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            text = ast.get_docstring(node) or ""
            if not text or (name.endswith("Config") and not text[0].isupper()):
                break
            return _sentence(text)
    return _sentence(ast.get_docstring(tree) or "")


def _sentence(text: str) -> str:
    """The first of a text, in one line; its first paragraph where that ends with something else than a full stop."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    # "et al. 2026" and "eq. 14" go on.
    return re.split(r"(?<=\.)(?<!\bal\.)(?<!\beq\.) ", paragraph, maxsplit=1)[0]


if __name__ == "__main__":
    sys.exit(main())
