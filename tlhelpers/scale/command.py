"""The command `tlhelpers extract`: from words on a line to `extract_files`."""

import os
from pathlib import Path
from typing import Annotated, Any

from tlhelpers.extras import extra

with extra("app"):
    import typer


def extract(
    files: Annotated[Path, typer.Argument(help="Folder of pictures, or CSV file with a column path.")],
    out: Annotated[Path, typer.Argument(help="Folder to write Parquet files to, or to go on in.")],
    backbone: Annotated[str, typer.Option(help="Name of the network.")] = "efficientnet_lite0",
    image_size: Annotated[int | None, typer.Option(help="Side in pixels that it sees.", min=32)] = None,
    shard_size: Annotated[int, typer.Option(help="Pictures in a file.", min=1)] = 2048,
    workers: Annotated[int | None, typer.Option(help="How many work at a time. [one a core]", min=1)] = None,
    runner: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster to join.")] = None,
) -> None:
    """Compute the features of many pictures, and keep them in Parquet files. A run that was stopped goes on.

    A picture that cannot be read is a row with the reason and without features.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tlhelpers import backbones, scale

    try:
        how: dict[str, Any] = {"workers": workers, "runner": runner, "address": address}
        network = backbones.load(backbone, image_size=image_size)
        found = scale.extract_files(files, out, network, shard_size=shard_size, **how)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        typer.echo(f"Not done: {error}", err=True)
        raise typer.Exit(1) from None
    for path in [*found.errors][:20]:
        typer.echo(f"! {path}: {found.errors[path]}")
    typer.echo(f"{len(found):,} pictures, {len(found.errors):,} not read; files: {len(found.files):,}")
