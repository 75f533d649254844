"""The demo in a terminal: one panel that is drawn anew several times a second."""

from __future__ import annotations

from itertools import groupby

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pamiq_jax.demo import braille
from pamiq_jax.demo.cartpole import SOLVED_RETURN
from pamiq_jax.demo.frame import Frame, training_reason
from pamiq_jax.lifecycle import SystemPhase

_MAX_WIDTH = 120
_TOP_RETURN = 500.0
_LABEL, _FAINT, _CURVE, _EPISODE = "bold", "bright_black", "bold green", "cyan"
_PHASE_STYLES = {SystemPhase.RUNNING: "green", SystemPhase.FAILED: "red", SystemPhase.STOPPED: _FAINT}


def panel(frame: Frame, width: int) -> Panel:
    """Return everything about one moment, as something that rich can print.

    Args:
        frame: the moment.
        width: of the terminal, in characters; from 80 on all fits.
    """
    width = min(width, _MAX_WIDTH)
    inner = width - 4
    parts: list[RenderableType] = [_machines(frame), Text(), _curve(frame, inner), Text(), _numbers(frame, inner)]
    parts += [Text(f"error: {error}", style="red") for error in frame.status.errors]
    return Panel(
        Group(*parts),
        title="[bold]CartPole-v1[/bold]: an agent that learns while it acts",
        title_align="left",
        subtitle=f"{frame.seconds:.1f} of {frame.limit_seconds:g} s, seed {frame.seed}",
        subtitle_align="right",
        border_style=_FAINT,
        width=width,
    )


def _machines(frame: Frame) -> Table:
    """Return a row for each machine: what phase it is in, and why."""
    phase, observed = frame.status.phase, frame.observed
    if observed.ticks:
        acts = f"with version {observed.version}, {observed.staleness_seconds:.2f} s old"
        agent = ("acting", "green", acts) if phase is SystemPhase.RUNNING else (str(phase), _FAINT, acts)
    else:
        agent = ("waiting", "yellow", "until everything is compiled")
    trainer = "waiting" if frame.trainer is None else str(frame.trainer.phase).replace("_", " ")
    table = Table.grid(padding=(0, 2))
    table.add_column(width=7)
    table.add_column(width=13)
    table.add_column(no_wrap=True)
    rows = (
        ("system", str(phase), _PHASE_STYLES.get(phase, "yellow"), _system_text(frame)),
        ("agent", *agent),
        ("trainer", trainer, "green" if frame.is_training else "yellow", training_reason(frame)),
    )
    for name, state, style, text in rows:
        table.add_row(Text(name, style=_LABEL), Text(f"● {state}", style=style), Text(text, style=_FAINT))
    return table


def _system_text(frame: Frame) -> str:
    started = frame.observed.first_action_seconds
    if started is None:
        return "inference and training, before the first action"
    return f"first action after {started:.1f} s"


def _curve(frame: Frame, width: int) -> Text:
    """Return the plot of all episode returns, and of their mean as a line, from the first action on."""
    rows = 10 if width >= 110 else 8
    start = frame.observed.first_action_seconds or 0.0
    right = max(frame.seconds - start, 5.0)
    axes = braille.Axes(columns=width - 5, rows=rows, right=right, top=_TOP_RETURN)
    layers = (
        (braille.line(axes, [(point.seconds - start, point.mean_return) for point in frame.curve]), _CURVE),
        (braille.scatter(axes, [(point.seconds - start, point.episode_return) for point in frame.curve]), _EPISODE),
        (braille.line(axes, [(0.0, SOLVED_RETURN), (right, SOLVED_RETURN)]), _FAINT),
    )
    labels = {0: f"{_TOP_RETURN:.0f}", rows // 2: f"{_TOP_RETURN / 2:.0f}", rows - 1: "0"}
    text = Text()
    for row in range(rows):
        text.append(f"{labels.get(row, ''):>3} │", style=_FAINT)
        _append_row(text, [(grid[row], style) for grid, style in layers])
    text.append("    ╰" + "─" * axes.columns + "\n", style=_FAINT)
    left, end = f"{start:.0f} s", f"{start + right:.0f} s"
    caption = f"mean return of the last 100 episodes; {SOLVED_RETURN:.0f} solves it"
    text.append(f"     {left}{caption.center(axes.columns - len(left) - len(end))}{end}", style=_FAINT)
    return text


def _append_row(text: Text, layers: list[tuple[list[int], str]]) -> None:
    """Append a row in which each character shows the first layer that has a dot there: it has one color only."""
    cells: list[tuple[int, str]] = []
    for column in range(len(layers[0][0])):
        cells.append(next(((dots[column], style) for dots, style in layers if dots[column]), (0, _FAINT)))
    for style, group in groupby(cells, key=lambda cell: cell[1]):
        text.append(braille.characters([[dots for dots, _ in group]])[0], style=style)
    text.append("\n")


def _numbers(frame: Frame, width: int) -> Table:
    """Return the counters and rates, in as many columns as there is room for."""
    columns = 3 if width >= 110 else 2
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in range(columns):
        table.add_column(width=11)
        table.add_column(ratio=1, no_wrap=True)
    cells = _cells(frame)
    for start in range(0, len(cells), columns):
        row: list[Text] = []
        for name, value in cells[start : start + columns]:
            row += [Text(name, style=_LABEL), Text(value)]
        table.add_row(*row)
    return table


def _cells(frame: Frame) -> list[tuple[str, str]]:
    status, observed = frame.status, frame.observed
    statistics, inference = observed.statistics, status.inference
    if not observed.ticks:
        names = ("return", "environment", "inference", "snapshot", "training", "records")
        return [(name, "-") for name in names]
    staleness = [inference.staleness.percentile(percent) for percent in (50, 99)]
    latency = [inference.latency.percentile(percent) * 1000 for percent in (50, 99)]
    steps = 0 if frame.trainer is None else frame.trainer.steps
    return [
        ("return", f"{_number(statistics.mean)}, best {_number(statistics.best_mean)}"),
        ("environment", f"{frame.environment_rate:,.0f} steps/s, {observed.environment_steps:,}"),
        ("inference", f"p50 {latency[0]:.2f}, p99 {latency[1]:.2f} ms"),
        ("staleness", f"p50 {staleness[0]:.3f}, p99 {staleness[1]:.3f} s"),
        ("training", f"{frame.train_rate:.1f} steps/s, {steps:,}"),
        ("records", f"{frame.dropped} dropped, {observed.torn_reads} torn"),
    ]


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.1f}"
