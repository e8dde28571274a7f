"""The report stands alone, shows names as text whatever they are, and says what its numbers rest on."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from training.evaluation.report import html_of, write_report

VOID = {"meta", "br", "wbr"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


class Page(HTMLParser):
    """Elements and text of a page; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(tag == name and attributes.items() <= found.items() for name, found in self.elements)

    @property
    def text(self) -> str:
        return "".join(self.words)


def interval(mean: float | None, low: float | None = None, high: float | None = None, seeds: int = 3) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "seeds": seeds, "trials": 256}


def scenario(agent: str, name: str, steps: int = 5, seeds: int = 3) -> dict[str, Any]:
    curve = {"mean": [0.5] * steps, "low": [0.25] * steps, "high": [0.75] * steps}
    figures = {"reward": interval(2.5, 2.25, 2.75, seeds), "cooperation": interval(None, seeds=seeds), "other_reward": interval(1, 0, 2)}
    return {
        "agent": agent,
        "scenario": name,
        "seats": [agent, name],
        "figures": figures,
        "curves": {"reward": curve, "cooperation": {key: [None] * steps for key in curve}, "other_reward": curve},
    }


def cross_play(names: list[str]) -> dict[str, Any]:
    count = len(names)
    even = [1 / count] * count
    matrix = [[1.0 * row - column for column in range(count)] for row in range(count)]
    share = {"shares": even, "low": [0.0] * count, "high": [1.0] * count}
    return {
        "agents": names,
        "trials": 64,
        "payoff": matrix,
        "payoff_interval": {"low": matrix, "high": matrix},
        "replicator": {"times": [0.0, 1.0, 2.0], "shares": [even, even, even]},
        "alpha_rank": {**share, "alpha": 100.0, "settled": True},
        "alpha_rank_whole_population": {**share, "alpha": 100.0, "settled": True},
        "nash_average": {**share, "advantage": [0.0] * count},
        "elo": {"ratings": [1500.0] * count, "low": [1400.0] * count, "high": [1600.0] * count},
        "cooperation": [[None] * count for _ in names],
    }


def everything(agents: list[str], scenarios: list[str], steps: int = 5, seeds: int = 3) -> dict[str, Any]:
    """Results with every key."""
    return {
        "suite": "ipd_classics",
        "version": 1,
        "runs": [f"quick-{seed}" for seed in range(seeds)],
        "trials_per_scenario": 256,
        "seeds": seeds,
        "contenders": [{"name": agent, "runs": [f"{agent}-0"]} for agent in agents],
        "scenarios": [scenario(agent, name, steps, seeds) for agent in agents for name in scenarios],
        "comparisons": [
            {
                "scenario": name,
                "figure": "reward",
                "a": agents[0],
                "b": agents[-1],
                "difference": interval(-0.125, -0.25, 0.0, seeds),
                "probability_of_improvement": interval(0.25, 0.125, 0.5, seeds),
            }
            for name in scenarios
        ],
        "inference": [
            {"agent": agent, "kinds": scenarios, "rounds": [1, 2], "accuracy": [0.5, 0.9], "control": [0.5, None], "chance": 0.5}
            for agent in agents
        ],
        "exploitability": [{"agent": agent, "iterations": 9, "exploiter_reward": interval(3.5, 3.25, 3.75, seeds)} for agent in agents],
        "cross_play": cross_play([*agents, "tit_for_tat"]),
    }


def test_every_section_is_there_and_listed_in_the_contents() -> None:
    page = Page(html_of(everything(["gru", "lstm"], ["tit_for_tat", "random"])))
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["figures", "side-by-side", "comparisons", "curves", "inference", "exploitability", "cross-play"]
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == [f"#{name}" for name in sections]


