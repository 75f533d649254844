"""`python -m tests.chaos`: let things go wrong, and print one table of what was tried and what was lost."""

from __future__ import annotations

import argparse
import datetime
import logging
import sys
import time

from tests.chaos.rows import Row, table
from tests.chaos.scenarios import PAGE, SCENARIOS, run_scenario, write_page


def main() -> int:
    """Run the named scenarios, and return 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--long", action="store_true", help="hundreds of tries and a soak, about an hour in all")
    parser.add_argument("--seed", type=int, default=0, help="of all chance (%(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the soak lasts (%(default)s)")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{PAGE.name}")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(SCENARIOS)):
        parser.error(f"no scenario is named {unknown[0]!r}; known: {', '.join(SCENARIOS)}")
    logging.getLogger("pamiq_jax").setLevel(logging.CRITICAL)  # failures are what is wanted here
    started, rows = time.monotonic(), list[Row]()
    for name in arguments.names or SCENARIOS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += run_scenario(name, seed=arguments.seed, is_long=arguments.long, minutes=arguments.minutes)
    print(table(rows))
    if arguments.write:
        facts = {
            "seed": str(arguments.seed),
            "form": "long" if arguments.long else "short",
            "minutes": f"{(time.monotonic() - started) / 60:.0f}",
        }
        write_page(rows, facts, today=datetime.datetime.now().astimezone().date())
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
