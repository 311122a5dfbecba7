"""Replays of a report: which policies are shown, and their episodes as sheets of frames or as bodies in space."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl.plotting import ranking
from jaxrl.rendering.bodies import Body, find_body
from jaxrl.rendering.replay import film, timing
from jaxrl.reports.numbers import shorten
from jaxrl.results import Results
from jaxrl.trained import Replay, Run

if TYPE_CHECKING:
    from PIL import Image

_BUDGET, _MOST_BYTES = 6_000_000, 700_000  # of all replays of a page, of one of them
_MOST_FRAMES, _FRAMES_OF_MANY, _MANY = 240, 60, 12
_LEAST_FRAMES = 8
_COLUMNS, _ROWS = 10, 5  # of a sheet; side by side, since PNG looks back by no more than a few lines


class Recorder:
    """Makes replays of about one size, so that all of a page fit.

    Args:
      max_steps: longest episode.
      num: of replays on the page.
    """

    def __init__(self, max_steps: int, num: int) -> None:
        self.max_steps = max_steps
        self.max_frames = _MOST_FRAMES if num <= _MANY else _FRAMES_OF_MANY
        self.max_bytes = min(_MOST_BYTES, _BUDGET // max(num, 1))

    def record(self, run: Run, cell: int, seed: int, descriptor: Any = None) -> dict[str, Any]:
        """One policy's episode: who it is, and as `film` what the page's player shows."""
        replay = run.record(cell, seed, max_steps=self.max_steps, descriptor=descriptor)
        rewards = np.cumsum(replay.trajectory.reward, dtype=np.float64)
        about = {"setting": cell, "seed": seed, "caption": replay.caption, "return": shorten(rewards[-1])}
        shown = self._body(run, replay) or self._frames(run, replay)
        shown |= {"returns": shorten(rewards[shown["steps"]]), "length": replay.trajectory.length}
        return about | {"film": shown}

    def _body(self, run: Run, replay: Replay) -> dict[str, Any] | None:
        states = replay.trajectory.states
        while hasattr(states, "env_state"):  # a time limit's
            states = states.env_state
        body = find_body(run.env, states)
        if body is None:
            return None
        steps, milliseconds = timing(replay.trajectory.length, self.max_frames, body.fps)
        return {"kind": "body", "steps": steps, "milliseconds": milliseconds, **_body_data(body, steps)}

    def _frames(self, run: Run, replay: Replay) -> dict[str, Any]:
        made = film(
            run.plan.env, run.env, replay.env_params, replay.trajectory, caption=None, max_frames=self.max_frames
        )
        frames, steps, milliseconds = made
        # How much all would take is seen from a few that follow one another.
        few = frames[: 2 * _COLUMNS]
        size = len(_sheets(few)[0]) * len(frames) / len(few)
        stride = min(math.ceil(size / self.max_bytes), math.ceil(len(frames) / _LEAST_FRAMES))
        frames, steps, milliseconds = frames[::-stride][::-1], steps[::-stride][::-1], milliseconds * stride
        return {
            "kind": "frames",
            "steps": steps,
            "milliseconds": milliseconds,
            "width": frames[0].width,
            "height": frames[0].height,
            "columns": _COLUMNS,
            "per_sheet": _COLUMNS * _ROWS,
            "sheets": [base64.b64encode(sheet).decode() for sheet in _sheets(frames)],
        }


def _sheets(frames: list[Image.Image]) -> list[bytes]:
    """Frames of one palette, many in one PNG: what does not change from one to the next costs next to nothing."""
    from PIL import Image

    width, height = frames[0].size
    sheets = []
    for start in range(0, len(frames), _COLUMNS * _ROWS):
        part = frames[start : start + _COLUMNS * _ROWS]
        sheet = Image.new("P", (width * min(_COLUMNS, len(part)), height * math.ceil(len(part) / _COLUMNS)))
        sheet.putpalette(frames[0].getpalette() or [])
        for i, frame in enumerate(part):
            sheet.paste(frame, (i % _COLUMNS * width, i // _COLUMNS * height))
        file = io.BytesIO()
        sheet.save(file, "PNG")
        sheets.append(file.getvalue())
    return sheets


def _body_data(body: Body, steps: list[int]) -> dict[str, Any]:
    """Geometries as lines with a radius: `ends` [frames, geometries, 2, 3] and `focus` [frames, 3] as float32."""
    segments, near = body.segments, body.view.near
    return {
        "ends": _packed(segments.ends[steps]),
        "focus": _packed(body.focus[steps]),
        "radius": shorten(segments.radius),
        "moves": (segments.link >= 0).tolist(),
        "colours": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in segments.colour],
        "level": body.level,
        # Where the camera stands, in degrees: around the vertical, and above the ground.
        "azimuth": round(math.degrees(math.atan2(near[1], near[0])), 1) if abs(near[2]) < 0.99 else -90.0,
        "elevation": round(math.degrees(math.asin(float(np.clip(near[2], -1, 1)))), 1),
    }


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def choose(results: Results, metric: str, num: int) -> list[tuple[int, int]]:
    """Whose policies are shown, as (setting, seed): first the best setting's seeds, from its best to its worst.

    Of a sweep half of them are of the best setting, and the others of settings evenly down to the worst, of each the
    seed in the middle.
    """
    order, final = ranking(results.iqm(metric)), results.final(metric)
    of_best = num if len(order) == 1 else (num + 1) // 2
    chosen = [(order[0], seed) for seed in _spread(_seeds_ranked(final[order[0]]), of_best)]
    for cell in _spread(order[1:][::-1], num - len(chosen))[::-1]:
        ranked = _seeds_ranked(final[cell])
        chosen.append((cell, ranked[len(ranked) // 2]))
    return [(cell, int(results.seeds[seed])) for cell, seed in chosen]


def _seeds_ranked(final: np.ndarray) -> list[int]:
    return np.argsort(-np.nan_to_num(final, nan=-np.inf), kind="stable").tolist()


def _spread(items: list[int], num: int) -> list[int]:
    """At most `num` of them, evenly, the first always among them."""
    if num <= 0 or not items:
        return []
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(num, len(items))).round().astype(int))]


def policies(run: Run, metric: str, num: int, recorder: Recorder) -> list[dict[str, Any]]:
    """Replays of a run's final policies."""
    return [recorder.record(run, cell, seed) for cell, seed in choose(run.results, metric, num)]
