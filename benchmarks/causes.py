"""Why a figure misses its goal: one line a row, by the row's name. Read by `benchmarks/page.py`."""

from __future__ import annotations

CAUSES: dict[str, str] = {
    "inference_latency": "an agent that runs freely, 17,000 ticks a second, shares the interpreter with the training "
    "thread, which has 0.3 to 0.4 ms of Python for each run in this benchmark (5 ms): choosing, setting up, checking, "
    "publishing. Who acts in that time waits for it; the bare loop has 0.05 ms. A tick itself is 0.02 ms more than "
    "the bare call: it copies and checks the observation, notes what it does, and gives the agent its key and memory.",
    "inference_latency: at 50 Hz, p50_ratio": "a tick copies and checks the observation, notes what it does, and gives "
    "the agent its key and memory: 0.01 to 0.02 ms more than the bare call, and twice that after a rest of 20 ms.",
    "ingest: drain and to device, vs_pamiq_core": "0.4 us of a record's 0.5 are the copy on its way and the compiled "
    "add, at the least; pamiq-core took 4.3 us on the machine of this page, and 6.0 on the one before.",
    "vae_pamiq, vs_pamiq_core": "the bare program is 16 times as fast as pamiq-core on this machine.",
    "ingest: collect": "four leaves are checked and copied into their block, so that environment and agent may use "
    "their arrays again; an append copies nothing. Of 3.2 us, the least in a loop, taking the record apart takes 0.1, "
    "checking type, dtype and shape of its leaves 1.4, copying them and counting 1.5.",
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
    "train_throughput": "the next chunk is handed over two milliseconds before one ends; where other work on the cores "
    "makes chunks of one kind take now more, now less, it sometimes comes too late, and the device waits for it.",
    "pure_jax": "it was 0.97 to 1.03 in other runs; within this row both sides vary by a fifth. Beside the reference's "
    "work a tick counts, asks the conditions and keeps what a run must keep to be gone on with.",
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
