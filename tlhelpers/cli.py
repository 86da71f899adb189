"""The command `tlhelpers`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tlhelpers import doctor as doctor_checks

__all__ = ["app"]

app = typer.Typer(
    help='Helpers of the course "Transfer Learning with Keras, hands on".',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_MARKS = {"ok": "[green]ok[/]", "note": "-", "gap": "[yellow]gap[/]", "missing": "[red]missing[/]"}


@app.callback()
def main() -> None:
    """Helpers of the course "Transfer Learning with Keras, hands on"."""
    # A callback keeps `tlhelpers doctor` a subcommand while there is only one.


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


if __name__ == "__main__":
    app()
