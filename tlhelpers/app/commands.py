"""The commands `tlhelpers run`, `predict` and `export`: from words on a line to calls, and back to words."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tlhelpers.extras import extra

with extra("app"):
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

if TYPE_CHECKING:
    from tlhelpers.app.model_file import About
    from tlhelpers.app.predict import Named
    from tlhelpers.app.verdict import Outcome

__all__ = ["export", "predict", "run"]

SHOWN = 20  # pictures that `predict` lists on the terminal
_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


_READ = "How the folder is read, where its names leave that open"
_SPLIT = "What is tested apart from what is trained on"
_TRAINING = "Training"


def _said(panel: str, what: str, text: str, *names: str, **more: Any) -> Any:
    """An option: where it stands, what it takes, and what it is for."""
    return typer.Option(*names, rich_help_panel=panel, metavar=what or None, help=text, **more)


def run(
    folder: Annotated[Path, typer.Argument(help="Folder, zip or tar file: one folder of images a class.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make, or report.html [FOLDER_report]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier report.")] = False,
    train: Annotated[list[str] | None, _said(_READ, "DIR", "Inside: class folders to train on.")] = None,
    val: Annotated[list[str] | None, _said(_READ, "DIR", "The same for validation.")] = None,
    test: Annotated[list[str] | None, _said(_READ, "DIR", "The same for the test, or no classes.")] = None,
    classes_from: Annotated[
        str | None, _said(_READ, "N|REGEX", "The class: folder N levels down, or pattern in file names.")
    ] = None,
    labels: Annotated[list[str] | None, _said(_READ, "CSV", "Table of file names and labels.")] = None,
    label_column: Annotated[str | None, _said(_READ, "NAME", "Its column of labels.")] = None,
    skip_small: Annotated[
        bool, _said(_READ, "", "Leave out classes too small or missing in a split.", "--skip-small")
    ] = False,
    copies: Annotated[
        str, _said(_SPLIT, "group|keep|drop", "Look-alikes: on one side, anywhere, or one of them.")
    ] = "group",
    group: Annotated[
        str | None,
        _said(_SPLIT, "REGEX|CSV", "What stays on one side, as of one patient: in paths, or a table."),
    ] = None,
    seed: Annotated[int, _said(_SPLIT, "", "Of the split and of the training.", min=0)] = 0,
    image_size: Annotated[
        int, _said(_TRAINING, "", "Side in pixels that it sees.", "--size", "--image-size", min=32)
    ] = 224,
    time: Annotated[str, _said(_TRAINING, "90s|5m|1h", "Budget: fine-tuning takes what fits.")] = "",
    epochs: Annotated[
        int | None, _said(_TRAINING, "", "Of fine-tuning: 0 for none; default: by the images.", min=0)
    ] = None,
    mirror: Annotated[bool, _said(_TRAINING, "", "A mirrored image is valid: not so of letters.")] = True,
) -> None:
    """Train a classifier on a folder of your own images, test it, and write a report and the model.

    The report is one HTML file that can be sent around. The model is written as .keras and as .onnx.
    """
    console = Console()
    out = out or Path(f"{folder.resolve().name}_report")
    with _clear_words():
        seconds = _seconds(time)
        with console.status("Starting"):
            from tlhelpers import data
            from tlhelpers.app import run as pipeline
            from tlhelpers.backbones import WeightsUnavailableError

        layout = data.Layout(train, val, test, classes_from, labels, label_column, skip_small)
        options: dict[str, Any] = {"image_size": image_size, "seed": seed, "epochs": epochs, "mirror": mirror}
        options |= {"overwrite": overwrite, "copies": copies, "group": group, "step": _steps(console)}
        try:
            outcome = pipeline.from_folder(folder, out, seconds=seconds, layout=layout, **options)
        except WeightsUnavailableError as error:
            raise OSError(str(error)) from error
        _summary(console, outcome, out)


def predict(
    model: Annotated[Path, typer.Argument(help="model.onnx or model.keras of `tlhelpers run`.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, folders, zip or tar files.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write, one row a picture.")] = None,
    ground_truth: Annotated[bool, typer.Option("--ground-truth", help="Compare with folders.")] = False,
    unsure_below: Annotated[float | None, typer.Option(min=0, max=1, help="Below, it is unsure.")] = None,
) -> None:
    """Name pictures by a finished model, decoded exactly as the report did.

    The exit code is 1 when not a single picture could be read.
    """
    console = Console()
    with _clear_words():
        from dataclasses import replace

        from tlhelpers.app import predict as pipeline

        with console.status("Naming the pictures") as status:
            found, about = pipeline.from_files(
                model,
                pictures,
                lambda done, total: status.update(f"Naming the pictures: {done:,} of {total:,}"),
            )
        if unsure_below is not None:
            about = replace(about, unsure_below=unsure_below)
        if out is not None:
            pipeline.write_csv(found, about, out)
        _named(console, found, about, out, ground_truth)
    if not found.files:
        raise typer.Exit(1)


def export(
    model: Annotated[Path, typer.Argument(help="model.keras of `tlhelpers run`.")],
    format: Annotated[str, typer.Option(help="litert, openvino, onnx or tf_saved_model.")] = "litert",
    out: Annotated[Path | None, typer.Option(help="File to write; without it, beside the model.")] = None,
) -> None:
    """Write a model in another format, by Keras' own exporter, where the packages for it are installed."""
    console = Console()
    with _clear_words():
        with console.status("Exporting the model"):
            from tlhelpers.app import model_file

            path = model_file.convert(model.expanduser(), format, out)
        console.print(f"Written: {escape(str(path))}", soft_wrap=True, highlight=False)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip().lower())
    if text and (not found or not float(found[1])):
        raise ValueError(f"--time {text}: say it as 90s, 5m or 1h.")
    return float(found[1]) * _UNITS[found[2]] if found else math.inf


