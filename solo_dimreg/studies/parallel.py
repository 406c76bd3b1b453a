"""Execute independent runs one after the other or in parallel."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from solo_dimreg.errors import DimregError

FINISHED = "  finished before: skipped"


def default_jobs() -> int:
    """Return the number of runs in parallel: one per core, or one if there is a GPU.

    Networks as small as those of ``quick`` gain little from a second thread. They lose much if another
    program uses the core, because threads then wait for each other.
    """
    return 1 if torch.cuda.is_available() else _cores()


def _cores() -> int:
    """Return the number of cores that this process may use.

    Only Linux tells them from the cores of the machine.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Runs = Sequence[Callable[[Callable[[str], None]], dict[str, Any]]]


def one_by_one(
    runs: Runs, labels: Sequence[str], folders: Sequence[Path], jobs: int, say: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the results in their order; each run prints to our output."""
    for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
        say(f"[{number + 1}/{len(runs)}] {label}")
        yield number, run(say)


def side_by_side(
    runs: Runs, labels: Sequence[str], folders: Sequence[Path], jobs: int, say: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the results as they finish; each run prints to ``log.txt`` in its folder."""
    threads = max(1, _cores() // jobs)
    say(f"{len(runs)} runs, {jobs} at a time with {threads} thread{'s' if threads > 1 else ''} each")
    start, trained = time.perf_counter(), 0
    others = set(active_children())
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (threads,)) as pool:
        futures = {
            pool.submit(_run_quietly, run, folder): number
            for number, (run, folder) in enumerate(zip(runs, folders, strict=True))
        }
        try:
            for done, future in enumerate(as_completed(futures), 1):
                number = futures[future]
                result, was_done = future.result()
                trained += not was_done
                accuracy = (
                    f"linear top-1 {result['linear_acc1']:.1f} %" if "linear_acc1" in result else "done"
                )
                text = "finished before" if was_done else accuracy
                # Runs that were finished before took no time, so they do not count for the estimate.
                left = (time.perf_counter() - start) / max(trained, 1) * (len(runs) - done)
                rest = f"; about {left / 60:.0f} min left" if trained and done < len(runs) else ""
                say(f"[{done}/{len(runs)}] {labels[number]}: {text}{rest}")
                yield number, result
        except BrokenProcessPool as error:
            raise DimregError(
                "A process ended before its run did: it was killed or ran out of memory. Finished runs are "
                f"kept; run again, for example with --jobs {max(1, jobs - 1)}. The last lines of log.txt in "
                "the run's folder may say more."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(active_children()) - others:
                child.terminate()  # an interruption of this process may not reach them
            raise


def _start_worker(threads: int) -> None:
    """Use this worker's share of the cores, and end with the parent process, however that ends."""
    torch.set_num_threads(threads)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


def _run_quietly(
    run: Callable[[Callable[[str], None]], dict[str, Any]], folder: Path
) -> tuple[dict[str, Any], bool]:
    """Return a run's result and whether it existed before; print to a file in the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print(text, flush=True)

    with (folder / "log.txt").open("a") as log, _printing_to(log.fileno()):
        result = run(say)
    return result, FINISHED in said


@contextmanager
def _printing_to(file: int) -> Iterator[None]:
    """Send all output of this process to a file, no matter who opened the streams."""
    kept = [os.dup(stream) for stream in (1, 2)]
    try:
        for stream in (1, 2):
            os.dup2(file, stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
