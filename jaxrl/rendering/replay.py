"""From a recorded trajectory to a file: frames with a header and a caption, as a GIF or an HTML page with a player."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxrl.files import atomic_write
from jaxrl.rendering.boards import board_scene, image_scene
from jaxrl.rendering.bodies import body_scene
from jaxrl.rendering.canvas import INK, MUTED, PAPER, RULE, WIDTH, Canvas, Scene
from jaxrl.rendering.charts import chart_scene
from jaxrl.rendering.control import model_scene
from jaxrl.rendering.page import body_viewer, page

if TYPE_CHECKING:
    from PIL import Image

_HEADER, _FOOTER = 26, 24
_LAST_FRAME_MS = 1500
_MOST_COLOURS = 4000  # in a frame that is drawn, shades along edges included; photographs have more


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


class Film(NamedTuple):
    """Pictures of an episode.

    Attributes:
      frames: of one size and one palette.
      steps: which step each frame shows; evenly apart, the last one always among them.
      milliseconds: per frame.
    """

    frames: list[Image.Image]
    steps: list[int]
    milliseconds: int


def film(  # noqa: PLR0913 - the last three have defaults and names
    env_name: str,
    env: Any,
    env_params: Any,
    trajectory: Trajectory,
    *,
    caption: str | None = "",
    max_frames: int = 500,
    fps: float | None = None,
) -> Film:
    """An episode as pictures.

    Args:
      env_name, env, env_params, trajectory, max_frames, fps: as of `render`.
      caption: one line below every frame; `None` leaves out the header, too.
    Raises:
      ValueError: as `render`.
    """
    if not 1 <= trajectory.length <= len(trajectory.reward):
        raise ValueError(
            f"trajectory.length = {trajectory.length}, expected 1 to {len(trajectory.reward)}, the steps recorded"
        )
    if max_frames < 1 or (fps is not None and not fps > 0):
        raise ValueError(f"expected max_frames >= 1 and fps > 0, got max_frames = {max_frames}, fps = {fps}")
    trajectory = _cut(trajectory)
    scene = _find_scene(env_name, env, env_params, trajectory)
    steps, milliseconds = timing(trajectory.length, max_frames, fps or scene.fps)
    return Film(_quantized([_frame(scene, env_name, trajectory, caption, t) for t in steps]), steps, milliseconds)


def timing(length: int, max_frames: int, fps: float) -> tuple[list[int], int]:
    """The steps that are shown of an episode, and milliseconds per frame: thinned evenly, at its own speed."""
    stride = math.ceil(length / max_frames)
    # The last step is always shown, so that the return of the last frame is that of the episode.
    return list(range(length - 1, -1, -stride))[::-1], _duration(stride, fps)


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

    Classic control, mazes, MinAtar and other image-like observations and Brax bodies are drawn as such, and so are
    environments with a method `image(state, params) -> [H, W, 3] uint8`, or `path_image(states, params)` of the states
    so far; any other environment as charts of its observations and rewards.

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
    made = film(env_name, env, env_params, trajectory, caption=caption, max_frames=max_frames, fps=fps)
    if suffix == ".gif":
        content = _gif(made.frames, made.milliseconds)
    else:
        viewer = body_viewer(env, trajectory.states, made.steps)
        content = page(made.frames, made.milliseconds, f"{env_name} {caption}".strip(), viewer).encode()
    with atomic_write(path) as file:
        file.write(content)
    return path


def _cut(trajectory: Trajectory) -> Trajectory:
    def cut(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaf = np.asarray(leaf)
        return leaf[: trajectory.length] if leaf.ndim else leaf

    states, obs, action, reward = jax.tree.map(cut, tuple(trajectory[:4]))
    return Trajectory(states, obs, action, reward, trajectory.length)


def _find_scene(env_name: str, env: Any, env_params: Any, trajectory: Trajectory) -> Scene:
    states = trajectory.states
    while hasattr(states, "env_state"):  # a time limit's
        states = states.env_state
    return (
        model_scene(env_name, env, env_params, states, trajectory.action)
        or body_scene(env, states)
        or image_scene(env, env_params, states)
        or board_scene(env_name, states, trajectory.obs)
        or chart_scene(trajectory.obs, trajectory.action, trajectory.reward)
    )


def _duration(stride: int, fps: float) -> int:
    """Milliseconds per frame, in the hundredths of a second that GIF counts; viewers slow down what is below two."""
    return 10 * max(2, round(100 * stride / fps))


def _frame(scene: Scene, env_name: str, trajectory: Trajectory, caption: str | None, t: int) -> Image.Image:
    if caption is None and scene.picture is not None:
        return scene.picture(t)
    if caption is None:
        canvas = Canvas(WIDTH, scene.height)
        scene.draw(canvas, t)
        return canvas.finish()
    height = _HEADER + scene.height + (_FOOTER if caption else 0)
    canvas = Canvas(WIDTH, height, top=_HEADER)
    scene.draw(canvas, t)
    canvas.top = 0
    canvas.box(0, 0, WIDTH, _HEADER, PAPER)
    canvas.line([(0, _HEADER), (WIDTH, _HEADER)], RULE)
    canvas.text((10, _HEADER / 2), _fit(canvas, env_name, 178, 12), INK, 12)
    so_far = float(np.sum(trajectory.reward[: t + 1], dtype=np.float64))
    shown = f"{so_far:.0f}" if so_far.is_integer() else f"{round(so_far, 2) + 0.0:.2f}"  # no "-0.00"
    canvas.text((WIDTH - 10, _HEADER / 2), f"return {shown}", INK, 12, "rm")
    canvas.text((WIDTH - 112, _HEADER / 2), f"step {t + 1} / {trajectory.length}", MUTED, 12, "rm")
    if caption:
        canvas.box(0, height - _FOOTER, WIDTH, height, PAPER)
        canvas.line([(0, height - _FOOTER), (WIDTH, height - _FOOTER)], RULE)
        canvas.text((10, height - _FOOTER / 2), _fit(canvas, caption, WIDTH - 20, 11), MUTED, 11)
    return canvas.finish()


def _fit(canvas: Canvas, text: str, width: float, size: int) -> str:
    text = " ".join(text.split())
    if canvas.text_width(text, size) <= width:
        return text
    while text and canvas.text_width(text + "...", size) > width:
        text = text[:-1]
    return text + "..."


def _quantized(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames in one palette of at most 256 colours: palettes of their own would flicker."""
    from PIL import Image

    most: dict[tuple[int, ...], int] = {}  # colour -> pixels in the frame that has most of it
    for frame in frames:
        counts: Any = frame.getcolors(_MOST_COLOURS)
        if counts is None:
            return _quantized_photographs(frames)
        for count, colour in counts:
            most[colour] = max(count, most.get(colour, 0))
    # A drawing: its colours exactly, and the commonest of the shades along edges. Pillow compares the first six bits
    # only, so it is given those to match, one colour for each, and the true colours afterwards.
    colours: dict[tuple[int, ...], tuple[int, ...]] = {}
    for colour in sorted(most, key=lambda c: (-most[c], c)):
        colours.setdefault(tuple(level & 0xFC for level in colour), colour)
    coarse, exact = zip(*list(colours.items())[:256], strict=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for colour in coarse for level in colour])
    quantized = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    for frame in quantized:
        frame.putpalette([level for colour in exact for level in colour])
    return quantized


def _quantized_photographs(frames: list[Image.Image]) -> list[Image.Image]:
    from PIL import Image

    chosen = frames[:: max(1, len(frames) // 12)]
    strip = Image.new("RGB", (frames[0].width, frames[0].height * len(chosen)))
    for row, frame in enumerate(chosen):
        strip.paste(frame, (0, row * frame.height))
    palette = strip.quantize(256, Image.Quantize.MEDIANCUT)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _gif(frames: list[Image.Image], milliseconds: int) -> bytes:
    file = io.BytesIO()
    durations = [milliseconds] * (len(frames) - 1) + [max(milliseconds, _LAST_FRAME_MS)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()
