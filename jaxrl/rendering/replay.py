"""From a recorded trajectory to a file: frames with a header and a caption, as a GIF or an HTML page with a player."""

from __future__ import annotations

import base64
import html
import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxrl.files import atomic_write
from jaxrl.rendering.boards import board_scene
from jaxrl.rendering.bodies import body_scene, find_poses
from jaxrl.rendering.canvas import INK, MUTED, RULE, WIDTH, Canvas, Scene, find_attribute
from jaxrl.rendering.charts import chart_scene
from jaxrl.rendering.control import model_scene

if TYPE_CHECKING:
    from PIL import Image

_HEADER, _FOOTER = 26, 24
_LAST_FRAME_MS = 1500
_MOST_COLOURS = 6000  # of a drawing, edges included


class Trajectory(NamedTuple):
    """One recorded episode, NumPy, leaves [T, …].

    Attributes:
      states: the environment's states before each step (a gymnax state, a Brax state; time limits may wrap them).
      obs: before each step.
      action, reward: of each step.
      length: steps that belong to the episode; those after it are ignored.
    """

    states: Any
    obs: Any
    action: np.ndarray
    reward: np.ndarray
    length: int


def render(  # noqa: PLR0913 - the last three have defaults and names
    env_name: str,
    env: Any,
    env_params: Any,
    trajectory: Trajectory,
    path: str | Path,
    *,
    caption: str = "",
    max_frames: int = 500,
    fps: float | None = None,
) -> Path:
    """Writes a replay of an episode.

    Classic control, mazes, MinAtar and other image-like observations and Brax bodies are drawn as such; any other
    environment as charts of its observations and rewards.

    Args:
      env_name: as in `make_env`; chooses the picture.
      env, env_params: what was recorded.
      trajectory: the episode.
      path: ends in ".gif", or in ".html" for a page with play button and slider that needs no network. For Brax the
        page also holds Brax's own three-dimensional viewer, whose code is fetched from the web; without a network
        it is hidden.
      caption: one line below every frame.
      max_frames: longer episodes are thinned evenly and keep their speed.
      fps: steps per second; by default the environment's own.
    Returns:
      `path`.
    Raises:
      ValueError: if the suffix is neither of the two, or there is nothing to draw.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".gif", ".html"):
        raise ValueError(f"a replay is a .gif or an .html file, got {path.name!r}; rename it to {path.stem}.gif")
    if not 1 <= trajectory.length <= len(trajectory.reward):
        raise ValueError(
            f"trajectory.length = {trajectory.length}, expected 1 to {len(trajectory.reward)}, the steps recorded"
        )
    if max_frames < 1 or (fps is not None and not fps > 0):
        raise ValueError(f"expected max_frames >= 1 and fps > 0, got max_frames = {max_frames}, fps = {fps}")
    trajectory = _cut(trajectory)
    scene = _find_scene(env_name, env, env_params, trajectory)
    stride = math.ceil(trajectory.length / max_frames)
    # The last step is always shown, so that the return of the last frame is that of the episode.
    steps = list(range(trajectory.length - 1, -1, -stride))[::-1]
    milliseconds = _duration(stride, fps or scene.fps)
    frames = _quantized([_frame(scene, env_name, trajectory, caption, t) for t in steps])
    with atomic_write(path) as file:
        if suffix == ".gif":
            file.write(_gif(frames, milliseconds))
        else:
            title = f"{env_name} {caption}".strip()
            body = _player(frames, milliseconds, title)
            viewer = _brax_page(env, trajectory, steps)
            file.write((_page(body, title) if viewer is None else _join(viewer, body)).encode())
    return path


def _cut(trajectory: Trajectory) -> Trajectory:
    def cut(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)[: trajectory.length]

    parts = jax.tree.map(cut, tuple(trajectory[:4]))
    return Trajectory(*parts, length=trajectory.length)


def _find_scene(env_name: str, env: Any, env_params: Any, trajectory: Trajectory) -> Scene:
    states = trajectory.states
    while hasattr(states, "env_state"):  # a time limit's
        states = states.env_state
    return (
        model_scene(env_name, env, env_params, states, trajectory.action)
        or body_scene(env, states)
        or board_scene(env_name, states, trajectory.obs)
        or chart_scene(trajectory.obs, trajectory.action, trajectory.reward)
    )


def _duration(stride: int, fps: float) -> int:
    """Milliseconds per frame, in the hundredths of a second that GIF counts; viewers slow down what is below two."""
    return 10 * max(2, round(100 * stride / fps))


def _frame(scene: Scene, env_name: str, trajectory: Trajectory, caption: str, t: int) -> Image.Image:
    height = _HEADER + scene.height + (_FOOTER if caption else 0)
    canvas = Canvas(WIDTH, height, top=_HEADER)
    scene.draw(canvas, t)
    canvas.top = 0
    canvas.box(0, 0, WIDTH, _HEADER, (255, 255, 255))
    canvas.line([(0, _HEADER), (WIDTH, _HEADER)], RULE)
    canvas.text((10, _HEADER / 2), env_name, INK, 12)
    so_far = float(np.sum(trajectory.reward[: t + 1], dtype=np.float64))
    shown = f"{so_far:.0f}" if so_far == round(so_far) else f"{round(so_far, 2) + 0.0:.2f}"  # no "-0.00"
    canvas.text((WIDTH - 10, _HEADER / 2), f"return {shown}", INK, 12, "rm")
    canvas.text((WIDTH - 112, _HEADER / 2), f"step {t + 1} / {trajectory.length}", MUTED, 12, "rm")
    if caption:
        canvas.box(0, height - _FOOTER, WIDTH, height, (255, 255, 255))
        canvas.line([(0, height - _FOOTER), (WIDTH, height - _FOOTER)], RULE)
        canvas.text((10, height - _FOOTER / 2), _fit(canvas, caption), MUTED, 11)
    return canvas.finish()


def _fit(canvas: Canvas, text: str) -> str:
    text = " ".join(text.split())
    if canvas.text_width(text, 11) <= WIDTH - 20:
        return text
    while text and canvas.text_width(text + "...", 11) > WIDTH - 20:
        text = text[:-1]
    return text + "..."


def _quantized(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames in one palette of at most 256 colours, from a few of them: local palettes would flicker."""
    from PIL import Image

    chosen = frames[:: max(1, len(frames) // 12)]
    strip = Image.new("RGB", (frames[0].width, frames[0].height * len(chosen)))
    for row, frame in enumerate(chosen):
        strip.paste(frame, (0, row * frame.height))
    counts: Any = strip.getcolors(_MOST_COLOURS)
    if counts is None:  # a photograph
        palette = strip.quantize(256, Image.Quantize.MEDIANCUT)
        return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    # A drawing: its colours exactly, and the commonest of the shades along edges. Pillow compares the first six bits
    # only, so it is given those to match, one colour for each, and the true colours afterwards.
    colours: dict[tuple[int, ...], tuple[int, ...]] = {}
    for _, colour in sorted(counts, key=lambda pair: (-pair[0], pair[1])):
        colours.setdefault(tuple(level & 0xFC for level in colour), colour)
    coarse, exact = zip(*list(colours.items())[:256], strict=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for colour in coarse for level in colour])
    quantized = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    for frame in quantized:
        frame.putpalette([level for colour in exact for level in colour])
    return quantized


def _gif(frames: list[Image.Image], milliseconds: int) -> bytes:
    file = io.BytesIO()
    durations = [milliseconds] * (len(frames) - 1) + [max(milliseconds, _LAST_FRAME_MS)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()


def _player(frames: list[Image.Image], milliseconds: int, title: str) -> str:
    """The frames with a play button and a slider; a fragment of HTML that stands alone."""
    encoded = []
    for frame in frames:
        file = io.BytesIO()
        frame.save(file, "PNG")
        encoded.append(base64.b64encode(file.getvalue()).decode())
    values = {
        "TITLE": html.escape(title, quote=True),
        "FRAMES": ",".join(f'"{frame}"' for frame in encoded),
        "LAST": str(len(frames) - 1),
        "MS": str(milliseconds),
        "WIDTH": str(frames[0].width),
        "HEIGHT": str(frames[0].height),
    }
    text = _PLAYER
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _page(body: str, title: str) -> str:
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<html lang="en"><head>{meta}<title>{html.escape(title)}</title></head>'
    return f"<!DOCTYPE html>\n{head}\n<body>{body}</body></html>\n"


def _brax_page(env: Any, trajectory: Trajectory, steps: list[int]) -> str | None:
    """Brax's own viewer of the body; None if there is no body."""
    poses, system = find_poses(trajectory.states), find_attribute(env, "sys")
    if poses is None or system is None:
        return None
    from brax.io import html as brax_html

    def moment(t: int) -> Any:
        # Rounded: the page holds every number as text.
        pos, rot = (np.round(np.asarray(leaf[t], np.float64), 4) for leaf in (poses.pos, poses.rot))
        return SimpleNamespace(x=SimpleNamespace(pos=pos, rot=rot))

    return brax_html.render(system, [moment(t) for t in steps], height=480)


def _join(viewer: str, player: str) -> str:
    before, end, after = viewer.rpartition("</body>")
    return f"{before}{_HIDE_EMPTY_VIEWER}{player}{end}{after}"


# The viewer's code comes from the web; where it does not arrive, an empty area would remain.
_HIDE_EMPTY_VIEWER = """
<script>
addEventListener("load", () => setTimeout(() => {
  const viewer = document.getElementById("brax-viewer");
  if (!viewer.querySelector("canvas")) viewer.style.display = "none";
}, 3000));
</script>
"""

_PLAYER = """
<style>
.replay { max-width: 800px; margin: 24px auto; padding: 0 16px; font: 14px system-ui, sans-serif; color: #212529; }
.replay img { width: 100%; height: auto; display: block; border: 1px solid #d7dbe0; box-sizing: border-box; }
.replay div { display: flex; gap: 12px; align-items: center; margin-top: 12px; }
.replay button { width: 72px; padding: 6px 0; }
.replay input { flex: 1; }
</style>
<section class="replay">
<img width="@WIDTH@" height="@HEIGHT@" alt="@TITLE@">
<div>
<button type="button">Play</button>
<input type="range" min="0" max="@LAST@" value="0" aria-label="frame">
<select aria-label="speed"><option value="0.25">0.25x</option><option value="0.5">0.5x</option>
<option value="1" selected>1x</option><option value="2">2x</option><option value="4">4x</option></select>
</div>
<script>
{
  const frames = [@FRAMES@];
  const root = document.currentScript.parentElement;
  const [image, button, slider, speed] = ["img", "button", "input", "select"].map(tag => root.querySelector(tag));
  let now = 0, timer = null;
  const show = t => {
    now = t; slider.value = t; image.src = "data:image/png;base64," + frames[t];
  };
  const pause = () => { clearTimeout(timer); timer = null; button.textContent = "Play"; };
  const next = () => {
    if (now === frames.length - 1) return pause();
    show(now + 1);
    timer = setTimeout(next, @MS@ / speed.value);
  };
  const play = () => {
    if (now === frames.length - 1) show(0);
    button.textContent = "Pause";
    timer = setTimeout(next, @MS@ / speed.value);
  };
  button.onclick = () => timer === null ? play() : pause();
  slider.oninput = () => { pause(); show(Number(slider.value)); };
  show(0);
  play();
}
</script>
</section>
"""
