"""Complete programs on top of the library: `pamiq-jax demo cartpole`."""
