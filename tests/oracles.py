"""Naive NumPy loops, written from the definitions: what the fast code is compared with."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def gae(
    reward: Array, terminated: Array, truncated: Array, value: Array, next_value: Array, gamma: float, lam: float
) -> Array:
    """[T, B]: for every start, the discounted TD errors summed forward until the episode ends."""
    num_steps, num_envs = reward.shape
    advantage = np.zeros((num_steps, num_envs))
    for b in range(num_envs):
        for start in range(num_steps):
            weight = 1.0
            for t in range(start, num_steps):
                future = 0.0 if terminated[t, b] else next_value[t, b]
                advantage[start, b] += weight * (reward[t, b] + gamma * future - value[t, b])
                if terminated[t, b] or truncated[t, b]:
                    break
                weight *= gamma * lam
    return advantage


def lambda_return(
    reward: Array, terminated: Array, truncated: Array, next_value: Array, gamma: float, lam: float
) -> Array:
    """[T, B]: the geometric mixture of n-step returns, each n-step return summed by itself."""
    num_steps, num_envs = reward.shape
    result = np.zeros((num_steps, num_envs))
    for b in range(num_envs):
        for start in range(num_steps):
            end = start  # last step that this start can look at
            while end < num_steps - 1 and not (terminated[end, b] or truncated[end, b]):
                end += 1
            for last in range(start, end + 1):
                n = last - start + 1
                rewards = sum(gamma**i * reward[start + i, b] for i in range(n))
                future = 0.0 if terminated[last, b] else gamma**n * next_value[last, b]
                weight = lam ** (n - 1) * (1.0 if last == end else 1 - lam)
                result[start, b] += weight * (rewards + future)
    return result


def discounted_return_so_far(reward: Array, is_first: Array, before: Array, gamma: float) -> Array:
    """[T, B]: rewards of the episode so far, the older the more discounted."""
    result = np.zeros(reward.shape)
    for t, b in np.ndindex(*reward.shape):
        for age in range(t + 1):
            result[t, b] += gamma**age * reward[t - age, b]
            if is_first[t - age, b]:
                break
        else:
            result[t, b] += gamma ** (t + 1) * before[b]
    return result


def mean_and_variance(batches: list[Array]) -> tuple[Array, Array]:
    """Of all rows together, population variance."""
    rows = np.concatenate([np.asarray(batch, np.float64) for batch in batches])
    return rows.mean(0), rows.var(0)


def conv_valid(x: Array, kernel: Array, bias: Array) -> Array:
    """[N, H, W, C] with a kernel [h, w, C, F], stride 1, no padding."""
    height, width = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
    result = np.zeros((x.shape[0], height, width, kernel.shape[-1]))
    for i, j in np.ndindex(height, width):
        patch = x[:, i : i + kernel.shape[0], j : j + kernel.shape[1]]
        result[:, i, j] = np.einsum("nhwc,hwcf->nf", patch, kernel) + bias
    return result


def standardize(x: Array) -> Array:
    return (x - np.mean(x)) / (np.sqrt(np.mean((x - np.mean(x)) ** 2)) + 1e-8)
