"""What a run says of itself while it goes: the log, TensorBoard, and a progress bar."""

import math
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import torch

from segic.devices import processor_name, usable_cores
from segic.errors import SegicError
from segic.training.feeds import Skipped
from segic.training.reports import StepReport
from segic.training.run_folder import RunFolder, append_line, read_lines

EVERY = 25  # steps between lines of the log
SKIPPED_SAID = 5  # files that cannot be used are named on the terminal, the others in the run's folder only


class Journal:
    """An `Observer` that writes log.jsonl, TensorBoard files where that package is installed, and a bar.

    quiet: no bar and no lines. The bar appears only on a terminal; elsewhere there is a line every `every` steps. Of
    steps whose gradient was not finite the log has the number, "steps_lost".
    """

    def __init__(self, run: RunFolder, *, quiet: bool = False, every: int = EVERY):
        self._run, self._quiet, self._every = run, quiet, every
        self._bar: Any = None
        self._board: Any = None
        self._sums: dict[str, float] = {}
        self._steps = self._images = self._lost = 0
        self._seconds = 0.0
        self._seen = {line["file"] for line in read_lines(run.skipped)}  # a resumed run lists no file again
        self._total = 0

    def begin(self, start: int, steps: int) -> None:
        """See `segic.training.reports.Observer`."""
        from tqdm import tqdm

        self._total = steps
        self._board = _board(self._run, start)
        if self._board is None and not self._quiet:
            self.say("note: no TensorBoard files, for want of the package: pip install 'segic[train]' has it")
        hidden = self._quiet or not sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit=" steps", disable=hidden, file=sys.stderr, dynamic_ncols=True)

    def step(self, report: StepReport) -> None:
        """See `segic.training.reports.Observer`."""
        for one in report.skipped:
            if one.file not in self._seen:
                self._seen.add(one.file)
                append_line(self._run.skipped, {"file": one.file, "reason": one.reason})
                self._say_skipped(one)
        for key, value in report.figures.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._steps += 1
        self._images += report.images
        self._seconds += report.seconds
        self._lost += not math.isfinite(report.norm)
        values: dict[str, Any] = {key: value / self._steps for key, value in self._sums.items()}
        values |= {
            "lr": report.lr,
            "norm": report.norm if math.isfinite(report.norm) else None,
            "steps_lost": self._lost,
            "seconds_per_step": self._seconds / self._steps,
            "images_per_second": self._images / max(self._seconds, 1e-9),
            "waiting_share": report.waited,
            "memory_bytes": report.memory,
            "skipped_files": len(self._seen),
        }
        self._advance(values)
        if report.step % self._every and report.step != self._total:
            return
        self._run.append("step", {"step": report.step, **values})
        self._scalars(values, report.step, "train")
        if not self._quiet and not sys.stderr.isatty():
            left = timedelta(seconds=round(values["seconds_per_step"] * (self._total - report.step)))
            self.say(
                f"step {report.step}/{self._total} loss {values['loss']:.3f} IoU {values['iou']:.3f} lr {report.lr:.2e}"
                f" {values['images_per_second']:.1f} images/s waiting {report.waited:.1%} left {left}"
            )
        if self._lost and not self._quiet:
            self.say(f"note: {self._lost} of the last {self._steps} steps changed nothing: no finite gradient")
        self._sums, self._steps, self._images, self._lost, self._seconds = {}, 0, 0, 0, 0.0

    def validated(self, step: int, scores: Mapping[str, float], best: bool) -> None:
        """See `segic.training.reports.Observer`."""
        self._run.append("validation", {"step": step, "scores": dict(scores), "best": best})
        self._scalars(scores, step, "validation")
        if not self._quiet:
            figures = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            self.say(f"validation after {step} steps: {figures}{' (best so far)' if best else ''}")

    def _say_skipped(self, one: Skipped) -> None:
        if not self._quiet and len(self._seen) <= SKIPPED_SAID:
            self.say(f"note: {one.file} is left out: {one.reason}")
            if len(self._seen) == SKIPPED_SAID:
                self.say(f"note: others that are left out are listed in {self._run.skipped}")

    def say(self, text: str) -> None:
        """A line on standard error, above the bar."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Ends the bar and the files."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            with suppress(OSError):  # what could not be written was said before
                self._board.close()

    def _advance(self, values: Mapping[str, Any]) -> None:
        shown = {"loss": f"{values['loss']:.3f}", "IoU": f"{values['iou']:.3f}"}
        shown["images/s"] = f"{values['images_per_second']:.1f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def _scalars(self, values: Mapping[str, Any], step: int, group: str) -> None:
        if self._board is None:
            return
        try:
            for key, value in values.items():
                if value is not None:
                    self._board.add_scalar(f"{group}/{key}", value, step)
        except OSError as error:
            where = self._run.path / "tensorboard"
            raise SegicError(f"{where} cannot be written: {error}; make room and go on with --resume") from error


def _board(run: RunFolder, start: int) -> Any:
    """A TensorBoard writer, None where the package (extra `train`) is not installed.

    Curves beyond `start` steps, of a session that was killed after its last checkpoint, are taken back.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.path / "tensorboard"), purge_step=start + 1)


def circumstances(device: torch.device, processes: int) -> dict[str, Any]:
    """Hardware, versions and the time, for the log."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": gpu or processor_name() or platform.machine(),
        "processes": processes,
        "cores": usable_cores(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
