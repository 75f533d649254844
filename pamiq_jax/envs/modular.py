"""An environment put together from sensors and actuators: a robot, a stream, several devices at once."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import jax
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.runtime import EnvironmentSpec
from pamiq_jax.types import PyTree


class ResetFn(Protocol):
    """Starts a part anew."""

    def __call__(self, seed: int, /) -> object:
        """Take the seed of the part's own randomness; what is returned is ignored."""
        ...


def _start_nothing(seed: int, /) -> None:
    pass


def _release_nothing() -> None:
    pass


class Sensor(NamedTuple):
    """Something that is read, as functions. A device with methods is one too: `Sensor(camera.read, spec)`.

    Attributes:
        read: `() -> value`, called once per tick. It may return the same array again and again.
        spec: example of a value: arrays, numbers or `jax.ShapeDtypeStruct`s.
        reset: `(seed)`, called when a run starts, before the first `read`.
        close: called once, at the end of a launched run.

    Example:
        >>> thermometer = Sensor(lambda: 21.5, spec=np.float32(0))
        >>> thermometer.read()
        21.5
    """

    read: Callable[[], PyTree]
    spec: PyTree
    reset: ResetFn = _start_nothing
    close: Callable[[], object] = _release_nothing


class Actuator(NamedTuple):
    """Something that acts, as functions.

    Attributes:
        operate: `(value)`, called once per tick with numpy arrays; what it returns is ignored.
        spec: example of a value: arrays, numbers or `jax.ShapeDtypeStruct`s.
        reset: `(seed)`, called when a run starts, before the first `operate`.
        close: called once, at the end of a launched run.

    Example:
        >>> positions = []
        >>> Actuator(positions.append, spec=np.zeros(2, np.float32)).operate(np.ones(2, np.float32))
        >>> positions
        [array([1., 1.], dtype=float32)]
    """

    operate: Callable[[PyTree], object]
    spec: PyTree
    reset: ResetFn = _start_nothing
    close: Callable[[], object] = _release_nothing


def map_sensor(function: Callable[[PyTree], PyTree], sensor: Sensor, spec: PyTree = None) -> Sensor:
    """Return a sensor that reads what a function makes of another one's values.

    Args:
        function: `(value) -> value`; plain Python, so a memory of its own is allowed.
        sensor: the one to read from.
        spec: example of the new values; by default what the function makes of zeros.

    Example:
        >>> camera = Sensor(lambda: np.full((2, 2), 255, np.uint8), spec=np.zeros((2, 2), np.uint8))
        >>> bright = map_sensor(lambda image: np.float32(image.mean() / 255), camera)
        >>> bright.read(), bright.spec
        (np.float32(1.0), ShapeDtypeStruct(shape=(), dtype=float32))
    """
    if spec is None:
        spec = function(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), trees.spec_of(sensor.spec)))
    return sensor._replace(read=lambda: function(sensor.read()), spec=trees.spec_of(spec))


def map_actuator(function: Callable[[PyTree], PyTree], actuator: Actuator, spec: PyTree) -> Actuator:
    """Return an actuator that passes what a function makes of its values on to another one.

    Args:
        function: `(value) -> value for the other actuator`.
        actuator: the one that acts.
        spec: example of the values that the function takes.

    Example:
        >>> angles = []
        >>> servo = Actuator(angles.append, spec=np.float32(0))
        >>> by_fraction = map_actuator(lambda fraction: np.clip(fraction, 0, 1) * 180, servo, spec=np.float32(0))
        >>> by_fraction.operate(np.float32(0.5))
        >>> print(*angles)
        90.0
    """
    return actuator._replace(operate=lambda value: actuator.operate(function(value)), spec=trees.spec_of(spec))


