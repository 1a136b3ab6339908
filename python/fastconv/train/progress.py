# SPDX-License-Identifier: Apache-2.0
"""What `fit` shows while it runs: a bar on a terminal, one line per epoch elsewhere, or nothing."""

import sys
from types import TracebackType
from typing import Any, Self

from .history import Epoch


class Silent:
    """Shows nothing; the base of those that do."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin_epoch(self, number: int, iterations: int) -> None:
        """Epoch `number` (from 1) begins; it has `iterations` steps."""

    def step(self, loss: float, accuracy: float) -> None:
        """A training step is done; the figures are means over the epoch so far."""

    def end_epoch(self, epoch: Epoch) -> None:
        """Training and validation of an epoch are done."""

    def _summary(self, epoch: Epoch) -> str:
        width = len(str(self.epochs))
        line = f"epoch {epoch.number:{width}d}/{self.epochs}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}"
        if epoch.val_loss is not None:
            line += f"  |  validation loss {epoch.val_loss:.4f}  accuracy {epoch.val_accuracy:.4f}"
        return f"{line}  |  {epoch.seconds:.1f} s"


class Lines(Silent):
    """One line per epoch, for logs and pipes."""

    def end_epoch(self, epoch: Epoch) -> None:
        print(self._summary(epoch), flush=True)


class Bar(Silent):
    """A bar for the running epoch below one line for each that is done."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        try:
            from rich import progress
        except ImportError as error:
            raise ImportError(
                'fit: the progress bar needs rich: pip install "fastconv[demo]", or pass progress=False'
            ) from error
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=32),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[figures]}"),
            progress.TimeRemainingColumn(compact=True),
            transient=True,
        )
        self._task: Any = self._bar.add_task("", total=None, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin_epoch(self, number: int, iterations: int) -> None:
        self._bar.reset(self._task, total=iterations, description=f"epoch {number}/{self.epochs}", figures="")

    def step(self, loss: float, accuracy: float) -> None:
        self._bar.update(self._task, advance=1, figures=f"loss {loss:.4f}  accuracy {accuracy:.4f}")

    def end_epoch(self, epoch: Epoch) -> None:
        self._bar.console.print(self._summary(epoch), highlight=False, soft_wrap=True)


def make_progress(wanted: bool, epochs: int) -> Silent:
    """The display that fits where standard output goes.

    Raises:
        ImportError: a terminal, and rich is not installed; the message names the extra.
    """
    if not wanted:
        return Silent(epochs)
    return Bar(epochs) if sys.stdout.isatty() else Lines(epochs)
