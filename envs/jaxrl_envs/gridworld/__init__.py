"""Grid-worlds after Oh et al. 2020: levels as data, their distributions, their exact solution and their pictures."""

from jaxrl_envs.gridworld.distributions import DISTRIBUTIONS, LevelDistribution, sample_level
from jaxrl_envs.gridworld.drawing import level_image, trajectory_image
from jaxrl_envs.gridworld.environment import ACTIONS, GridState, GridWorld
from jaxrl_envs.gridworld.handcrafted import HANDCRAFTED, grid_random, handcrafted, handcrafted_set, maze
from jaxrl_envs.gridworld.level import Level, level_from_drawing, padded
from jaxrl_envs.gridworld.mazes import MAZES
from jaxrl_envs.gridworld.solution import optimal_policy, optimal_return, optimal_values, policy_value, policy_values

__all__ = [
    "ACTIONS",
    "DISTRIBUTIONS",
    "HANDCRAFTED",
    "MAZES",
    "GridState",
    "GridWorld",
    "Level",
    "LevelDistribution",
    "grid_random",
    "handcrafted",
    "handcrafted_set",
    "level_from_drawing",
    "level_image",
    "maze",
    "optimal_policy",
    "optimal_return",
    "optimal_values",
    "padded",
    "policy_value",
    "policy_values",
    "sample_level",
    "trajectory_image",
]
