"""An evaluation as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

`results` is what `results.json` holds for a suite; a section whose key is absent is left out:

    suite, version, runs, trials_per_scenario, seeds
    contenders    [{name, runs, iterations}]
    scenarios     [{agent, scenario, seats, figures {name: interval}, curves {name: {mean [T], low [T], high [T]}}}]
    comparisons   [{scenario, figure, a, b, difference: interval, probability_of_improvement: interval}]
    inference     [{agent, kinds, rounds [R], accuracy [R], control [R], chance, trials, trials_left [R]}]
    language      [{agent, scenario, figures {name: interval without ends}}]
    exploitability  [{agent, and intervals by name}]
    cross_play    as `population_games.analyse` returns it, and perhaps cooperation [A, A]

An interval is {mean, low, high, seeds, trials}; any number may be None. All text comes from others and is escaped; numbers must be numbers.
"""

from __future__ import annotations

import html
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.evaluation.play import MEANINGS
from training.evaluation.statistics import Interval, mean_of
from training.files import write_atomically

Array = NDArray[Any]

# A curve of more steps is drawn as means of stretches: more points than this cannot be told apart in a panel.
_MOST_POINTS = 120
# The agents' colours in the style sheet; further agents get them again with another dash.
_COLOURS = 8
_DASHES = ("", "14 8", "3 8", "20 6 3 6")
_CHANCE = 'class="chance" stroke-dasharray="6 8"'

# Room in a panel's own units for ticks at the left and below.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 340, 92, 28, 14, 46


def write_report(results: Mapping[str, Any], path: Path) -> None:
    """Writes `html_of(results)`; afterwards the whole file is there, or what was before. Raises OSError."""
    write_atomically(path, html_of(results).encode("utf-8", "xmlcharrefreplace"))