def test_figures_show_mean_and_interval_and_a_dash_where_nothing_is() -> None:
    page = Page(html_of({"scenarios": [scenario("gru", "random")]}))
    row = re.search(r"random(.*?)\n", page.text.replace("gru: mean", "\n"))
    assert row
    assert row[1].startswith("2.50 [2.25, 2.75]–1.00 [0.00, 2.00]")  # noqa: RUF001


def test_a_small_figure_keeps_three_digits_and_a_large_one_loses_its_fraction() -> None:
    row = {
        "agent": "gru",
        "scenario": "one",
        "figures": {"share": interval(0.12345), "points": interval(1234.5), "none": interval(-0.0001)},
    }
    text = Page(html_of({"scenarios": [row]})).text
    assert "0.123" in text
    assert "0.1234" not in text
    assert "1234" in text
    assert "1234.5" not in text
    assert "-0.000" not in text


def test_every_table_has_a_caption_and_says_how_many_trials_and_seeds() -> None:
    page = html_of(everything(["gru", "lstm"], ["random"]))
    captions = re.findall(r"<caption>(.*?)</caption>", page)
    assert len(captions) == page.count("<table") == 9
    assert all("256 trials x 3 seeds. Intervals cover luck of trials and of seeds." in caption for caption in captions[:6])
    assert all("64 trials for each pair." in caption for caption in captions[6:])


def test_one_seed_is_said_to_tell_nothing_about_others() -> None:
    page = html_of({"scenarios": [scenario("gru", "random", seeds=1)], "seeds": 1, "trials_per_scenario": 256})
    assert "256 trials x 1 seed. Intervals cover luck of the trials only: nothing is known about other seeds." in page
    assert (
        "luck of trials and of seeds"
        not in html_of({"cross_play": cross_play(["a", "b"]), "scenarios": [], "seeds": 3, "trials_per_scenario": 9}).split(
            '<section id="cross-play">'
        )[1]
    )


def test_names_are_shown_as_text_and_never_as_markup() -> None:
    results = everything([HOSTILE, "gru"], [HOSTILE, "__init__"])
    results["scenarios"][0]["figures"][HOSTILE] = results["scenarios"][0]["figures"]["reward"]
    results["scenarios"][0]["curves"][HOSTILE] = results["scenarios"][0]["curves"]["reward"]
    results |= {"suite": HOSTILE, "version": HOSTILE, "runs": [HOSTILE]}
    results["scenarios"][0]["seats"] = [HOSTILE] * 3
    for row in results["comparisons"]:
        row["figure"] = HOSTILE
    page = Page(html_of(results))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(HOSTILE) > 20
    assert "__init__" in page.text
    assert "&lt;" not in page.text
    # Apart from text, names stand only where hovering and screen readers look for them, and are whole there.
    carriers = [(name, value) for _, attributes in page.elements for name, value in attributes.items() if value and "alert" in value]
    assert {name for name, _ in carriers} == {"aria-label", "title"}
    assert all(HOSTILE in value for _, value in carriers)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = html_of(everything(["gru"], ["random"]))
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<iframe|src=", page)
    assert "default-src 'none'" in page
    assert all(attributes["href"].startswith("#") for tag, attributes in Page(page).elements if "href" in attributes)  # type: ignore[union-attr]


def test_results_without_anything_are_a_page() -> None:
    page = Page(html_of({}))
    assert page.count("section") == 0
    assert "no suite" in page.text
    assert "Nobody said how many trials and seeds." in page.text


@pytest.mark.parametrize("key", ["scenarios", "comparisons", "inference", "exploitability", "cross_play", "contenders", "runs", "seeds"])
def test_a_missing_part_has_no_section_and_harms_no_other(key: str) -> None:
    whole = everything(["gru"], ["random"])
    sections = Page(html_of(whole)).count("section")
    lost = {"scenarios": 3, "comparisons": 1, "inference": 1, "exploitability": 1, "cross_play": 1}.get(key, 0)
    assert Page(html_of({name: value for name, value in whole.items() if name != key})).count("section") == sections - lost


