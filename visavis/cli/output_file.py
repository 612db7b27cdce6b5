"""The file that a command writes: it appears under its name only when it is complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visavis.cli.errors import CommandError


def prepare_output(output: Path) -> None:
    """Makes the folder of an output file. CommandError when the file cannot be written there."""
    if output.is_dir():
        raise CommandError(f"{output} is a folder; name a file to write")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{output} cannot be written ({error.strerror})") from error


@contextmanager
def unfinished_file(output: Path) -> Iterator[Path]:
    """The place to write to, beside `output`, which it replaces in the end; after an error it is deleted."""
    unfinished = output.with_name(f".{output.name}.part")
    try:
        yield unfinished
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