def html_of(results: Mapping[str, Any]) -> str:
    """The page. Raises ValueError or TypeError where a number is none."""
    agents = _agents_of(results)
    sections = [
        ("figures", "Figures", _figures(results)),
        ("side-by-side", "Agents side by side", _side_by_side(results, agents)),
        ("comparisons", "Differences between agents", _comparisons(results)),
        ("curves", "Within a trial", _curves(results, agents)),
        ("inference", "What the memory knows of the co-player", _inference(results)),
        ("language", "What is said", _language(results)),
        ("exploitability", "What a learner trained against them earns", _exploitability(results)),
        ("cross-play", "Cross-play", _cross_play(results, agents)),
    ]
    there = [(name, title, body) for name, title, body in sections if body]
    contents = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in there)
    bodies = "\n".join(f'<section id="{name}"><h2>{title}</h2>\n{body}</section>' for name, title, body in there)
    title = f"Evaluation: {results.get('suite', 'no suite')}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{_text(title)}</h1>
{_about(results)}</header>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
<main>
{bodies}
</main>
</body>
</html>
"""


# Of a game's settings, in letters: payoffs fit, a table of captions does not.
_LONGEST_SETTING = 100


class _Scale(NamedTuple):
    """low, high: what is drawn. ticks: round values between them. digits: after their point."""

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int

    def share(self, value: float) -> float:
        """0 at low, 1 at high."""
        return (value - self.low) / (self.high - self.low)


_SHARES = _Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), 2)


class _Line(NamedTuple):
    """x, mean, low, high: [T], NaN where there is nothing. style: attributes of its colour and dash."""

    name: str
    style: str
    x: Array
    mean: Array
    low: Array
    high: Array


def _about(results: Mapping[str, Any]) -> str:
    entries = [
        ("Suite", f"{results.get('suite', 'none')}, version {results.get('version', 'unknown')}"),
        ("Game", _game(results)),
        ("Runs", ", ".join(str(run) for run in results.get("runs", [])) or "none named"),
        *((f"Contender {each['name']}", _runs(each)) for each in results.get("contenders", [])),
        ("Evidence", _evidence([], results)),
    ]
    return "<dl>" + "".join(f"<dt>{_text(term)}</dt><dd>{_text(said)}</dd>" for term, said in entries) + "</dl>"


def _runs(contender: Mapping[str, Any]) -> str:
    """Its runs, and after how many iterations."""
    runs, iterations = contender.get("runs", []), contender.get("iterations", [])
    if len(iterations) != len(runs):
        return ", ".join(str(run) for run in runs)
    return ", ".join(f"{run} (iteration {number})" if number else str(run) for run, number in zip(runs, iterations, strict=True))


def _game(results: Mapping[str, Any]) -> str:
    """Its kind and settings in a line."""
    about = results.get("game")
    if not about:
        return "not said"
    plain = {name: json.dumps(value) if isinstance(value, (list, dict)) else str(value) for name, value in about.items() if name != "type"}
    settings = ", ".join(f"{name} {value}" for name, value in plain.items() if len(value) <= _LONGEST_SETTING)
    return f"{str(about.get('type', '')).rpartition(':')[2]}: {settings}; episodes {results.get('episodes', 1)}"


def _figures(results: Mapping[str, Any]) -> str:
    """One table per agent: rows are scenarios, columns are figures."""
    rows = results.get("scenarios", [])
    parts = []
    for agent in dict.fromkeys(row["agent"] for row in rows):
        own = [row for row in rows if row["agent"] == agent]
        parts.append(_grid("scenario", [(_name(row["scenario"]) + _seats(row), row.get("figures", {})) for row in own], agent, results))
    said = [(name, MEANINGS[name]) for name in _figure_names(rows) if name in MEANINGS]
    if said:
        parts.append("<dl>" + "".join(f"<dt>{_said(name)}</dt><dd>{_text(meaning)}</dd>" for name, meaning in said) + "</dl>")
    return "\n".join(parts)


def _side_by_side(results: Mapping[str, Any], agents: Sequence[str]) -> str:
    """One table of dots with intervals per figure: a row per scenario, in it a line per agent."""
    rows = results.get("scenarios", [])
    parts = []
    for name in _figure_names(rows):
        cells = [row.get("figures", {}).get(name) for row in rows]
        scale = _scale(_values(cells))
        digits = _digits(_values(cells))
        body = ""
        for scenario in dict.fromkeys(row["scenario"] for row in rows):
            here = [(row["agent"], cell) for row, cell in zip(rows, cells, strict=True) if row["scenario"] == scenario]
            here.sort(key=lambda pair: agents.index(pair[0]))
            dots = [(cell, _style(agents.index(agent)), f"{agent}: {_cell_text(cell, digits)}") for agent, cell in here]
            body += f'<tr><th scope="row">{_name(scenario)}</th><td>{_dots(dots, scale)}</td></tr>'
        head = f'<tr><th scope="col">scenario</th><th scope="col">{_said(name)}</th></tr>'
        caption = f"<strong>{_said(name)}</strong>: dots are means, bars 95 % intervals. {_evidence(cells, results)}"
        parts.append(_table(caption, head, body + _axis_row(scale), "plot"))
    return "\n".join([_legend(_present(rows, agents), agents), *parts]) if parts else ""


def _comparisons(results: Mapping[str, Any]) -> str:
    rows = results.get("comparisons", [])
    tables = []
    for figure in dict.fromkeys(row["figure"] for row in rows):
        own = [row for row in rows if row["figure"] == figure]
        differences = [row.get("difference") for row in own]
        chances = [row.get("probability_of_improvement") for row in own]
        scale, digits = _scale([*_values(differences), 0.0]), _digits(_values(differences))
        aside = ' class="left"'
        columns = [("scenario", ""), ("a", aside), ("b", aside), ("a - b", ""), ("drawn", ""), ("probability that a has more", "")]
        body = ""
        for row, difference, chance in zip(own, differences, chances, strict=True):
            dot = _dots([(difference, 'class="c0"', f"{row['a']} - {row['b']}: {_cell_text(difference, digits)}")], scale, zero=True)
            pair = "".join(f'<td class="left">{_name(name)}</td>' for name in (row["a"], row["b"]))
            body += (
                f'<tr><th scope="row">{_name(row["scenario"])}</th>{pair}<td>{_cell(difference, digits)}</td>'
                f'<td class="dots">{dot}</td><td>{_cell(chance, 2)}</td></tr>'
            )
        head = "<tr>" + "".join(f'<th scope="col"{left}>{column}</th>' for column, left in columns) + "</tr>"
        caption = (
            f"<strong>{_said(figure)}</strong>: difference a - b on the same trials [95 % interval], drawn beside a line at 0. "
            f"{_evidence([*differences, *chances], results)}"
        )
        tables.append(_table(caption, head, body))
    return "\n".join(tables)


def _curves(results: Mapping[str, Any], agents: Sequence[str]) -> str:
    """Small multiples: for each figure one panel per scenario, in it one line with its band per agent."""
    rows = [row for row in results.get("scenarios", []) if row.get("curves")]
    parts = []
    for name in _own(_unique(name for row in rows for name in row["curves"])):
        by_scenario: dict[str, list[_Line]] = {}
        longest = 1
        for row in rows:
            curve = row["curves"].get(name) or {}
            mean = _array(curve.get("mean"))
            low, high = (_array(curve.get(side)) if curve.get(side) else np.full_like(mean, np.nan) for side in ("low", "high"))
            longest = max(longest, len(mean))
            line = _Line(row["agent"], _style(agents.index(row["agent"])), *(_thin(each) for each in (_steps(mean), mean, low, high)))
            by_scenario.setdefault(row["scenario"], []).append(line)
        lines = [line for here in by_scenario.values() for line in here]
        across, up = _scale([1.0, float(longest)], margin=False), _scale([v for line in lines for v in (*line.mean, *line.low, *line.high)])
        panels = "".join(
            f"<figure><figcaption>{_name(scenario)}</figcaption>{_panel(here, across, up, f'{_plain(name)}, {scenario}')}</figure>"
            for scenario, here in by_scenario.items()
        )
        stretch = math.ceil(longest / _MOST_POINTS)
        thinned = f" Each point is the mean of {stretch} steps." if stretch > 1 else ""
        parts.append(
            f'<h3>{_said(name)}</h3><p class="note">Up: {_said(name)}; across: step of the trial. Bands are 95 % intervals, step by step. '
            f'{_evidence([row.get("figures", {}).get(name) for row in rows], results)}{thinned}</p><div class="panels">{panels}</div>'
        )
    return "\n".join([_legend(_present(rows, agents), agents), *parts]) if parts else ""


def _inference(results: Mapping[str, Any]) -> str:
    """For each agent how often a probe of its memory names the co-player's kind, round by round."""
    panels = []
    for row in results.get("inference", []):
        rounds = _array(row["rounds"])
        chance = np.full_like(rounds, np.nan if row.get("chance") is None else float(row["chance"]))
        nothing = np.full_like(rounds, np.nan)
        lines = [
            _Line("chance", _CHANCE, rounds, chance, nothing, nothing),
            _Line("control", _style(1), rounds, _array(row.get("control")), nothing, nothing),
            _Line("probe", _style(0), rounds, _array(row["accuracy"]), nothing, nothing),
        ]
        across = _scale([float(value) for value in rounds], margin=False)
        kinds = ", ".join(str(kind) for kind in row.get("kinds", []))
        panels.append(
            f"<figure><figcaption><strong>{_name(row['agent'])}</strong> tells apart {_text(kinds)}</figcaption>"
            f"{_panel(lines, across, _SHARES, 'inference')}</figure>"
        )
    if not panels:
        return ""
    keys = [("probe", _style(0)), ("control", _style(1)), ("chance", _CHANCE)]
    note = (
        "Up: share of held-out trials in which the co-player's kind is read off rightly; across: rounds played. "
        "Probe: by a linear map of its memory; control: by the same of counts of all that it had seen by then. "
        f"{_evidence(results['inference'], results, intervals=False)}"
    )
    return f'{_keys(keys)}<p class="note">{note}</p><div class="panels">{"".join(panels)}</div>'


