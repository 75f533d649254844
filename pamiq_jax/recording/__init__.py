"""Recordings: what the threads of a live run decided and learned from, as a log that only grows."""

from pamiq_jax.recording.reader import Recording, TickEntry

__all__ = ["Recording", "TickEntry"]
