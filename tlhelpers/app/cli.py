"""The command `tlhelpers`."""

from __future__ import annotations

from typing import Annotated

from tlhelpers import cache as disk
from tlhelpers.app import audit_command, cache_folder, commands
from tlhelpers.app import doctor as doctor_checks
from tlhelpers.extras import extra
from tlhelpers.scale import command as scale_command

with extra("app"):
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

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


for command in (commands.run, commands.predict, commands.export, scale_command.extract):
    app.command()(command)


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
    left, n_bytes = cache_folder.left_behind()
    if left:
        said = "files that killed runs left behind; they go by themselves after a day, or with cache clear"
        console.print(f"{len(left)} {said} ({_megabytes(n_bytes)})", soft_wrap=True)


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