def _language(results: Mapping[str, Any]) -> str:
    rows = [(f"{_name(row['agent'])}: {_said(row['scenario'])}", row["figures"]) for row in results.get("language", [])]
    return _grid("speaker and scenario", rows, "Messages, measured", results) if rows else ""


def _exploitability(results: Mapping[str, Any]) -> str:
    rows = [(_name(row["agent"]), {k: v for k, v in row.items() if isinstance(v, Mapping)}) for row in results.get("exploitability", [])]
    return _grid("agent", rows, "A fresh learner against each", results) if rows else ""


def _cross_play(results: Mapping[str, Any], agents: Sequence[str]) -> str:
    analysis = results.get("cross_play")
    if not analysis:
        return ""
    names = analysis["agents"]
    # Cross-play is between particular agents, whatever the seeds of the scenarios above.
    trials = analysis.get("trials")
    evidence = f"{_counted([trials], 'trial')} for each pair. " if trials else ""
    covers = f"{evidence}Intervals cover {Interval(0.0, 0.0, 0.0, 1, trials or 2).covers}."
    between = {side: limits for side, limits in (analysis.get("payoff_interval") or {}).items() if limits}
    title = "mean reward of the row's agent when it meets the column's"
    parts = [_heat_map(title, names, analysis["payoff"], covers if between else evidence, between)]
    if analysis.get("cooperation"):
        title = "how often the row's agent cooperates with the column's"
        parts.append(_heat_map(title, names, analysis["cooperation"], evidence, {}))
    parts.append(_ratings(analysis, names, covers))
    if analysis.get("replicator"):
        times, shares = _array(analysis["replicator"]["times"]), np.array([_array(row) for row in analysis["replicator"]["shares"]])
        nothing = np.full_like(_thin(times), np.nan)
        lines = [
            _Line(name, _style(agents.index(name)), _thin(times), _thin(shares[:, number]), nothing, nothing)
            for number, name in enumerate(names)
        ]
        panel = _panel(lines, _scale([float(time) for time in times], margin=False), _SHARES, "replicator dynamics")
        parts.append(
            "<h3>Replicator dynamics</h3>"
            + _legend(names, agents)
            + '<p class="note">Up: share of the population; across: time in units of 1 / reward. Even shares at first; who earns more than '
            f'the population does, spreads. From the mean rewards above, without intervals.</p><div class="wide">{panel}</div>'
        )
    return "\n".join(part for part in parts if part)


