"""The command `pamiq-jax`, which is also `python -m pamiq_jax`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from pamiq_jax.checkpoint.inspection import describe_soundness, describe_states
from pamiq_jax.doctor import describe, look
from pamiq_jax.errors import PamiqError

DEMO_PACKAGES = ("gymnasium", "matplotlib", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: by default those of the process.

    Example:
        >>> main(["--help"])
        Traceback (most recent call last):
        ...
        SystemExit: 0
    """
    options = _parser().parse_args(arguments)
    return options.run(options)


def _demo(options: argparse.Namespace) -> int:
    missing = [name for name in DEMO_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"the demo needs {', '.join(missing)}: pip install 'pamiq-jax[demo]'", file=sys.stderr)
        return 1
    # Loaded by name and late: `--help` needs none of the extra packages, and is there at once.
    session = importlib.import_module("pamiq_jax.demo.session")
    return session.run_cartpole(
        seed=options.seed, seconds=options.seconds, plain=options.plain, directory=options.directory
    )


def _inspect(options: argparse.Namespace) -> int:
    try:
        print(describe_states(options.directory, state=options.state, all_leaves=options.all))
    except (PamiqError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _verify(options: argparse.Namespace) -> int:
    try:
        is_sound, text = describe_soundness(options.directory)
    except (PamiqError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(text)
    return 0 if is_sound else 1


def _doctor(options: argparse.Namespace) -> int:
    print(describe(look()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pamiq-jax", description="Agents that learn while they act.")
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="run a complete example")
    examples = demo.add_subparsers(required=True, metavar="example")
    cartpole = examples.add_parser(
        "cartpole",
        help="an agent learns to balance poles while it acts",
        description="An agent learns Gymnasium's CartPole-v1 while it acts. Ends when it is solved, when the time is "
        "up or with Ctrl-C (exit code 0), or when something fails (1); summary.json is written in each case.",
    )
    cartpole.add_argument("--seed", type=_seed, default=0, help="of everything random (default: 0)")
    cartpole.add_argument("--seconds", type=_seconds, default=60.0, help="at most so long, from launch (default: 60)")
    cartpole.add_argument("--plain", action="store_true", help="print a line every second instead of a live view")
    cartpole.add_argument("--directory", type=Path, help="for the files (default: a new one under runs/cartpole)")
    cartpole.set_defaults(run=_demo)
    inspect = commands.add_parser("inspect", help="show which states a directory holds, and what is in one of them")
    inspect.add_argument("directory", type=Path, help="that states were saved into")
    inspect.add_argument(
        "--state", type=int, metavar="N", help="the number of the one to look into (default: the newest)"
    )
    inspect.add_argument("--all", action="store_true", help="a line for every leaf, however many there are")
    inspect.set_defaults(run=_inspect)
    verify = commands.add_parser(
        "verify",
        help="check every byte of the states in a directory",
        description="Reads all states of a directory and checks every checksum. The exit code is 1 if something is "
        "damaged, or if there is no state.",
    )
    verify.add_argument("directory", type=Path, help="that states were saved into")
    verify.set_defaults(run=_verify)
    doctor = commands.add_parser(
        "doctor",
        help="show what JAX sees here, and what would make a system faster",
        description="Prints devices, cores and their limits, flags and the compilation cache, and what to change. "
        "It sets nothing.",
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to {2**31 - 1}")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
