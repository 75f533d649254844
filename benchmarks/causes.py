"""Why a figure misses its goal: one line a row, by the row's name. Read by `benchmarks/page.py`."""

from __future__ import annotations

CAUSES: dict[str, str] = {
    "inference_latency": "a tick checks and copies the observation, folds a key for the agent, carries its memory and "
    "reads the snapshot's own tree; the bare program does none of it. Without load that is about 0.05 ms a tick; "
    "the rest is who gets the core.",
    "ingest: collect": "four leaves are checked and copied into their block, so that environment and agent may use "
    "their arrays again; an append copies nothing. Of 3.2 us, the least in a loop, taking the record apart takes 0.1, "
    "checking type, dtype and shape of its leaves 1.4, copying them and counting 1.5.",
    "memory": "within a run of several chunks the parameters that a chunk begins with are neither published nor "
    "donated: a third set while a chunk is computed. With `steps_per_chunk` equal to `steps` there are two.",
    "startup: import": "what a live run needs is some ninety small modules, in which each NamedTuple and dataclass is "
    "built when imported, about 48 ms; 32 ms more is one pass of the garbage collector over JAX's objects, which "
    "comes due at the first thousand or two objects that anything makes after JAX's import.",
    "vae_pamiq": "the host's time between two runs: the fastest ones took 8.1 ms here and 7.3 ms in the reference. The "
    "compiled chunk alone takes as long as the reference's: 5.8 ms each, the least of 240 by turns.",
    "sample": "who draws waits for memory: of 46 us a batch, 35 are XLA's gather of 256 rows from 16 MB (10 from so "
    "few that they stay in the cache), which the reference does too, so that what else runs on the machine counts for "
    "more than the rest. Of that, a key folded for each position is 1 us, where the others split keys once for all; "
    "importance weights, which the tree written out lacks, are 1 us.",
    "guard": "the state is kept twice, and one of the two selected after each step.",
    "train_throughput": "a chunk takes about 0.15 ms of host time more than the bare loop's: 0.04 ms of Python in a "
    "tick, 0.08 ms in the call of the compiled chunk, the rest in waking up for its end. A bare loop that "
    "dispatches ahead hides that; here one chunk at most is under way, so that a pause waits for one only.",
    "prefetch": "two cores that training keeps busy leave nothing to hide behind; see "
    "[the core, decided](design/core.md).",
    "checkpoint_stall": "two cores: a bare process of low priority that hashes, writes and syncs as many blocks while "
    "nothing is done in the system's own slows the slowest ticks as much, see `bare_writer_ratio` and "
    "[Checkpoints, measured](design/checkpoints.md).",
}


def cause(name: str) -> str:
    """Return why a row misses, by its whole name or else by that of its benchmark.

    Args:
        name: of the row, as "ingest: collect".
    """
    return CAUSES.get(name) or CAUSES.get(name.partition(":")[0]) or "not looked into yet"
