"""Progress bars of the commands that run a while."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar a stage, on stderr; the callback is told stage, done, of how many (0: not known)."""
    from rich.console import Console  # noqa: PLC0415 - only for a command that runs a while
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above

    console = Console(stderr=True, quiet=quiet)
    columns = (SpinnerColumn(), TextColumn("{task.description:20}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, total=1, completed=1)
                    bars.stop_task(earlier)
                tasks[stage] = bars.add_task(stage, total=of or None, told="")
            if of:
                bars.update(tasks[stage], completed=done, total=of, told=f"{done:,} of {of:,}")

        yield tell
        for task in tasks.values():
            bars.update(task, total=1, completed=1)
