"""The results of an evaluation as tables for a screen of 100 columns, or with fewer intervals for one of 80."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as Grid
from rich.text import Text

from training.evaluation.play import MEANINGS
from training.evaluation.statistics import Interval

# Figures that get a narrow column with their mean alone, and what stands over it.
SHORT = {
    "score": "score",
    "best_response_gap": "gap",
    "trained_response_gap": "gap t.",
    "reciprocity": "recip.",
    "extortion": "extort.",
}


def as_grids(results: Mapping[str, Any], width: int = 100) -> Iterator[Grid]:
    """One table per contender, then comparisons, inference, exploitability and cross-play where there are any. width: in columns."""
    yield from _scenarios(results, width)
    yield from _comparisons(results)
    if results["inference"]:
        yield _inference(results)
    if results.get("language"):
        yield _language(results)
    if results.get("exploitability"):
        yield _exploitability(results, width)
    if results.get("cross_play"):
        yield _cross_play(results["cross_play"], width)


def _scenarios(results: Mapping[str, Any], width: int) -> Iterator[Grid]:
    trials = results["trials_per_scenario"]
    for agent in dict.fromkeys(row["agent"] for row in results["scenarios"]):
        rows = [row for row in results["scenarios"] if row["agent"] == agent]
        names = list(dict.fromkeys(name for row in rows for name in row["figures"] if not name.startswith("other_")))
        columns = _fitting(rows, [*(name for name in names if name not in SHORT), *(name for name in SHORT if name in names)], width)
        seeds = max(figure["seeds"] for row in rows for figure in row["figures"].values())
        covers = Interval(0.0, 0.0, 0.0, seeds, trials).covers
        notes = [
            f"mean [95 % bootstrap interval]: {covers}",
            *(f"{_head(name).rstrip('.')}: {MEANINGS[name]}" for name in columns if name in MEANINGS),
        ]
        title = f"{agent}: {results['suite']} v{results['version']}, {trials} trials x {seeds} seed{'s' if seeds > 1 else ''}"
        grid = _grid(title, "\n".join(notes))
        grid.add_column("against", overflow="fold")
        for name in columns:
            grid.add_column(Text(_head(name)), justify="right", no_wrap=True)
        for number, row in enumerate(rows):
            grid.add_row(*[Text(cell) for cell in (row["scenario"], *[cells[number] for cells in columns.values()])])
        yield grid


def _fitting(rows: list[Mapping[str, Any]], names: list[str], width: int) -> dict[str, list[str]]:
    """{figure: cells}: means, as many as fit (the report has the rest), and intervals for the first ones while there is room."""
    room = width - min(22, max(len(row["scenario"]) for row in rows))
    columns: dict[str, list[str]] = {}
    for name in names:
        cells = [_mean(row["figures"].get(name)) for row in rows]
        if (needed := 2 + _width(name, cells)) <= room:
            columns[name] = cells
            room -= needed
    for name, cells in columns.items():
        intervals = [_interval(row["figures"].get(name)) for row in rows]
        needed = _width(name, intervals) - _width(name, cells)
        if name in SHORT or needed > room:
            break
        columns[name] = intervals
        room -= needed
    return columns


def _width(name: str, cells: list[str]) -> int:
    return max(len(text) for text in (_head(name), *cells))


def _head(name: str) -> str:
    return SHORT.get(name, name.replace("_", " "))


def _comparisons(results: Mapping[str, Any]) -> Iterator[Grid]:
    note = "first's reward less second's on the same luck [95 % interval]; P: that the first does better"
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in results["comparisons"]))
    # Of many there are many pairs; the report has them all.
    for a, b in pairs if len(pairs) <= 3 else ():
        grid = _grid(f"{a} - {b}", note)
        grid.add_column("against", overflow="fold")
        grid.add_column("difference", justify="right", no_wrap=True)
        grid.add_column("P", justify="right", no_wrap=True)
        for row in results["comparisons"]:
            if (row["a"], row["b"]) == (a, b):
                cells = (row["scenario"], _interval(row["difference"]), _mean(row["probability_of_improvement"]))
                grid.add_row(*[Text(cell) for cell in cells])
        yield grid


def _inference(results: Mapping[str, Any]) -> Grid:
    first = results["inference"][0]
    shown = [number for number, time in enumerate(first["rounds"]) if time in (1, 3, 8, 20, 50, 99)] or range(len(first["rounds"]))
    left = first["trials_left"][shown[-1]]
    few = f" ({left} of them as long as the last column)" if left < first["trials"] else ""
    note = (
        f"share of co-players told apart by a linear map after so many steps; chance {first['chance']:.2f}; "
        f"{first['trials']} trials per scenario{few}, {first['seeds']} seed{'s' if first['seeds'] > 1 else ''}"
    )
    grid = _grid("inference: who is it?", note)
    grid.add_column("read from", overflow="fold")
    for number in shown:
        grid.add_column(Text(str(first["rounds"][number])), justify="right")
    for row in results["inference"]:
        for label, values in ((f"{row['agent']}'s memory", row["accuracy"]), ("counts of what was played", row["control"])):
            grid.add_row(Text(label), *[Text(f"{values[number]:.2f}" if number < len(values) else "") for number in shown])
    return grid


def _language(results: Mapping[str, Any]) -> Grid:
    rows = results["language"]
    names = [name for name in rows[0]["figures"] if name not in ("accuracy", "message_length")]
    first = rows[0]["figures"][names[0]]
    grid = _grid("what is said", f"docs/games/referential.md, What is said; {first['trials']} messages of each speaker")
    grid.add_column("speaker", overflow="fold")
    grid.add_column("against", overflow="fold")
    for name in names:
        grid.add_column(Text({"topographic_similarity": "topogr. sim."}.get(name, _head(name))), justify="right")
    for row in rows:
        grid.add_row(*[Text(cell) for cell in (row["agent"], row["scenario"], *[_mean(row["figures"].get(name)) for name in names])])
    return grid


def _exploitability(results: Mapping[str, Any], width: int) -> Grid:
    row = results["exploitability"][0]
    note = (
        f"a fresh learner trained for {row['iterations']} x {row['trials_per_iteration']} trials against each; "
        "exploitability: its reward less the copy reward, the agent's with a copy of itself (a lower bound)"
    )
    grid = _grid("exploitability", note)
    grid.add_column("agent", overflow="fold")
    names = ("exploiter_reward", "agent_reward", "copy_reward", "exploitability")
    for name in names:
        grid.add_column(Text(name.replace("_", " ")), justify="right", no_wrap=True)
    for row in results["exploitability"]:
        shown = _interval if width >= 120 else _mean
        cells = (row["agent"], *[shown(row[name]) for name in names])
        grid.add_row(*[Text(cell) for cell in cells])
    return grid


def _cross_play(found: Mapping[str, Any], width: int) -> Grid:
    names = found["agents"]
    # Seven columns for each agent's payoffs, beside its name and what a population makes of it.
    fits = min(30, max(len(name) for name in names) + 2) + 38 + 7 * len(names) <= width
    note = f"row's mean reward against column's number, {found['trials']} trials each; then what a population of them makes of it"
    grid = _grid("cross-play", note if fits else "what a population makes of their meetings; the payoffs are in the report")
    grid.add_column("agent", overflow="fold")
    shown = range(len(names)) if fits else range(0)
    for number in shown:
        grid.add_column(Text(str(number + 1)), justify="right")
    for title in ("replicator", "alpha-rank", "Nash", "Elo"):
        grid.add_column(Text(title), justify="right")
    shares = (found["replicator"]["shares"][-1], found["alpha_rank"]["shares"], found["nash_average"]["shares"])
    for number, name in enumerate(names):
        cells = [f"{found['payoff'][number][other]:.2f}" for other in shown]
        cells += [f"{share[number]:.2f}" for share in shares] + [f"{found['elo']['ratings'][number]:.0f}"]
        grid.add_row(Text(f"{number + 1} {name}"), *[Text(cell) for cell in cells])
    return grid


def _grid(title: str, note: str) -> Grid:
    return Grid(
        box=SIMPLE_HEAD,
        title=Text(title),
        caption=Text(note),
        title_justify="left",
        caption_justify="left",
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )


def _interval(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["mean"] is None:
        return "-"
    return str(Interval(*(figure[name] for name in ("mean", "low", "high", "seeds", "trials"))))


def _mean(figure: Mapping[str, Any] | None) -> str:
    return "-" if figure is None or figure["mean"] is None else f"{figure['mean']:.2f}"
