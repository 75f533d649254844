"""`pamiq-jax doctor`: what this process sees of its machine, and what would make a system faster. It sets nothing."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib.version

from pamiq_jax.runtime.program_cache import default_directory

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_ENVIRONMENT = ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHON_GIL")
_SLOW_SETTINGS = {
    "jax_disable_jit": "nothing is compiled: unset JAX_DISABLE_JIT",
    "jax_debug_nans": "each program is waited for and looked through: unset JAX_DEBUG_NANS and use "
    "pamiq_jax.trainer.guard, which skips updates that are not finite",
    "jax_debug_infs": "each program is waited for and looked through: unset JAX_DEBUG_INFS",
    "jax_check_tracer_leaks": "tracing is slow and nothing traced is kept: unset JAX_CHECK_TRACER_LEAKS",
}


class Seen(NamedTuple):
    """What a process sees of its machine.

    Attributes:
        versions: of Python, jax and jaxlib, by name.
        platform: of the default device: "cpu", "gpu", "tpu".
        devices: each device's kind.
        cores: the cores of the machine.
        allowed_cores: those that this process may run on.
        quota_cores: how many cores' time its control group may use; None for no limit.
        load: programs that wanted a core, the mean of the last minute; None where it is not known.
        has_nvidia: whether there is the driver of an NVIDIA GPU.
        cache_directory: of JAX's compilation cache; None if there is none.
        cache_least_seconds: programs that compile faster are not kept there.
        is_cache_enabled: whether anything is kept at all.
        environment: variables that decide over threads, flags and memory, where they are set.
        slow_settings: the settings of JAX that are on and slow everything down.
        has_gil: whether this interpreter runs one thread at a time.
    """

    versions: Mapping[str, str]
    platform: str
    devices: tuple[str, ...]
    cores: int
    allowed_cores: int
    quota_cores: float | None
    load: float | None
    has_nvidia: bool
    cache_directory: str | None
    cache_least_seconds: float
    is_cache_enabled: bool
    environment: Mapping[str, str]
    slow_settings: tuple[str, ...]
    has_gil: bool

    @property
    def usable_cores(self) -> float:
        """How many cores' time there is for this process."""
        return self.allowed_cores if self.quota_cores is None else min(self.allowed_cores, self.quota_cores)


