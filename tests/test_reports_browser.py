"""Reports in headless Chromium without a network: they render, what can be operated responds, nothing is amiss."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import make_archive, make_other, make_swarm, make_sweep

import jaxrl
from jaxrl.results import Results

pytestmark = pytest.mark.thorough
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next((path for name in NAMES if (path := shutil.which(name))), None)
BODY = {
    "num_envs": 4, "num_steps": 8, "num_minibatches": 1, "num_epochs": 1, "hidden_sizes": (4,), "total_steps": 128,
}  # fmt: skip
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if EXECUTABLE is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # As root in a container Chromium has no sandbox to offer; the pages are our own.
        running = play.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of a sweep beside another run, of an archive, of a swarm and of a body."""
    folder = tmp_path_factory.mktemp("reports")
    sweep = [make_sweep(folder / "sweep"), make_other(folder / "other")]
    jaxrl.run("ppo", "brax/inverted_pendulum", settings=BODY, out=folder / "body", progress=False)
    return {
        "sweep": jaxrl.report(sweep, folder / "sweep.html"),
        "archive": jaxrl.report(make_archive(folder / "archive"), replays=6),
        "swarm": jaxrl.report(make_swarm(folder / "swarm")),
        "body": jaxrl.report(folder / "body", max_steps=30),
    }