def _heat_map(title: str, names: Sequence[str], matrix: Sequence[Sequence[Any]], evidence: str, between: Mapping[str, Any]) -> str:
    """A table whose cells are coloured by value. between: perhaps low and high [A, A], shown on hovering."""
    values = np.array([_array(row) for row in matrix])
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    digits = _digits(finite)
    body = ""
    for row, name in enumerate(names):
        body += f'<tr><th scope="row">{_name(name)}</th>'
        for column, value in enumerate(values[row]):
            share = (value - low) / (high - low) if high > low and math.isfinite(value) else 0.0
            cell = {"mean": value, **{side: limits[row][column] for side, limits in between.items()}}
            hover = _text(f"{name} with {names[column]}: {_cell_text(cell, digits)}")
            ink = ' class="strong"' if share > 0.65 else ""
            body += f'<td{ink} style="--heat:{share:.0%}" title="{hover}">{_number(value, digits)}</td>'
        body += "</tr>"
    head = "<tr><td></td>" + "".join(f'<th scope="col">{_name(name)}</th>' for name in names) + "</tr>"
    return _table(f"<strong>{_text(title[0].upper() + title[1:])}</strong>. {evidence}", head, body, "heat")


def _ratings(analysis: Mapping[str, Any], names: Sequence[str], evidence: str) -> str:
    """One row per agent, one column of bars per rating."""
    kinds = [
        ("alpha_rank", "shares", "alpha-rank, between the two"),
        ("alpha_rank_whole_population", "shares", "alpha-rank, in the whole population"),
        ("nash_average", "shares", "Nash average"),
        ("elo", "ratings", "Elo"),
    ]
    there = [(analysis[kind], field, title) for kind, field, title in kinds if analysis.get(kind)]
    if not there:
        return ""
    body = ""
    for number, name in enumerate(names):
        body += f'<tr><th scope="row">{_name(name)}</th>'
        for rating, field, _ in there:
            cell = {"mean": rating[field][number], **{side: rating[side][number] for side in ("low", "high") if rating.get(side)}}
            digits = 2 if field == "shares" else 0
            everyone = [value for key in (field, "low", "high") for value in rating.get(key) or []]
            said = f"{name}: {_cell_text(cell, digits)}"
            # Ratings have no zero, so that a bar's length would say nothing.
            mark = _bar(cell, said) if field == "shares" else _dots([(cell, 'class="c0"', said)], _scale(everyone))
            body += f'<td class="dots">{_cell(cell, digits)}{mark}</td>'
        body += "</tr>"
    head = '<tr><th scope="col">agent</th>' + "".join(f'<th scope="col">{title}</th>' for _, _, title in there) + "</tr>"
    note = (
        "Shares sum to 1: how long a population consists of the agent (alpha-rank), how much of it there is in the equilibrium of earning "
        "more than the other (Nash). Elo counts who earned more in a game. In a dilemma to earn more than the other is not to do well."
    )
    return _table(f"<strong>Ratings</strong> [95 % interval]. {note} {evidence}", head, body)