def quota_cores(root: Path = _CONTROL_GROUPS, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return how many cores' time the control group of this process may use; None for no limit.

    Args:
        root: where control groups are mounted, of version 2 or 1.
        own: the file that says which group this process is in.

    Example:
        >>> quota_cores(Path("nowhere"), Path("nowhere")) is None
        True
    """
    lines = own.read_text().splitlines() if own.exists() else []
    groups = [line.split(":", 2)[2].strip("/") for line in lines if line.count(":") >= 2]
    quotas = [_quota(root / group) for group in ("", *groups)]
    quotas += [_quota(root / "cpu" / group) for group in ("", *groups)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    """Return the quota of a group, from its file of version 2, else from those of version 1."""
    try:
        if (group / "cpu.max").exists():
            time, period = (group / "cpu.max").read_text().split()[:2]
        else:
            time, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if time in ("max", "-1") else float(time) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def look() -> Seen:
    """Return what this process sees. It starts JAX's backend, as any program that uses JAX does.

    Example:
        >>> look().platform == jax.default_backend()
        True
    """
    settings: Any = jax.config
    devices = jax.devices()
    versions = {"Python": sys.version.split()[0], "jax": jax.__version__, "jaxlib": jaxlib.version.__version__}
    cores = os.cpu_count() or 1
    return Seen(
        versions=versions,
        platform=devices[0].platform,
        devices=tuple(device.device_kind for device in devices),
        cores=cores,
        allowed_cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else cores,
        quota_cores=quota_cores(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        has_nvidia=Path("/proc/driver/nvidia/version").exists(),
        cache_directory=settings.jax_compilation_cache_dir,
        is_cache_enabled=bool(settings.jax_enable_compilation_cache),
        cache_least_seconds=float(settings.jax_persistent_cache_min_compile_time_secs),
        environment={name: os.environ[name] for name in (*_ENVIRONMENT, *_THREAD_LIMITS) if name in os.environ},
        slow_settings=tuple(name for name in _SLOW_SETTINGS if getattr(settings, name, False)),
        has_gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
    )


def advice(seen: Seen) -> list[str]:
    """Return what to change, the most important first; empty if nothing is known to be wrong.

    Args:
        seen: as `look` returns it.

    Example:
        >>> advice(look()._replace(slow_settings=("jax_disable_jit",)))[0]
        'jax_disable_jit is on, and nothing is compiled: unset JAX_DISABLE_JIT'
    """
    return [
        *(f"{name} is on, and {_SLOW_SETTINGS[name]}" for name in seen.slow_settings),
        *_device_advice(seen),
        *_core_advice(seen),
        *_cache_advice(seen),
    ]


def _device_advice(seen: Seen) -> list[str]:
    lines: list[str] = []
    if seen.has_nvidia and seen.platform == "cpu":
        lines.append(
            "There is an NVIDIA driver, and JAX computes on the CPU: install its CUDA packages "
            "(pip install 'jax[cuda]'), and look whether JAX_PLATFORMS is set"
        )
    if seen.platform != "cpu":
        lines.append(
            f"Acting waits for the training program that is under way on the {seen.platform}: keep chunks short "
            "(Schedule(steps_per_chunk)), or act on the CPU: Model(device=jax.devices('cpu')[0])"
        )
    if "xla_force_host_platform_device_count" in seen.environment.get("XLA_FLAGS", ""):
        lines.append(
            f"XLA_FLAGS makes {len(seen.devices)} devices of one CPU, which share its cores: that is for tests of "
            "several devices; unset it to run"
        )
    return lines


def _core_advice(seen: Seen) -> list[str]:
    lines: list[str] = []
    if seen.usable_cores < 2:
        lines.append(
            f"There is {_number(seen.usable_cores)} core for two threads: acting waits whenever training computes; "
            "give it two, or a fallback and a deadline to the interaction"
        )
    if seen.quota_cores is not None and seen.quota_cores < seen.allowed_cores:
        last = max(1, math.floor(seen.quota_cores)) - 1
        lines.append(
            f"The control group allows the time of {_number(seen.quota_cores)} cores, and XLA starts threads for "
            f"{seen.allowed_cores}: all are stopped when the time is used up. Start it with: taskset -c 0-{last}"
        )
    if seen.load is not None and seen.load > seen.cores:
        lines.append(
            f"{_number(seen.load)} programs want one of {seen.cores} cores: what is measured now is mostly waiting"
        )
    return lines


def _cache_advice(seen: Seen) -> list[str]:
    if seen.is_cache_enabled and seen.cache_directory is not None and seen.cache_least_seconds > 0:
        return [
            f"The compilation cache keeps nothing that compiles in less than {_number(seen.cache_least_seconds)} s, "
            "which most programs of a small system do: JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0"
        ]
    return []


def _number(value: float) -> str:
    return f"{value:.3g}"


def describe(seen: Seen) -> str:
    """Return what was seen, and what to change, in lines.

    Args:
        seen: as `look` returns it.

    Example:
        >>> print(describe(look()._replace(cores=2, allowed_cores=2, quota_cores=1.5)))
        versions: Python ..., jax ..., jaxlib ...
        devices: ...
        cores: 2, of which this process may use 2, for the time of 1.5 (control group)
        ...
    """
    kinds = {kind: seen.devices.count(kind) for kind in seen.devices}
    cores = f"{seen.cores}, of which this process may use {seen.allowed_cores}"
    if seen.quota_cores is not None:
        cores += f", for the time of {_number(seen.quota_cores)} (control group)"
    cache = f"{seen.cache_directory}, from {_number(seen.cache_least_seconds)} s of compiling on"
    if not seen.is_cache_enabled:
        cache = "off, by jax_enable_compilation_cache; nothing is kept"
    elif seen.cache_directory is None:
        cache = f"none is set, so `launch` keeps programs in {default_directory()}"
    variables = [f"{name}={value}" for name, value in seen.environment.items()]
    lines = [
        "versions: " + ", ".join(f"{name} {version}" for name, version in seen.versions.items()),
        f"devices: {', '.join(f'{count} x {kind}' for kind, count in kinds.items())} ({seen.platform})",
        f"cores: {cores}",
        f"load: {'unknown' if seen.load is None else _number(seen.load)}",
        f"threads: {'one at a time in Python (GIL)' if seen.has_gil else 'Python without the GIL'}",
        f"flags and limits: {', '.join(variables) or 'none set'}",
        f"compilation cache: {cache}",
    ]
    found = advice(seen)
    lines += ["", "to change:" if found else "nothing to change", *(f"- {line}" for line in found)]
    return "\n".join(lines)
