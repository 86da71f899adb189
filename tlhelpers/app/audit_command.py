"""The command `tlhelpers audit`: a saved model and a folder of images, looked at by the auditor."""

import json
import os
from pathlib import Path
from typing import Annotated

from tlhelpers.extras import extra

with extra("app"):
    import typer

__all__ = ["audit"]


def audit(
    model: Annotated[Path, typer.Argument(help="A saved model: .keras, .h5.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--data", help="A folder with one folder of images a class, or with train/, val/ and test/."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="What the pretrained part is meant to be: frozen, fine-tuned or scratch."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Audit a saved Keras model: look for the faults of transfer learning that raise no error.

    The exit code is 1 when a finding is an error, 2 when the model or the folder cannot be used, else 0.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from tlhelpers import audit as auditor
    from tlhelpers import data, finetune  # noqa: F401  (finetune: its layers are known to Keras then)

    try:
        if not model.is_file():
            raise ValueError(f"there is no file {model}")
        network = keras.models.load_model(model)
        shape = getattr(network, "input_shape", None)
        size = shape[1] if isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2] else None
        images = None if folder is None else data.load(folder, image_size=size, lazy=True)
        report = auditor.check(network, images, base=base)  # type: ignore[arg-type]
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        typer.echo(f"Not done: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    raise typer.Exit(report.exit_code)