@pytest.fixture
def show(browser: Any, reports: dict[str, Path]) -> Iterator[Open]:
    """Opens a page; at the end nothing may have been asked of a network, and nothing complained of."""
    complaints: list[str] = []
    contexts = []

    def show(name: str, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
        page.goto(reports[name].as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []


def data(page: Any, name: str = "run-0-data") -> Any:
    return json.loads(page.locator(f"script#{name}").text_content())


def picture(page: Any, where: str = "#run-0 .player canvas") -> str:
    """The pixels of a canvas, once it has drawn."""
    page.wait_for_timeout(80)
    return page.locator(where).first.evaluate("canvas => canvas.toDataURL()")


@pytest.mark.parametrize("name", ["sweep", "archive", "swarm", "body"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_renders(show: Open, reports: dict[str, Path], name: str, width: int, scheme: str) -> None:
    """On a screen and on a telephone, light and dark: lines and replays are there, and nothing sticks out."""
    page = show(name, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for curve in page.locator('[data-part="curves"] svg').all():
        assert curve.locator("path[fill='none']").count() >= 1
        assert curve.bounding_box()["height"] > 200
    canvas = page.locator("#run-0 .player canvas")
    assert canvas.bounding_box()["width"] > 250
    assert len(picture(page)) > 1000
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 600) == (scheme == "light")
    page.screenshot(path=reports[name].with_name(f"{name}_{width}.png"), full_page=True)


def test_the_player(show: Open) -> None:
    """Frame by frame, by the slider, and by itself to the end, where it stops."""
    page = show("sweep")
    film = data(page, "run-0-film-0")
    run = page.locator("#run-0")
    said, slider = run.locator('[data-part="time"]'), run.get_by_label("Frame", exact=True)
    last = len(film["steps"]) - 1
    assert f"step {film['steps'][0] + 1} of {film['length']}" in said.text_content()
    first = picture(page)
    run.get_by_label("Frame on").click()
    assert f"step {film['steps'][1] + 1} of" in said.text_content()
    assert picture(page) != first
    run.get_by_label("Frame back").click()
    assert picture(page) == first
    slider.fill(str(last))
    assert said.text_content() == f"step {film['length']} of {film['length']}, return {film['returns'][-1]:g}"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.input_value() == str(last - 1)
    run.get_by_label("Speed").select_option("4")
    slider.fill("0")
    run.get_by_role("button", name="Play").click()
    page.wait_for_function("last => document.querySelector('#run-0 input[type=range]').value == last", arg=str(last))
    run.get_by_role("button", name="Play").wait_for()  # it was "Pause" in between


def test_choosing_a_setting_changes_all_that_shows_it(show: Open, reports: dict[str, Path]) -> None:
    """By the heat map, by the table, by the menu and by the legend; what has no replay says so."""
    page = show("sweep")
    run = page.locator("#run-0")
    told = data(page)
    recorded = {replay["setting"] for replay in told["replays"]}
    caption, note = run.locator('[data-part="caption"]'), run.locator('[data-part="note"]')
    chosen = run.locator("tr.chosen")
    best = told["settings"][0]["cell"]
    assert chosen.get_attribute("data-setting") == str(best)

    def thick() -> str:
        return run.locator('[data-part="curves"] path[stroke-width="3"]').get_attribute("d")

    before = thick()
    fields = {int(b.get_attribute("data-setting")): b for b in run.locator(".heat button").all()}
    other = next(cell for cell in fields if cell != best)
    fields[other].click()
    assert chosen.get_attribute("data-setting") == str(other)
    assert run.locator(".heat button[aria-pressed=true]").get_attribute("data-setting") == str(other)
    assert run.locator("[data-choice=Setting]").input_value() == str(other)
    assert thick() != before
    shown = next(replay for replay in told["replays"] if replay["setting"] != best)
    run.locator(f'tr[data-setting="{shown["setting"]}"] button').focus()
    page.keyboard.press("Enter")
    assert f"seed {shown['seed']}, return {shown['return']:.1f}" in caption.text_content()
    assert note.text_content() == ""
    assert run.locator(".chips button[aria-pressed=true]").count() == 1
    without = next(row["cell"] for row in told["settings"] if row["cell"] not in recorded)
    run.locator("[data-choice=Setting]").select_option(str(without))
    assert "No replay of this setting" in note.text_content()
    run.locator(".legend button").first.click()
    assert chosen.get_attribute("data-setting") == str(best)
    assert thick() == before
    # Another seed of the best setting: the other replay, whose seed is drawn by itself.
    seed = next(r["seed"] for r in told["replays"][1:] if r["setting"] == best)
    run.locator("[data-choice=Seed]").select_option(str(seed))
    assert f"seed {seed}," in caption.text_content()
    assert f"seed {seed}" in run.locator(".legend").text_content()
    results = Results.load(reports["sweep"].with_suffix(""))
    assert results.label(best) in run.locator(".legend button[aria-pressed=true]").text_content()


def test_charts_tell_their_numbers(show: Open) -> None:
    """Under the pointer, and by arrow keys; another metric is another chart."""
    from playwright.sync_api import expect  # which waits: browsers tell of pointers frame by frame

    page = show("sweep")
    run = page.locator("#run-0")
    chart, tip = run.locator('[data-part="curves"] svg'), run.locator('[data-part="curves"] .tip')
    curve = data(page)["curves"][0]
    chart.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert tip.is_visible()
    assert f"environment steps {curve['steps'][2]}" in tip.text_content()
    value = curve["cells"][0]["point"][2]
    assert f"{value:.4g}" in tip.text_content()
    chart.hover(position={"x": chart.bounding_box()["width"] - 20, "y": 100})
    expect(tip).to_contain_text(f"environment steps {curve['steps'][-1]}")
    run.locator("h3").first.hover()
    expect(tip).to_be_hidden()
    before = chart.get_attribute("aria-label")
    run.get_by_label("Metric").select_option("1")
    assert chart.get_attribute("aria-label") != before
    compared = page.locator('[data-comparison="0"] svg')
    assert compared.locator("path[fill='none']").count() == 2
    assert run.locator('[data-part="sensitivity"] circle').count() == 6  # 3 settings of 2 values


def test_cells_of_an_archive_are_chosen(show: Open) -> None:
    """By pointer, by keys, by name; a cell without a replay leaves the player alone and says so."""
    page = show("archive")
    told = data(page)
    shown = told["archives"][0]
    run, canvas = page.locator("#run-0"), page.locator("#run-0 .map canvas")
    caption, said = run.locator('[data-part="caption"]'), run.locator('[data-part="archive"] .said')
    runs = np.array(shown["maps"][0]["runs"]).reshape(-1, 2)
    cells = np.repeat(runs[:, 0], runs[:, 1]).reshape(shown["pixels"], -1)

    def click(place: int) -> None:
        row, column = (float(axis.mean()) + 0.5 for axis in np.nonzero(cells == place))
        box = canvas.bounding_box()
        x, y = column / shown["pixels"] * box["width"], (1 - row / shown["pixels"]) * box["height"]
        canvas.click(position={"x": x, "y": y})

    before = picture(page)
    for replay in told["replays"][1:]:
        click(replay["place"])
        assert f"in cell {replay['place']}" in caption.text_content()
        value = shown["fitness"][shown["places"].index(replay["place"])]
        assert f"cell {replay['place']}: fitness" in said.text_content()
        assert f"{value:.4g}" in said.text_content()
        assert run.get_by_label("Recorded cells").locator("option:checked").text_content().startswith(
            f"cell {replay['place']}:"
        )  # fmt: skip
    page.wait_for_timeout(300)
    assert picture(page) != before  # it plays
    recorded = {replay["place"] for replay in told["replays"]}
    kept = caption.text_content()
    click(next(place for place in shown["places"] if place not in recorded))
    assert "no replay was recorded" in said.text_content()
    assert "was recorded; the one above stays" in run.locator('[data-part="note"]').text_content()
    assert caption.text_content() == kept
    run.get_by_label("Recorded cells").select_option("0")
    first = told["replays"][0]["place"]
    assert f"in cell {first}" in caption.text_content()
    canvas.focus()
    for key in ("ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert said.text_content() != ""
    # The other seed has a map of its own, and no replays.
    run.locator("[data-choice=Seed]").select_option(str(told["archives"][1]["seed"]))
    summary = run.locator('[data-part="summary"]').text_content()
    assert f"seed {told['archives'][1]['seed']}: {len(told['archives'][1]['places'])} of 1600 cells" in summary
    assert "No replays of this seed" in summary


def test_a_body_is_looked_at_from_all_sides(show: Open) -> None:
    page = show("body")
    run, canvas = page.locator("#run-0"), page.locator("#run-0 .player canvas")
    assert data(page, "run-0-film-0")["kind"] == "body"
    start = picture(page)
    canvas.hover(position={"x": 100, "y": 100})
    box = canvas.bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 160, steps=4)
    page.mouse.up()
    turned = picture(page)
    assert turned != start
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    assert picture(page) not in (start, turned)
    canvas.dblclick()
    assert picture(page) == start
    run.get_by_label("Frame", exact=True).fill(str(len(data(page, "run-0-film-0")["steps"]) - 1))
    assert picture(page) != start


def test_a_swarm_is_filmed(show: Open) -> None:
    page = show("swarm")
    film = data(page, "run-0-film-0")
    assert (film["width"], film["height"], film["length"]) == (300, 300, 6)
    first = picture(page)
    page.locator("#run-0").get_by_label("Frame", exact=True).fill("5")
    assert picture(page) != first


def test_the_theme_is_chosen(show: Open) -> None:
    page = show("swarm", color_scheme="light")
    colours = []
    for _ in range(3):
        page.locator("#theme").click()
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark, automatic = colours
    assert light == automatic != dark
