"""Loops: they collect experience, hand it to an agent, and count episodes. Each returns an `Algorithm`."""
