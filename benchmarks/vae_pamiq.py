"""pamiq-core's own VAE sample, in samples/s inside `launch`. The reference is the same training in bare JAX.

Its sizes are theirs: 64 features, three layers each way, 8 latent numbers; 1,024 samples, shuffled batches of 32,
3 epochs a run, after which the encoder is published.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import alternate, report
from benchmarks.peers import peer
from pamiq_jax.runtime import MetricRow, Run

FEATURES, RECORDS, BATCH, EPOCHS = 64, 1024, 32, 3
STEPS = EPOCHS * RECORDS // BATCH
LATENTS = FEATURES // 8
WIDTHS = {
    "encoder": (FEATURES, FEATURES // 2, FEATURES // 4, 2 * LATENTS),
    "decoder": (LATENTS, FEATURES // 4, FEATURES // 2, FEATURES),
}


def _layers(widths: tuple[int, ...], rng_key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    keys = jax.random.split(rng_key, len(widths) - 1)
    pairs = zip(keys, widths[:-1], widths[1:], strict=True)
    return [(jax.random.normal(key, (before, after)) / before**0.5, jnp.zeros(after)) for key, before, after in pairs]


def _params() -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0))
    return {name: _layers(widths, key) for (name, widths), key in zip(WIDTHS.items(), keys, strict=True)}


def _apply(layers: Any, values: jax.Array) -> jax.Array:
    for weights, bias in layers[:-1]:
        values = jax.nn.relu(values @ weights + bias)
    weights, bias = layers[-1]
    return values @ weights + bias


def _loss(params: Any, batch: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    mean, log_variance = jnp.split(_apply(params["encoder"], batch), 2, axis=-1)
    code = mean + jnp.exp(log_variance / 2) * jax.random.normal(rng_key, mean.shape)
    error = jnp.sum((_apply(params["decoder"], code) - batch) ** 2) / 2
    divergence = jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1) / 2
    loss = (error + divergence) / BATCH
    return loss, {"loss": loss}


def _data() -> np.ndarray[Any, Any]:
    source = np.random.default_rng(0)
    codes = source.normal(size=(RECORDS, LATENTS)) @ source.normal(size=(LATENTS, FEATURES))
    return (codes + 0.3 * source.normal(size=(RECORDS, FEATURES))).astype(np.float32)


class _Bare:
    """The reference: one program for a run, and a reference to what it has made."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        tx = optax.adam(1e-3)
        data = jnp.array(values)

        def step(carry: Any, batch_and_key: Any) -> tuple[Any, jax.Array]:
            params, opt_state = carry
            indices, key = batch_and_key
            (loss, _), gradients = jax.value_and_grad(_loss, has_aux=True)(params, data[indices], key)
            updates, opt_state = tx.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        @jax.jit
        def run(carry: Any, key: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
            key, shuffle_key, steps_key = jax.random.split(key, 3)
            orders = [jax.random.permutation(one, RECORDS) for one in jax.random.split(shuffle_key, EPOCHS)]
            batches = jnp.stack(orders).reshape(STEPS, BATCH)
            carry, losses = jax.lax.scan(step, carry, (batches, jax.random.split(steps_key, STEPS)))
            return carry, key, jnp.mean(losses)

        params = _params()
        self._run, self._carry, self._key = run, (params, tx.init(params)), jax.random.key(1)
        self.losses: list[float] = []
        self.published: Any = None

    def samples_per_second(self, runs: int) -> float:
        """Go on for some runs."""
        started = time.perf_counter()
        for _ in range(runs):
            self._carry, self._key, loss = jax.block_until_ready(self._run(self._carry, self._key))
            self.published = self._carry[0]["encoder"]
            self.losses.append(float(loss))
        return runs * STEPS * BATCH / (time.perf_counter() - started)


def _system(values: np.ndarray[Any, Any]) -> pj.System:
    trainer = pj.gradient_trainer(_loss, optax.adam(1e-3), publishes=("encoder",))
    schedule = pj.Schedule(
        trainer, data="seen", batch_size=BATCH, steps=STEPS, steps_per_chunk=STEPS, when=pj.min_size(RECORDS)
    )
    params = _params()
    return pj.System(
        models={"encoder": pj.Model(params["encoder"]), "decoder": pj.Model(params["decoder"], infer=False)},
        buffers={"seen": pj.ring_buffer(RECORDS, sampling="epochs", example=values[0])},
        trainers={"vae": schedule},
    )


class _Ours:
    """A launched system that learns while it is asked to, and is paused otherwise."""

    def __init__(self, run: Run, rows: list[MetricRow], values: np.ndarray[Any, Any]) -> None:
        self._handle, self.rows = run, rows
        for record in values:
            run.collect("seen", record)
        run.wait_for_version(1, timeout=600)
        run.pause()

    def samples_per_second(self, runs: int) -> float:
        """Go on for some runs; the time is that from the end of the first of them to the end of the last."""
        before = self._handle.snapshot.version
        self._handle.resume()
        self._handle.wait_for_version(before + runs + 1, timeout=600)
        self._handle.pause()
        first, last = (self._row(version) for version in (before + 1, before + runs + 1))
        return BATCH * (last.step - first.step) / (last.seconds - first.seconds)

    def _row(self, version: int) -> MetricRow:
        while len(self.rows) < version:  # the metrics thread is a little behind
            time.sleep(0.01)
        return self.rows[version - 1]


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return one row, for the same number of runs, and the losses after as many."""
    values, rows, pamiq_core = _data(), list[MetricRow](), list[float]()
    bare = _Bare(values)
    bare.samples_per_second(2)
    runs = max(20, round((0.5 if quick else 3) * bare.samples_per_second(20) / (STEPS * BATCH)))
    with pj.launch(_system(values), on_metrics=rows.append) as run:
        ours = _Ours(run, rows, values)
        comparison = alternate(lambda: ours.samples_per_second(runs), lambda: bare.samples_per_second(runs), runs=5)
    with peer("pamiq_core", "vae") as program:
        if program is not None:
            pamiq_core = [program.measure() for _ in range(5)]
    after = min(len(bare.losses), len(rows))
    more: dict[str, object] = {
        "runs_trained": after,
        "loss_ours": statistics.mean(row.metrics["loss"] for row in rows[after - 10 : after]),
        "loss_bare": statistics.mean(bare.losses[after - 10 : after]),
        "pamiq_core": statistics.median(pamiq_core) if pamiq_core else None,
        "vs_pamiq_core": statistics.median(comparison.ours) / statistics.median(pamiq_core) if pamiq_core else None,
        "vs_pamiq_core_goal": ">= 25",
    }
    name = "jit(lax.scan) of a whole run"
    return [report("vae_pamiq", comparison, reference_name=name, unit="samples/s", goal=">= 0.95", more=more)]