@contextmanager
def _clear_words() -> Iterator[None]:
    """Errors that a reader can mend become one sentence; others keep their traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    errors = Console(stderr=True)
    try:
        yield
    except ImportError as error:
        errors.print(f"[red]Not done[/]: {escape(str(error))}. Or ask: tlhelpers doctor", soft_wrap=True)
        raise typer.Exit(1) from None
    except (ValueError, OSError, MemoryError) as error:
        what = str(error) or f"there is not enough memory ({type(error).__name__})"
        errors.print(f"[red]Not done[/]: {escape(what)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None


def _steps(console: Console) -> Callable:
    """Returns what shows each step while it goes on, and its time when it is done."""
    from rich import progress

    @contextmanager
    def step(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        columns = [
            progress.SpinnerColumn(finished_text="[green]✓[/]"),
            progress.TextColumn("{task.description}"),
        ]
        columns += [progress.BarColumn(20), progress.MofNCompleteColumn()] if total else []
        with progress.Progress(*columns, progress.TimeElapsedColumn(), console=console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, completed=done)
            done = bar.tasks[0].completed or 1
            bar.update(task, total=done, completed=done)

    return step


def _summary(console: Console, outcome: Outcome, out: Path) -> None:
    from tlhelpers.app.verdict import judge

    low, high = outcome.interval
    title = "cross-validated accuracy" if outcome.folds else "validation accuracy"
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    for c in outcome.candidates:
        kept = "[green]kept[/]" if c.name == outcome.chosen else ""
        table.add_row(c.name, f"{c.val_accuracy:.1%}", f"{c.seconds:.0f} s", kept)
    console.print(table)
    for note in (*outcome.check.notes(), *outcome.how[1:]):
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)
    what = "images" if outcome.cross_validated else "test images"
    console.print(
        f"[bold]{outcome.accuracy:.1%}[/] of {len(outcome.y_test):,} {what} named rightly "
        f"(95 % interval {low:.1%} to {high:.1%}{', cross-validated' if outcome.cross_validated else ''}), "
        f"in {outcome.seconds:.0f} s.",
        highlight=False,
    )
    verdict = judge(outcome)
    for line in (verdict.headline, *verdict.reasons, f"Weakest class: {verdict.weakest or 'none'}"):
        console.print(escape(line), highlight=False)
    for line in verdict.to_do:
        console.print(f"Next: {escape(line)}", highlight=False)
    where = out if out.suffix.lower() == ".html" else out / "report.html"
    console.print(f"Report: {escape(str(where))}", soft_wrap=True, highlight=False)
    console.print(
        f"With it: {escape(', '.join(n for n in outcome.sizes if n != where.name))}", highlight=False
    )


def _named(console: Console, found: Named, about: About, out: Path | None, ground_truth: bool) -> None:
    from tlhelpers.evaluation import wilson_interval

    top = found.probabilities.max(axis=1) if found.files else []
    for i, file in enumerate(found.files[:SHOWN]):
        sure = "" if top[i] >= about.unsure_below else ", unsure"
        name = about.class_names[found.predicted[i]]
        console.print(f"{escape(file)}: {escape(name)} ({top[i]:.1%}{sure})", soft_wrap=True, highlight=False)
    if len(found.files) > SHOWN:
        more = f"... and {len(found.files) - SHOWN:,} more" + ("" if out else ": --out names.csv writes all")
        console.print(more, highlight=False)
    unsure = sum(p < about.unsure_below for p in top)
    console.print(
        f"{len(found.files):,} pictures named, {unsure:,} of them unsure (below {about.unsure_below:.0%}).",
        highlight=False,
    )
    for file, why in list(found.unreadable.items())[:SHOWN]:
        console.print(f"[yellow]![/] {escape(file)}: {escape(why)}", soft_wrap=True, highlight=False)
    if found.unreadable:
        console.print(f"[yellow]![/] {len(found.unreadable):,} could not be read.", highlight=False)
    for note in found.notes:
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)
    if ground_truth:
        y, predicted = found.graded()
        if not len(y):
            names = ", ".join(about.class_names[:8])
            raise ValueError(f"--ground-truth: no picture lies in a folder called like a class ({names}).")
        low, high = wilson_interval(int((y == predicted).sum()), len(y))
        console.print(
            f"[bold]{(y == predicted).mean():.1%}[/] of {len(y):,} pictures named as their folder is called "
            f"(95 % interval {low:.1%} to {high:.1%}). Pictures that it was trained on make this too good.",
            highlight=False,
        )
        if len(y) < len(found.files):
            console.print(f"{len(found.files) - len(y):,} lie in no such folder.", highlight=False)
    if out:
        console.print(f"Written: {escape(str(out))}", soft_wrap=True, highlight=False)