def _panel(lines: Sequence[_Line], across: _Scale, up: _Scale, name: str) -> str:
    """A chart of lines with bands as SVG."""

    def x(value: float) -> int:
        return round(_LEFT + across.share(value) * (_WIDTH - _LEFT - _RIGHT))

    def y(value: float) -> int:
        return round(_TOP + (1 - up.share(value)) * (_HEIGHT - _TOP - _BOTTOM))

    grid = "".join(f'<path class="grid" d="M{_LEFT} {y(tick)}H{_WIDTH - _RIGHT}"/>' for tick in up.ticks)
    grid += "".join(f'<text x="{_LEFT - 10}" y="{y(tick) + 9}" text-anchor="end">{_number(tick, up.digits)}</text>' for tick in up.ticks)
    grid += "".join(
        f'<text x="{x(tick)}" y="{_HEIGHT - 12}" text-anchor="middle">{_number(tick, across.digits)}</text>' for tick in across.ticks
    )
    bands, strokes = "", ""
    for line in lines:
        for part in _stretches(np.isfinite(line.low) & np.isfinite(line.high)):
            upper = [(x(line.x[i]), y(line.high[i])) for i in part]
            lower = [(x(line.x[i]), y(line.low[i])) for i in reversed(part)]
            bands += f'<path {line.style} data-band="" d="{_path([*upper, *lower])}z"/>'
        points = "".join(_path([(x(line.x[i]), y(line.mean[i])) for i in part]) for part in _stretches(np.isfinite(line.mean)))
        if points:
            strokes += f'<path {line.style} d="{points}"><title>{_text(line.name)}</title></path>'
    return f'<svg class="panel" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(name)}">{grid}{bands}{strokes}</svg>'


def _dots(dots: Sequence[tuple[Any, str, str]], scale: _Scale, zero: bool = False) -> str:
    """A row of a plot: (interval, style, what it says) from top to bottom. Widths are shares of the cell's, so that it fits any window."""
    height = 14 * len(dots) + 6
    marks = "".join(f'<line class="grid" x1="{_at(scale, tick)}" x2="{_at(scale, tick)}" y1="0" y2="{height}"/>' for tick in scale.ticks)
    if zero:
        marks += f'<line class="zero" x1="{_at(scale, 0.0)}" x2="{_at(scale, 0.0)}" y1="0" y2="{height}"/>'
    for number, (cell, style, said) in enumerate(dots):
        marks += _dot(cell or {}, style, said, scale, 14 * number + 10)
    return f'<svg class="row" height="{height}" role="img" aria-label="{_text("; ".join(said for _, _, said in dots))}">{marks}</svg>'


def _dot(cell: Mapping[str, Any], style: str, said: str, scale: _Scale, y: int) -> str:
    mean, low, high = (_finite(cell.get(key)) for key in ("mean", "low", "high"))
    if mean is None:
        return ""
    bar = "" if low is None or high is None else f'<line x1="{_at(scale, low)}" x2="{_at(scale, high)}" y1="{y}" y2="{y}"/>'
    return f'<g {style}><title>{_text(said)}</title>{bar}<circle cx="{_at(scale, mean)}" cy="{y}" r="4"/></g>'


