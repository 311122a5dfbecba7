"""Agents: learners without a loop. Each file builds one `jaxrl.types.Agent`."""
