"""pamiq-core measures: `python -m benchmarks.peers.pamiq_core vae|collect|drain|idle|publish [NUMBER]`.

Whatever is not the question is left out, in its favor: its trainer runs without its threads, and writes no logs.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, override

import numpy as np
import torch
from pamiq_core import FixedIntervalInteraction, LaunchConfig, launch
from pamiq_core.data import DataUsersDict
from pamiq_core.data.impls import DictSequentialBuffer, SequentialBuffer
from pamiq_core.interaction import Agent, Environment
from pamiq_core.model import TrainingModelsDict
from pamiq_core.torch import TorchTrainer, TorchTrainingModel
from torch import Tensor, nn

from benchmarks.peers.answer import answer
from benchmarks.peers.sampled import record

FEATURES, RECORDS, BATCH, EPOCHS = 64, 1024, 32, 3
LATENTS = FEATURES // 8


def _layers(*widths: int) -> nn.Sequential:
    pairs = [(nn.Linear(before, after), nn.ReLU()) for before, after in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*pairs))[:-1]


class _VAETrainer(TorchTrainer):
    """Their sample's trainer: stack what the buffer holds, shuffle, and take three epochs of Adam."""

    def __init__(self) -> None:
        super().__init__("seen", min_buffer_size=RECORDS)

    @override
    def on_training_models_attached(self) -> None:
        self.encoder = self.get_torch_training_model("encoder", nn.Sequential)
        self.decoder = self.get_torch_training_model("decoder", nn.Sequential)

    @override
    def create_optimizers(self) -> Any:
        parameters = itertools.chain(self.encoder.model.parameters(), self.decoder.model.parameters())
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3)
        return {"optimizer": self.optimizer}

    def _loss(self, batch: Tensor) -> Tensor:
        mean, log_variance = self.encoder(batch).chunk(2, dim=1)
        code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        error = torch.sum((self.decoder(code) - batch) ** 2) / 2
        divergence = torch.sum(mean**2 + torch.exp(log_variance) - log_variance - 1) / 2
        return (error + divergence) / BATCH

    @override
    def train(self) -> None:
        dataset = torch.utils.data.TensorDataset(torch.stack(self.get_data_user("seen").get_data()))
        for _ in range(EPOCHS):
            for (batch,) in torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True):
                self.optimizer.zero_grad()
                self._loss(batch).backward()
                self.optimizer.step()


def _vae() -> Callable[[], float]:
    """Return what gives samples a second."""
    models = TrainingModelsDict(
        {
            "encoder": TorchTrainingModel(_layers(FEATURES, FEATURES // 2, FEATURES // 4, 2 * LATENTS)),
            "decoder": TorchTrainingModel(
                _layers(LATENTS, FEATURES // 4, FEATURES // 2, FEATURES), has_inference_model=False
            ),
        }
    )
    users = DataUsersDict.from_data_buffers({"seen": SequentialBuffer(RECORDS)})
    collector = users.data_collectors_dict.acquire("seen")
    for row in torch.randn(RECORDS, FEATURES):
        collector.collect(row)
    trainer = _VAETrainer()
    trainer.attach_training_models(models)
    trainer.attach_data_users(users)

    def samples_per_second(runs: int = 5) -> float:
        started = time.perf_counter()
        for _ in range(runs):
            assert trainer.run()
        return runs * EPOCHS * RECORDS / (time.perf_counter() - started)

    return samples_per_second


def _ingest(kind: str, records: int) -> Callable[[], float]:
    """Return what gives microseconds a record, of `collect`, or of all that follows until a tensor is there.

    Args:
        kind: "collect" or "drain".
        records: that the buffer holds: all of them are stacked for each training.
    """
    new = 4096
    users = DataUsersDict.from_data_buffers({"x": DictSequentialBuffer(record(), records)})
    collector, user = users.data_collectors_dict.acquire("x"), users["x"]

    def collect(count: int) -> float:
        example = record()
        started = time.perf_counter()
        for _ in range(count):
            collector.collect(example)
        return 1e6 * (time.perf_counter() - started) / count

    def drain() -> float:
        collect(new)
        started = time.perf_counter()
        for column in user.get_data().values():  # `get_data` updates
            torch.from_numpy(np.stack(column))
        return 1e6 * (time.perf_counter() - started) / new

    collect(records)
    user.update()
    return drain if kind == "drain" else lambda: collect(new)


def _publish(parameters: int) -> Callable[[], float]:
    """Return what gives the microseconds of one `sync` of a model of ten leaves."""
    module = nn.Module()
    for index in range(10):
        module.register_parameter(f"leaf{index}", nn.Parameter(torch.zeros(parameters // 10)))
    model = TorchTrainingModel(module)
    assert model.inference_model is not None

    def microseconds() -> float:
        started = time.perf_counter()
        model.sync()
        return 1e6 * (time.perf_counter() - started)

    return microseconds


class _Agent(Agent[float, float]):
    @override
    def step(self, observation: float) -> float:
        return observation


class _World(Environment[float, float]):
    @override
    def observe(self) -> float:
        return 0.0

    @override
    def affect(self, action: float) -> None:
        pass


class _Waiting(TorchTrainer):
    """Waits for records that nobody brings."""

    @override
    def create_optimizers(self) -> Any:
        return {}

    @override
    def train(self) -> None:
        pass


def _idle(seconds: float) -> Callable[[], float]:
    """Return what gives the CPU time of a launched system with nothing to do, as a share of one core."""
    directory = tempfile.mkdtemp(prefix="pamiq-core-")
    arguments = (
        FixedIntervalInteraction.with_sleep_adjustor(_Agent(), _World(), 60.0),
        {},
        {"x": SequentialBuffer(1000)},
        {"t": _Waiting("x", min_buffer_size=1000)},
        LaunchConfig(states_dir=directory, web_api_address=None),
    )
    threading.Thread(target=launch, args=arguments, daemon=True).start()
    time.sleep(1)

    def share() -> float:
        started, used = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        return (time.process_time() - used) / (time.perf_counter() - started)

    return share


def main(kind: str, number: float) -> None:
    """Answer with figures of that kind."""
    torch.set_num_threads(1)  # its models are small: more threads only wait for each other
    if kind in ("collect", "drain"):
        answer(_ingest(kind, int(number)))
    else:
        makers = {"vae": _vae, "publish": lambda: _publish(int(number)), "idle": lambda: _idle(number)}
        answer(makers[kind]())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0)
