"""Why a figure misses its goal: one line a row, by the row's name. Read by `benchmarks/page.py`."""

from __future__ import annotations

_GATHER = (
    "who draws waits for memory: of 48 us a batch, 30 are XLA's gather of 256 rows from 16 MB (10 from so few that "
    "they stay in the cache), which the reference does too; seven other ways to write it took as long. What else runs "
    "on the machine counts for more than the rest: in seven runs of a day it was 0.92 to 1.10 of flashbax with "
    "priorities and 0.94 to 1.11 without."
)

CAUSES: dict[str, str] = {
    "inference_latency: free-running": "the training thread has about 0.3 ms of Python between two runs of 5 ms, and "
    "one tick of the 140 in that time waits for it: one in a hundred is just about where p99 lies.",
    "ingest: drain and to device": "of 0.4 us a record, the least is 0.25 for handing seven arrays of numpy's a chunk "
    "to a compiled program that does nothing with them.",
    "vae_pamiq, vs_pamiq_core": "the bare program is 15 times as fast as pamiq-core on this machine. Its 96 steps take "
    "6 ms, 16 GFLOP/s in products of 32 rows with 8 to 64 columns; unrolled, with one thread, with oneDNN or XNNPACK "
    "it is no faster.",
    "ingest: collect": "four leaves are checked and copied into their block, so that environment and agent may use "
    "their arrays again; pamiq-core's keeps a reference. Of 3.3 us, taking the record apart takes 0.1, comparing type, "
    "dtype and shape of its leaves 0.9, copying them 1.2, the lock and counting 0.8. A sketch that joins the leaves "
    "to bytes in one call, to be parted when drained, took 1.8.",
    "startup: import": "32 ms are one pass of the garbage collector over JAX's objects, which comes due at the first "
    "thousand or two objects that anything makes after JAX's import; 14 ms are the package's own modules.",
    "vae_pamiq": "the host's time between two runs; the compiled chunk alone takes as long as the reference's.",
    "sample: ring": _GATHER,
    "sample: prioritized": _GATHER,
    "guard": "the state is kept twice, and one of the two selected after each step.",
    "train_throughput": "the next chunk is handed over two milliseconds before one ends; where other work on the cores "
    "makes chunks of one kind take now more, now less, it sometimes comes too late, and the device waits for it.",
    "pure_jax": "within a row both sides vary by a fifth, and between runs it is 0.86 to 1.03. Beside the reference's "
    "work a tick counts, asks the conditions and keeps what a run must keep to be gone on with: some 4 us of 60.",
    "prefetch": "two cores that training keeps busy leave nothing to hide behind; see "
    "[the core, decided](design/core.md).",
    "checkpoint_stall: while training waits": "two cores, which a process of low priority shares that hashes, writes "
    "and syncs the blocks; what remains is 0.06 ms, see [Checkpoints, measured](design/checkpoints.md).",
}


def cause(name: str) -> str:
    """Return why a figure misses.

    Args:
        name: of the row, as "ingest: collect", or of the row and the figure, as "vae_pamiq, vs_pamiq_core".
    """
    return CAUSES.get(name, "not looked into yet")