def test_an_analysis_may_lack_all_but_its_payoffs() -> None:
    page = Page(html_of({"cross_play": {"agents": ["a", "b"], "payoff": [[1.0, None], [0.25, 0.5]]}}))
    assert page.count("section", id="cross-play") == 1
    assert "1.00–" in page.text  # noqa: RUF001
    assert page.count("td", title="a with b: –") == 1  # noqa: RUF001
    assert page.count("td", style="--heat:100%") == page.count("td", style="--heat:33%") == 1


def test_a_cell_of_the_heat_map_says_who_met_whom_and_its_interval() -> None:
    page = Page(html_of({"cross_play": cross_play(["gru", "lstm", "tit_for_tat"])}))
    assert page.count("td", title="lstm with tit_for_tat: -1.00 [-1.00, -1.00]") == 1


def test_curves_are_one_panel_per_scenario_and_figure_and_leave_the_others_out() -> None:
    page = Page(html_of({"scenarios": [scenario(agent, name) for name in ("one", "two") for agent in ("gru", "lstm")]}))
    assert page.count("svg", role="img", **{"class": "panel"}) == 4
    assert page.count("svg", **{"aria-label": "reward, two"}) == 1
    # One band for each agent in the two panels of rewards; cooperation is null throughout.
    assert page.count("path", **{"data-band": ""}) == 4


def test_a_gap_breaks_a_line_and_a_lone_step_is_a_dot() -> None:
    row = scenario("gru", "random", steps=1)
    row["curves"]["reward"] = {"mean": [0.0, None, 1.0, 1.0], "low": [None] * 4, "high": [None] * 4}
    lines = [attributes["d"] for tag, attributes in Page(html_of({"scenarios": [row]})).elements if tag == "path" and "d" in attributes]
    # Steps 1 to 4 lie at 92, 265, 439 and 612; 0 and 1 at 4 and 96 % of the height from 14 to 294.
    assert "M92 284l0 0M439 24l173 0" in lines


@pytest.mark.parametrize("steps", [1, 119, 1000])
def test_long_curves_are_thinned_and_say_so(steps: int) -> None:
    page = html_of({"scenarios": [scenario("gru", "random", steps)]})
    Page(page)
    assert ("Each point is the mean of 9 steps." in page) == (steps == 1000)
    assert len(page) < 20_000


def test_one_value_for_all_still_has_a_scale() -> None:
    row = {"agent": "gru", "scenario": "flat", "figures": {"reward": interval(3.0, 3.0, 3.0)}}
    page = Page(html_of({"scenarios": [row]}))
    assert page.count("circle", cx="50.0%") == 1


def test_more_agents_than_colours_are_told_apart_by_dashes() -> None:
    names = [f"agent {number}" for number in range(20)]
    keys = re.findall(r'<svg width="34".*?<path (.*?) d=', html_of({"scenarios": [scenario(name, "random") for name in names]}))
    assert len(set(keys)) == 20


def test_forty_scenarios_of_very_long_names_stay_small_and_well_formed() -> None:
    names = [f"{'long_name_' * 20}{number}" for number in range(40)]
    page = html_of(everything(["gru", "x" * 300], names, steps=100))
    assert Page(page).text.count(names[7]) > 5
    assert len(page) < 1_500_000


def test_twenty_scenarios_of_five_agents_stay_below_a_megabyte() -> None:
    page = html_of(everything([f"agent_{number}" for number in range(5)], [f"scenario_{number}" for number in range(20)], steps=100))
    assert len(page.encode()) < 1_000_000


def test_what_is_no_number_is_refused() -> None:
    row = {"agent": "gru", "scenario": "one", "figures": {"reward": interval("<b>1</b>")}}  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        html_of({"scenarios": [row]})


def test_a_report_is_written_whole_even_with_half_a_surrogate_in_a_name(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report({"suite": "ä\ud800"}, path)
    assert "ä&#55296;" in path.read_text("utf-8")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