def _bar(cell: Mapping[str, Any], said: str) -> str:
    """A share from 0 to 1 as a bar with its interval."""
    mean, low, high = (_finite(cell.get(key)) for key in ("mean", "low", "high"))
    if mean is None:
        return ""
    between = (
        "" if low is None or high is None else f'<line class="whisker" x1="{_at(_SHARES, low)}" x2="{_at(_SHARES, high)}" y1="7" y2="7"/>'
    )
    return (
        f'<svg class="row" height="14" role="img" aria-label="{_text(said)}"><title>{_text(said)}</title>'
        f'<rect class="bar" x="0" y="2" width="{_at(_SHARES, mean)}" height="10"/>{between}</svg>'
    )


def _grid(first: str, rows: Sequence[tuple[str, Mapping[str, Any]]], title: str, results: Mapping[str, Any]) -> str:
    """A table of intervals: a row per (markup of its head, {column: interval})."""
    columns = sorted(_unique(name for _, cells in rows for name in cells), key=lambda name: name.startswith("other_"))
    digits = {name: _digits(_values(cells.get(name) for _, cells in rows)) for name in columns}
    head = "".join(f'<th scope="col">{_said(name)}</th>' for name in (first, *columns))
    body = ""
    for row_head, cells in rows:
        shown = "".join(f"<td>{_cell(cells.get(name), digits[name])}</td>" for name in columns)
        body += f'<tr><th scope="row">{row_head}</th>{shown}</tr>'
    evidence = _evidence([cell for _, cells in rows for cell in cells.values()], results)
    return _table(f"<strong>{_name(title)}</strong>: mean [95 % interval]. {evidence}", f"<tr>{head}</tr>", body)


def _axis_row(scale: _Scale) -> str:
    ticks = "".join(
        f'<text x="{_at(scale, tick)}" y="14" text-anchor="middle">{_number(tick, scale.digits)}</text>' for tick in scale.ticks
    )
    return f'<tr class="axis"><td></td><td><svg class="row" height="18" aria-hidden="true">{ticks}</svg></td></tr>'


def _table(caption: str, head: str, body: str, kind: str = "") -> str:
    inside = f"<caption><span>{caption}</span></caption><thead>{head}</thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{inside}</table></div>'


def _legend(names: Iterable[str], agents: Sequence[str]) -> str:
    return _keys([(name, _style(agents.index(name))) for name in names])


def _keys(keys: Iterable[tuple[str, str]]) -> str:
    swatch = '<svg width="34" height="12" aria-hidden="true"><path {style} d="M2 6H32"/></svg>'
    return '<ul class="legend">' + "".join(f"<li>{swatch.format(style=style)} {_name(name)}</li>" for name, style in keys) + "</ul>"


