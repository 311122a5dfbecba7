"""The HTML page of a replay: frames, a play button and a slider, in one file without references to others."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl.rendering.bodies import find_poses
from jaxrl.rendering.canvas import find_attribute

if TYPE_CHECKING:
    from PIL import Image


def page(frames: Sequence[Image.Image], milliseconds: int, title: str, viewer: str | None = None) -> str:
    """A page that plays the frames.

    Args:
      frames: of one size.
      milliseconds: per frame.
      title: plain text.
      viewer: another page, from `body_viewer`, at the end of which the player is put.
    """
    player = _player(frames, milliseconds, title)
    if viewer is not None:
        before, end, after = viewer.rpartition("</body>")
        return f"{before}{_HIDE_EMPTY_VIEWER}{player}{end}{after}"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<html lang="en"><head>{meta}<title>{html.escape(title)}</title></head>'
    return f"<!DOCTYPE html>\n{head}\n<body>{player}</body></html>\n"


def body_viewer(env: Any, states: Any, steps: Sequence[int]) -> str | None:
    """A page with Brax's own viewer of the states at `steps`; None if there is no body."""
    poses, system = find_poses(states), find_attribute(env, "sys")
    if poses is None or system is None:
        return None
    from jaxrl.adapters.brax import viewer_page

    def moment(t: int) -> Any:
        # Rounded: the page holds every number as text.
        pos, rot = (np.round(np.asarray(leaf[t], np.float64), 4) for leaf in (poses.pos, poses.rot))
        return SimpleNamespace(x=SimpleNamespace(pos=pos, rot=rot))

    return viewer_page(system, [moment(t) for t in steps], height=480)


def _player(frames: Sequence[Image.Image], milliseconds: int, title: str) -> str:
    """The frames with a play button and a slider; a fragment of HTML that stands alone."""
    encoded = []
    for frame in frames:
        file = io.BytesIO()
        frame.save(file, "PNG")
        encoded.append(base64.b64encode(file.getvalue()).decode())
    values = {
        "FRAMES": ",".join(f'"{frame}"' for frame in encoded),
        "LAST": str(len(frames) - 1),
        "MS": str(milliseconds),
        "WIDTH": str(frames[0].width),
        "HEIGHT": str(frames[0].height),
        "TITLE": html.escape(title, quote=True),  # last, so that nothing in it is replaced
    }
    text = _PLAYER
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


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
