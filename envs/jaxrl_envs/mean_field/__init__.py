"""Swarms of exchangeable agents, and their control by decision rules that all agents share."""