def _style(number: int) -> str:
    dash = _DASHES[number // _COLOURS % len(_DASHES)]
    return f'class="c{number % _COLOURS}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _evidence(cells: Iterable[Any], results: Mapping[str, Any], intervals: bool = True) -> str:
    """How many trials and seeds a table rests on, and what its intervals cover; from the cells' own numbers where they have any."""
    known = [cell for cell in cells if cell]
    all_trials = _unique(cell["trials"] for cell in known if cell.get("trials")) or [results.get("trials_per_scenario") or None]
    all_seeds = _unique(cell["seeds"] for cell in known if cell.get("seeds")) or [
        results.get("seeds") or len(results.get("runs", [])) or None
    ]
    if None in all_trials or None in all_seeds:
        return "Nobody said how many trials and seeds."
    counted = f"{_counted(all_trials, 'trial')} x {_counted(all_seeds, 'seed')}."
    return f"{counted} Intervals cover {Interval(0.0, 0.0, 0.0, min(all_seeds), min(all_trials)).covers}." if intervals else counted


def _counted(numbers: Sequence[int], what: str) -> str:
    fewest, most = min(numbers), max(numbers)
    return f"{int(fewest)}{f' to {int(most)}' if most > fewest else ''} {what}{'' if most == 1 else 's'}"


def _agents_of(results: Mapping[str, Any]) -> list[str]:
    """Everyone who has a colour, in the order of appearance."""
    rows = [row["agent"] for row in results.get("scenarios", [])]
    return _unique([*rows, *(results.get("cross_play") or {}).get("agents", [])])


def _present(rows: Iterable[Mapping[str, Any]], agents: Sequence[str]) -> list[str]:
    there = {row["agent"] for row in rows}
    return [agent for agent in agents if agent in there]


def _figure_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return _own(_unique(name for row in rows for name in row.get("figures", {})))


def _own(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("other_")]


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _seats(row: Mapping[str, Any]) -> str:
    seats = row.get("seats") or []
    return f"<small>{_text(', '.join(str(seat) for seat in seats))}</small>" if len(seats) > 2 else ""


def _values(cells: Iterable[Any]) -> list[float]:
    """All finite numbers of some intervals."""
    found = (_finite(cell.get(key)) for cell in cells if cell for key in ("mean", "low", "high"))
    return [value for value in found if value is not None]


def _scale(values: Iterable[float], margin: bool = True) -> _Scale:
    """A scale on which all finite values have their place, with two to six round ticks."""
    finite = [float(value) for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    elif margin:
        low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (step / unit == 2.5))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return _Scale(low, high, tuple(step * number for number in range(first, last + 1)), digits)


def _digits(values: Iterable[float]) -> int:
    """So many after the point that the largest of a column has three significant ones."""
    largest = max((abs(value) for value in values), default=0.0)
    return 3 if largest < 1 else max(0, 2 - math.floor(math.log10(largest)))


def _cell(cell: Any, digits: int) -> str:
    mean, _, between = _cell_text(cell, digits).partition(" ")
    return f"{mean} <small>{between}</small>" if between else mean


def _cell_text(cell: Any, digits: int) -> str:
    cell = cell or {}
    mean = _number(cell.get("mean"), digits)
    low, high = _number(cell.get("low"), digits), _number(cell.get("high"), digits)
    return f"{mean} [{low}, {high}]" if _finite(cell.get("low")) is not None and _finite(cell.get("high")) is not None else mean


def _number(value: Any, digits: int) -> str:
    finite = _finite(value)
    if finite is None:
        return "–"  # noqa: RUF001
    # What rounds to nothing has no sign.
    rounded = f"{finite:.{digits}f}"
    return rounded.removeprefix("-") if not float(rounded) else rounded


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _array(values: Iterable[Any] | None) -> Array:
    return np.array([math.nan if value is None else float(value) for value in values or []])


def _steps(values: Array) -> Array:
    return np.arange(1.0, len(values) + 1)


def _thin(values: Array) -> Array:
    """Means of equally long stretches, at most _MOST_POINTS; of what there is in each."""
    stretch = math.ceil(len(values) / _MOST_POINTS)
    if stretch <= 1:
        return values
    return mean_of(np.pad(values, (0, -len(values) % stretch), constant_values=math.nan).reshape(-1, stretch), 1)


def _stretches(there: Array) -> list[list[int]]:
    """The positions that are there, gap by gap."""
    positions = np.flatnonzero(there)
    parts = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
    return [part.tolist() for part in parts if len(part)]


def _path(points: Sequence[tuple[int, int]]) -> str:
    """SVG's steps from point to point; a lone point becomes a dot."""
    (x, y), steps = points[0], [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(points)]
    return f"M{x} {y}l" + " ".join(f"{dx} {dy}" for dx, dy in steps or [(0, 0)])


def _at(scale: _Scale, value: float) -> str:
    return f"{100 * scale.share(value):.1f}%"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _said(name: str) -> str:
    return _text(_plain(name))


def _name(value: Any) -> str:
    """A name as markup that may be broken after its underscores and, if need be, anywhere."""
    return f'<span class="name">{_text(value).replace("_", "_<wbr>")}</span>'


def _text(value: Any) -> str:
    return html.escape(str(value))


_LIGHT = """
--page:#fff;--ink:#1b1b1b;--soft:#5f6368;--rule:#d9dce0;--heat-ink:#fff;--heat-colour:#083a6f;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b5568a;--c4:#b97900;--c5:#3d9bd1;--c6:#7a4b22;--c7:#5a5a5a;"""
_DARK = """
--page:#15171a;--ink:#e8e8e8;--soft:#a3a8ae;--rule:#3a3e44;--heat-ink:#0b0c0e;--heat-colour:#70a9c9;
--c0:#5cb3ee;--c1:#ff8f52;--c2:#35c79b;--c3:#e59cc6;--c4:#f0b83c;--c5:#a9dbff;--c6:#cfa67e;--c7:#bdbdbd;"""

_STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:78rem;padding:1rem clamp(.75rem,3vw,2rem) 4rem;background:var(--page);color:var(--ink);
 font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;padding-top:.5rem;border-top:2px solid var(--rule)}
