"""The command `tlhelpers` and the report that it writes; the extra `app` brings what they need."""

import sys

from tlhelpers.extras import MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Runs the command; without the extra `app` it only says how to install that."""
    try:
        from tlhelpers.app import cli
    except MissingExtraError as error:
        sys.exit(str(error))
    cli.app()
