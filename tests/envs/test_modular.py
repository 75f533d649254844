from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax import trees
from pamiq_jax.envs import Actuator, ModularEnvironment, Sensor, map_actuator, map_sensor
from pamiq_jax.errors import InvalidValueError


class Cart:
    """A cart on a rail, with a camera that shows where it is. Logs what is done to it."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.position = np.zeros((), np.float32)
        self.image = np.zeros(5, np.uint8)

    def reset(self, seed: int) -> None:
        self.log.append(("reset", seed))
        self.position[...] = 0

    def look(self) -> np.ndarray:
        self.image[:] = 255 * (np.arange(5) == np.clip(np.rint(self.position), 0, 4))
        return self.image

    def drive(self, speed: Any) -> None:
        self.log.append(("drive", float(speed)))
        self.position += speed

    def honk(self, volume: Any) -> None:
        self.log.append(("honk", float(volume)))

    def close(self) -> None:
        self.log.append("close")

    def environment(self) -> ModularEnvironment:
        return ModularEnvironment(
            sensors={
                "camera": Sensor(self.look, self.image, self.reset, self.close),
                "position": Sensor(lambda: self.position, self.position),
            },
            actuators={"wheels": Actuator(self.drive, np.float32(0)), "horn": Actuator(self.honk, np.float32(0))},
            feedback={"reward": Sensor(lambda: self.position, np.float32(0))},
        )


def still(name: str = "s", **changes: Any) -> dict[str, Sensor]:
    return {name: Sensor(lambda: np.float32(0), np.float32(0), **changes)}


def test_parts_make_dicts_by_name() -> None:
    cart = Cart()
    environment = cart.environment()
    environment.reset(0)
    feedback = environment.affect({"horn": np.float32(0.5), "wheels": np.float32(2)})
    assert cart.log[1:] == [("drive", 2.0), ("honk", 0.5)], "in the order in which the actuators were given"
    assert feedback == {"reward": 2.0}, "feedback is read after the actuators have acted"
    observation = environment.observe()
    assert observation["camera"].tolist() == [0, 0, 255, 0, 0]
    assert trees.difference(environment.spec.observation, observation) is None
    assert list(environment.spec.action) == ["wheels", "horn"]
    assert trees.describe_leaf(environment.spec.feedback["reward"]) == "float32[]"


def test_an_agent_acts_by_the_sensors_and_a_trainer_learns_from_them() -> None:
    def act(params: Any, carry: Any, observation: Any, rng_key: jax.Array) -> Any:
        speed = jnp.where(observation["position"] < 3, params["policy"], 0.0)
        return carry, {"wheels": speed, "horn": jnp.float32(0)}, {}

    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        seen = batch["observation"]["camera"].astype(jnp.float32) @ jnp.arange(5.0) / 255
        return jnp.mean((params["policy"] - seen) ** 2), {"reward": jnp.mean(batch["reward"])}

    cart = Cart()
    trainer = pj.gradient_trainer(loss_fn, optax.sgd(0.0))
    result = pj.run_lockstep(
        pj.System(
            models={"policy": pj.Model(jnp.float32(1))},
            buffers={"seen": pj.ring_buffer(4, sampling="in_order")},
            trainers={"fit": pj.Schedule(trainer, data="seen", batch_size=4, when=pj.min_size(4))},
            interaction=pj.Interaction(pj.Agent(act), cart.environment()),
        ),
        interactions=4,
    )
    assert [entry[1] for entry in cart.log if entry[0] == "drive"] == [1.0, 1.0, 1.0, 0.0]
    [(_, metrics)] = result.metrics
    assert float(metrics["reward"]) == (1 + 2 + 3 + 3) / 4
    assert float(metrics["loss"]) == pytest.approx((1 + 0 + 1 + 4) / 4)


def test_a_live_run_resets_once_and_closes_once() -> None:
    cart = Cart()
    agent = pj.Agent(lambda params, carry, observation, key: (carry, {"wheels": params["v"], "horn": params["v"]}, {}))
    interaction = pj.Interaction(agent, cart.environment(), interval_seconds=0.01)
    has_acted = threading.Event()
    system = pj.System({"v": pj.Model(jnp.float32(1))}, interaction=interaction)
    with pj.launch(system, on_interaction=lambda report: has_acted.set()):
        assert has_acted.wait(timeout=60)
    kinds = [entry if entry == "close" else entry[0] for entry in cart.log]
    assert (kinds[0], kinds[1], kinds[-1]) == ("reset", "drive", "close")
    assert (kinds.count("reset"), kinds.count("close")) == (1, 1)


def test_each_part_has_a_seed_of_its_own_that_its_neighbors_do_not_change() -> None:
    seeds: dict[str, list[int]] = {"left": [], "right": []}
    left, right = still("left", reset=seeds["left"].append), still("right", reset=seeds["right"].append)
    for sensors, seed in ((left | right, 0), (right, 0), (left | right, 1)):
        ModularEnvironment(sensors, {}).reset(seed)
    assert len(set(seeds["left"] + seeds["right"])) == 4
    assert seeds["right"][0] == seeds["right"][1]
    assert min(seeds["left"] + seeds["right"]) >= 0


@pytest.mark.parametrize("action", [{"wheels": 1.0}, {"wheels": 1.0, "horn": 0.0, "wing": 0.0}, np.zeros(2)])
def test_an_action_with_other_parts_moves_nothing(action: Any) -> None:
    cart = Cart()
    with pytest.raises(InvalidValueError, match=r"action is .*expected a dict with a value for each of \['horn', 'whe"):
        cart.environment().affect(action)
    assert cart.log == []


def test_all_parts_are_closed_also_when_one_fails() -> None:
    closed: list[str] = []

    def fail() -> None:
        closed.append("second")
        raise OSError("the port is gone")

    first, third = (
        Actuator(closed.append, 0.0, close=lambda name=name: closed.append(name)) for name in ("1st", "3rd")
    )
    environment = ModularEnvironment(still(), {"a": first, "b": Actuator(closed.append, 0.0, close=fail), "c": third})
    with pytest.raises(OSError, match="the port is gone"):
        environment.close()
    assert closed == ["3rd", "second", "1st"]


def test_mapped_parts_keep_what_they_are_made_of() -> None:
    cart = Cart()
    camera = Sensor(cart.look, cart.image, cart.reset, cart.close)
    bright = map_sensor(lambda image: image.astype(np.float32) / 255, camera)
    assert bright.read().tolist() == [1, 0, 0, 0, 0]
    assert trees.describe_leaf(bright.spec) == "float32[5]"
    assert (bright.reset, bright.close) == (cart.reset, cart.close)
    wheels = map_actuator(lambda way: 2 * np.float32(way) - 1, Actuator(cart.drive, np.float32(0)), spec=np.int32(0))
    wheels.operate(np.int32(0))
    assert cart.log == [("drive", -1.0)]
    assert trees.describe_leaf(wheels.spec) == "int32[]"


def test_a_mapped_sensor_may_say_itself_what_it_reads() -> None:
    def first_of(values: Any) -> Any:
        assert values.any(), "zeros would divide by zero"
        return values / values.sum()

    sensor = map_sensor(first_of, Sensor(lambda: np.ones(2), np.zeros(2)), spec=np.zeros(2, np.float32))
    assert sensor.read().tolist() == [0.5, 0.5]
    assert trees.describe_leaf(sensor.spec) == "float32[2]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, {}), r"sensors\) is {}, expected at least one sensor"),
        (({"camera": Cart()}, {}), r"sensors\)\['camera'\] is <.*Cart .*>, expected a Sensor\(device.read, spec\)"),
        ((still(), still("arm")), r"actuators\)\['arm'\] is Sensor.*expected an Actuator\(device.operate, spec\)"),
        ((still(), {}, still("action")), r"feedback\) is \['action'\], expected other names"),
    ],
)
def test_what_is_no_environment_is_refused_when_built(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        ModularEnvironment(*arguments)