class ModularEnvironment:
    """An environment of named parts. The observation, the action and the feedback are dicts by these names.

    Parts are reset, read and operated in the order given, and closed in the reverse of it. Each part's reset is given a
    seed of its own, which depends on the seed of the run and the part's name only: two sensors of one
    kind do not make the same noise. Where several parts share a device, let one of them reset and close it.

    Args:
        sensors: what is observed, by name.
        actuators: what acts, by name.
        feedback: what is read once all actuators have acted, by name: reward, terminated, or nothing.

    Raises:
        InvalidValueError: there is nothing to observe, a part is something else, or feedback takes
            a name that a record needs itself.

    Example:
        >>> position = np.zeros(2, np.float32)
        >>> environment = ModularEnvironment(
        ...     sensors={"position": Sensor(lambda: position, position)},
        ...     actuators={"wheels": Actuator(lambda speed: np.add(position, speed, out=position), position)},
        ...     feedback={"reward": Sensor(lambda: -np.linalg.norm(position), np.float32(0))},
        ... )
        >>> environment.reset(seed=0)
        >>> feedback = environment.affect({"wheels": np.array([3, 4], np.float32)})
        >>> environment.observe(), feedback["reward"].item()
        ({'position': array([3., 4.], dtype=float32)}, -5.0)
        >>> environment.close()
    """

    def __init__(
        self,
        sensors: Mapping[str, Sensor],
        actuators: Mapping[str, Actuator],
        feedback: Mapping[str, Sensor] | None = None,
    ) -> None:
        feedback = {} if feedback is None else feedback
        _check_parts("sensors", sensors, Sensor)
        _check_parts("actuators", actuators, Actuator)
        _check_parts("feedback", feedback, Sensor)
        if not sensors:
            raise InvalidValueError("ModularEnvironment(sensors)", {}, "at least one sensor, by name")
        if taken := sorted({"observation", "action"} & set(feedback)):
            raise InvalidValueError("ModularEnvironment(feedback)", taken, "other names: a record has these already")
        self._sensors, self._actuators, self._feedback = dict(sensors), dict(actuators), dict(feedback)
        self._spec = EnvironmentSpec(_specs(sensors), _specs(actuators), _specs(feedback))

    @property
    def spec(self) -> EnvironmentSpec:
        """The forms of observation, action and feedback: dicts by name of the part."""
        return self._spec

    def reset(self, seed: int) -> None:
        """Reset all parts.

        Args:
            seed: from 0; each part's is made of it.
        """
        kinds = {"sensor": self._sensors, "actuator": self._actuators, "feedback": self._feedback}
        for kind, parts in kinds.items():
            for name, part in parts.items():
                part.reset(_part_seed(seed, f"{kind} {name}"))

    def observe(self) -> dict[str, PyTree]:
        """Return what each sensor reads."""
        return {name: sensor.read() for name, sensor in self._sensors.items()}

    def affect(self, action: PyTree) -> dict[str, Any]:
        """Operate each actuator with its part of the action, then read the feedback.

        Args:
            action: a dict with a value for each actuator.

        Raises:
            InvalidValueError: the action lacks a part or has one too many. No actuator was operated.
        """
        actual = sorted(cast(Mapping[str, Any], action)) if isinstance(action, Mapping) else type(action).__name__
        if actual != sorted(self._actuators):
            raise InvalidValueError("action", actual, f"a dict with a value for each of {sorted(self._actuators)}")
        for name, actuator in self._actuators.items():
            actuator.operate(action[name])
        return {name: sensor.read() for name, sensor in self._feedback.items()}

    def close(self) -> None:
        """Close all parts, also when closing one fails; the failure is raised in the end."""
        with contextlib.ExitStack() as stack:
            for parts in (self._sensors, self._actuators, self._feedback):
                for part in parts.values():
                    stack.callback(part.close)


def _check_parts(argument: str, parts: Mapping[str, object], kind: type[Sensor] | type[Actuator]) -> None:
    wanted = "a Sensor(device.read, spec)" if kind is Sensor else "an Actuator(device.operate, spec)"
    for name, part in parts.items():
        if not isinstance(part, kind):
            raise InvalidValueError(f"ModularEnvironment({argument})[{name!r}]", part, wanted)


def _specs(parts: Mapping[str, Sensor] | Mapping[str, Actuator]) -> dict[str, PyTree]:
    return {name: trees.spec_of(part.spec) for name, part in parts.items()}


def _part_seed(seed: int, part: str) -> int:
    # Not `hash`, which differs between two processes for a string.
    return int(np.random.SeedSequence([seed, zlib.crc32(part.encode())]).generate_state(1)[0])
