"""Replays of episodes: a GIF, or an HTML page with a player. Pillow, matplotlib and Brax are imported when drawing."""

from jaxrl.rendering.replay import Trajectory, render

__all__ = ["Trajectory", "render"]
