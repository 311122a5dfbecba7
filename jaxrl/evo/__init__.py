"""Evolution: strategies propose individuals, `evolve` evaluates them; one generation is one step."""