h3{font-size:1.05rem;margin:1.5rem 0 .25rem}
a{color:var(--c0)}
dl{display:grid;grid-template-columns:minmax(5rem,max-content) 1fr;gap:.15rem 1rem;margin:0}
dt{color:var(--soft);max-width:14rem}
dd{margin:0}
nav ul,.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;padding:0;margin:1rem 0 .5rem}
.legend svg{vertical-align:middle}
.note,caption,small{color:var(--soft);font-size:.85rem}
caption strong{color:var(--ink)}
.scroll{container-type:inline-size;overflow-x:auto;margin:1rem 0 1.75rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums lining-nums}
caption{text-align:left;padding-bottom:.4rem}
caption>span{display:block;position:sticky;left:0;max-width:min(60rem,100cqw)}
.name{display:inline-block;max-width:14rem;white-space:normal;overflow-wrap:break-word;vertical-align:top}
dd .name,figcaption .name,.legend .name,caption .name{display:inline;overflow-wrap:anywhere}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap;vertical-align:top}
thead th{font-weight:600;font-size:.85rem;vertical-align:bottom;white-space:normal;overflow-wrap:normal}
th[scope=row],thead th:first-child{text-align:left;white-space:normal;font-weight:500;
 position:sticky;left:0;background:var(--page)}
th small{display:block;font-weight:400}
.left{text-align:left}
td.dots{min-width:9rem}
table.plot{width:100%;table-layout:fixed}
table.plot th:first-child,table.plot td:first-child{width:32%}
table.plot th{vertical-align:middle}
table.plot .name{max-width:100%;overflow-wrap:anywhere}
table.plot td{padding:0 .5rem}
table.plot th[scope=col]:last-child{text-align:center}
table.plot .axis td{border:0}
table.heat td[style]{text-align:center;min-width:4rem;vertical-align:middle;
 background:color-mix(in srgb,var(--heat-colour) var(--heat),var(--page))}
table.heat td.strong{color:var(--heat-ink)}
table.heat thead th{text-align:center}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:1rem}
figure{margin:0;min-width:0;break-inside:avoid}
figcaption{font-size:.9rem}
.wide{max-width:30rem}
svg{overflow:visible}
svg.panel{display:block;width:100%;height:auto}
svg.row{display:block;width:100%}
svg text{fill:var(--soft);font-size:26px;font-variant-numeric:tabular-nums}
svg.row text{font-size:12px}
svg path,svg g line{fill:none;stroke-width:4;stroke-linecap:round;stroke-linejoin:round}
svg g line{stroke-width:2.5}
.legend path{stroke-width:3}
path[data-band]{opacity:.2;stroke-width:1;stroke-dasharray:none}
svg path.grid,svg line.grid{stroke:var(--rule);stroke-width:1}
line.zero{stroke:var(--ink);stroke-width:1.5}
line.whisker{stroke:var(--ink);stroke-width:1.5}
.bar{fill:var(--c0);opacity:.55}
.chance{stroke:var(--soft)}
"""
    + "\n".join(f".c{n}{{stroke:var(--c{n})}}.c{n} circle,path.c{n}[data-band]{{fill:var(--c{n})}}" for n in range(_COLOURS))
    + """
@media (max-width:40rem){body{font-size:15px}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}th,td{padding:.25rem .4rem}
 .name{max-width:7rem}}
@media print{html{font-size:11px}body{max-width:none;padding:0;font-size:1rem}nav{display:none}h2,h3,.legend,.note{break-after:avoid}
 .scroll{overflow:visible}tr,figure{break-inside:avoid}
 .panels{grid-template-columns:repeat(3,1fr)}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
)
