"""Stateless mathematics: returns, distributions, running statistics, minibatches. No module here keeps state."""
