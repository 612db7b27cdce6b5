"""What is on the terminal while a face is made to talk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def warn_of_random_weights(console: Console, model_name: str) -> None:
    """Says that pictures of this model are noise."""
    notice = f"The weights of '{model_name}' are random: pictures are noise until trained weights exist."
    console.print(notice, style="bold yellow", soft_wrap=True, highlight=False)


@contextmanager
def talking_bar(console: Console, speech_seconds: float) -> Iterator[Callable[[float], None]]:
    """A progress bar over the speech; gives what to tell how many seconds of video are there."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("talking", total=speech_seconds, done="")

        def show(seconds: float) -> None:
            done = min(seconds, speech_seconds)
            progress.update(bar, completed=done, done=f"{done:.1f} of {speech_seconds:.1f} s")

        yield show
