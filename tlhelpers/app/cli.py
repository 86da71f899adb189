"""The command `tlhelpers`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tlhelpers import cache as disk
from tlhelpers.app import audit_command, cache_folder
from tlhelpers.app import doctor as doctor_checks
from tlhelpers.extras import extra

with extra("app"):
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

if TYPE_CHECKING:
    from tlhelpers.app.report import Outcome

__all__ = ["app"]

app = typer.Typer(
    help='Helpers of the course "Transfer Learning with Keras, hands on".',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cache = typer.Typer(help="What was computed once and is kept on disk.", no_args_is_help=True)
app.add_typer(cache, name="cache")
app.command()(audit_command.audit)

_MARKS = {"ok": "[green]ok[/]", "note": "-", "gap": "[yellow]gap[/]", "missing": "[red]missing[/]"}


@app.callback()
def main() -> None:
    """Helpers of the course "Transfer Learning with Keras, hands on"."""


@app.command()
def doctor(
    fast: Annotated[
        bool, typer.Option("--fast", help="Leave out what takes seconds: the GPU and the network.")
    ] = False,
) -> None:
    """Show what this machine has and lacks for the course, and what to do about each gap.

    The exit code is 1 when something is missing that even the profile `smoke` needs, else 0.
    """
    console = Console()
    findings = doctor_checks.examine(fast=fast)
    for area in dict.fromkeys(f.area for f in findings):
        table = Table(title=area, title_justify="left", title_style="bold", show_header=False)
        table.add_column("what", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("detail", overflow="fold")
        for f in findings:
            if f.area == area:
                table.add_row(escape(f.item), _MARKS[f.status], escape(f.detail))
        console.print(table)
    to_do = [f for f in findings if f.remedy]
    if to_do:
        console.print("[bold]What to do[/]")
        for f in to_do:
            # Unwrapped, so that a command can be copied in one piece.
            console.print(f"  {escape(f.item)}: {escape(f.remedy)}", soft_wrap=True, highlight=False)
    missing = [f.item for f in findings if f.status == doctor_checks.MISSING]
    if missing:
        console.print(
            f"[red]Not ready[/]: the profile smoke cannot run without {escape(', '.join(missing))}."
        )
        raise typer.Exit(1)
    gaps = sum(f.status == doctor_checks.GAP for f in findings)
    console.print(f"[green]Ready[/]: the profile smoke can run here. Gaps: {gaps}.")


@app.command()
def run(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder with one folder of images a class, or with train/, val/ and test/ that hold such.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to make for the report and the model, or a file that ends in .html. "
            "Without it, FOLDER_report in the current folder.",
        ),
    ] = None,
    image_size: Annotated[
        int, typer.Option(min=32, help="Side in pixels at which the network sees an image.")
    ] = 224,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning; 0 leaves it out.")] = 4,
    mirror: Annotated[
        bool, typer.Option(help="Whether a mirrored image is valid. Not so for letters, digits or signs.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of the training.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier report.")] = False,
) -> None:
    """Train a classifier on a folder of your own images, test it, and write a report and the model.

    The report is one HTML file that can be sent around. The model is written as .keras and as .onnx.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    console, errors = Console(), Console(stderr=True)
    out = out or Path(f"{folder.resolve().name}_report")
    try:
        with console.status("Starting"):
            from tlhelpers.app import run as pipeline
            from tlhelpers.backbones import WeightsUnavailableError

        known = (ValueError, OSError, MemoryError, WeightsUnavailableError)
    except ImportError as error:
        errors.print(f"[red]Not done[/]: {escape(str(error))}. Or ask: tlhelpers doctor", soft_wrap=True)
        raise typer.Exit(1) from None
    try:
        outcome = pipeline.from_folder(
            folder,
            out,
            image_size=image_size,
            seed=seed,
            epochs=epochs,
            mirror=mirror,
            overwrite=overwrite,
            step=_steps(console),
        )
    except known as error:
        what = str(error) or f"there is not enough memory ({type(error).__name__})"
        errors.print(f"[red]Not done[/]: {escape(what)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    _summary(console, outcome, out)


def _steps(console: Console) -> Callable:
    """Returns what shows each step while it goes on, and its time when it is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    @contextmanager
    def step(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        columns = [SpinnerColumn(finished_text="[green]✓[/]"), TextColumn("{task.description}")]
        columns += [BarColumn(20), MofNCompleteColumn()] if total else []
        with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, completed=done)
            done = bar.tasks[0].completed or 1
            bar.update(task, total=done, completed=done)

    return step


def _summary(console: Console, outcome: Outcome, out: Path) -> None:
    low, high = outcome.interval
    table = Table(title="validation accuracy", title_justify="left", title_style="bold", show_header=False)
    for c in outcome.candidates:
        kept = "[green]kept[/]" if c.name == outcome.chosen else ""
        table.add_row(c.name, f"{c.val_accuracy:.1%}", f"{c.seconds:.0f} s", kept)
    console.print(table)
    for note in outcome.check.notes():
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)
    console.print(
        f"[bold]{outcome.accuracy:.1%}[/] of {len(outcome.y_test):,} test images named rightly "
        f"(95 % interval {low:.1%} to {high:.1%}), in {outcome.seconds:.0f} s.",
        highlight=False,
    )
    where = out if out.suffix.lower() == ".html" else out / "report.html"
    console.print(f"Report: {escape(str(where))}", soft_wrap=True, highlight=False)
    console.print(
        f"With it: {escape(', '.join(n for n in outcome.sizes if n != where.name))}", highlight=False
    )


@cache.command("list")
def cache_list() -> None:
    """List what is in the cache, the largest first."""
    console = Console()
    found = cache_folder.entries()
    table = Table("computed on", "size", "what", "key")
    for entry in found:
        table.add_row(entry.made, _megabytes(entry.n_bytes), escape(entry.about), entry.key[:10])
    if found:
        console.print(table)
    console.print(
        f"{len(found)} arrays, {_megabytes(sum(e.n_bytes for e in found))}, in {escape(str(disk.folder()))}",
        soft_wrap=True,
    )


@cache.command("verify")
def cache_verify() -> None:
    """Read everything in the cache and name what is damaged. The exit code is 1 when something is."""
    console = Console()
    count = len(cache_folder.entries())
    problems = cache_folder.verify()
    for problem in problems:
        console.print(escape(problem), soft_wrap=True)
    for parts in cache_folder.stopped():
        console.print(escape(f"{parts.name}: a run that was stopped; the next goes on there"), soft_wrap=True)
    console.print(
        f"{count} arrays read, {len(problems)} problems. A damaged array is computed anew when it is needed."
    )
    if problems:
        raise typer.Exit(1)


@cache.command("clear")
def cache_clear() -> None:
    """Remove all computed features and exported graphs. Data sets and weights stay."""
    Console().print(f"{_megabytes(cache_folder.clear())} freed.")


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


if __name__ == "__main__":
    app()
