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


def vtrace(
    flags: tuple[Array, Array], reward: Array, values: tuple[Array, Array], ratio: Array, gammas: tuple[float, float]
) -> Array:
    """[T, B] value targets: for every start, the weighted TD errors summed forward until the episode ends."""
    (terminated, truncated), (value, next_value), (gamma, lam) = flags, values, gammas
    target = np.array(value, np.float64)
    for start, b in np.ndindex(*reward.shape):
        weight = 1.0
        for t in range(start, len(reward)):
            future = 0.0 if terminated[t, b] else next_value[t, b]
            target[start, b] += weight * min(1.0, ratio[t, b]) * (reward[t, b] + gamma * future - value[t, b])
            if terminated[t, b] or truncated[t, b]:
                break
            weight *= gamma * lam * min(1.0, ratio[t, b])
    return target


def episodes(reward: Array, is_first: Array, done: Array) -> tuple[Array, Array]:
    """[T, B] each: does the step's episode begin and end inside, and what is it worth if so (else 0)."""
    complete, returns = np.zeros(reward.shape, bool), np.zeros(reward.shape)
    for b in range(reward.shape[1]):
        begin = None
        for t in range(len(reward)):
            begin = t if is_first[t, b] else begin
            if done[t, b] and begin is not None:
                complete[begin : t + 1, b] = True
                returns[begin : t + 1, b] = reward[begin : t + 1, b].sum()
            begin = None if done[t, b] else begin
    return complete, returns


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


def gru(memory: Array, x: Array, is_first: Array, weights: dict[str, Array]) -> Array:
    """[T, B, M]: one environment and one step after the other; the weights' columns are reset, update, candidate."""
    size = memory.shape[-1]
    of_input, of_memory, bias = weights["input_kernel"], weights["memory_kernel"], weights["bias"]
    reset_of, update_of, candidate_of = (slice(i * size, (i + 1) * size) for i in range(3))

    def sigmoid(z: Array) -> Array:
        return 1.0 / (1.0 + np.exp(-z))

    result = np.zeros((*x.shape[:2], size))
    for b in range(x.shape[1]):
        h = np.asarray(memory[b], np.float64)
        for t in range(x.shape[0]):
            h = np.zeros(size) if is_first[t, b] else h
            reset, update = (
                sigmoid(x[t, b] @ of_input[:, gate] + h @ of_memory[:, gate] + bias[gate])
                for gate in (reset_of, update_of)
            )
            recalled = h @ of_memory[:, candidate_of] + weights["candidate_bias"]
            candidate = np.tanh(x[t, b] @ of_input[:, candidate_of] + bias[candidate_of] + reset * recalled)
            h = update * h + (1.0 - update) * candidate
            result[t, b] = h
    return result
