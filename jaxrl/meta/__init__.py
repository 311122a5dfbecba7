"""Learning to learn: meta-gradients through an agent's updates, and where its levels come from."""
