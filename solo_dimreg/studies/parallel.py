"""Execute independent runs one after the other or in parallel."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from solo_dimreg.errors import DimregError

FINISHED = "  finished before: skipped"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A run: its label, its folder, and the function that returns its result and prints what it does."""

    label: str
    folder: Path
    run: Callable[[Say], dict[str, Any]]


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


def execute(jobs: Sequence[Job], parallel: int, say: Say) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the result of each job as it finishes.

    Args:
        jobs: The jobs.
        parallel: The number of jobs at the same time. If it is more than one, each job is a process with its
            share of the cores, and prints to ``log.txt`` in its folder.
        say: The function that prints the progress.
    """
    parallel = min(parallel, len(jobs))
    if parallel > 1:
        yield from _side_by_side(jobs, parallel, say)
        return
    for number, job in enumerate(jobs):
        say(f"[{number + 1}/{len(jobs)}] {job.label}")
        yield number, job.run(say)


def _side_by_side(jobs: Sequence[Job], parallel: int, say: Say) -> Iterator[tuple[int, dict[str, Any]]]:
    threads = max(1, _cores() // parallel)
    say(f"{len(jobs)} runs, {parallel} at a time with {threads} thread{'s' if threads > 1 else ''} each")
    start, trained = time.perf_counter(), 0
    others = set(active_children())
    with ProcessPoolExecutor(parallel, get_context("spawn"), _start_worker, (threads,)) as pool:
        futures = {pool.submit(_run_quietly, job): number for number, job in enumerate(jobs)}
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
                left = (time.perf_counter() - start) / max(trained, 1) * (len(jobs) - done)
                rest = f"; about {left / 60:.0f} min left" if trained and done < len(jobs) else ""
                say(f"[{done}/{len(jobs)}] {jobs[number].label}: {text}{rest}")
                yield number, result
        except BrokenProcessPool as error:
            raise DimregError(
                "A process ended before its run did: it was killed or ran out of memory. Finished runs are "
                f"kept; run again, for example with --jobs {max(1, parallel - 1)}. The last lines of log.txt "
                "in the run's folder may say more."
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


def _run_quietly(job: Job) -> tuple[dict[str, Any], bool]:
    """Return a job's result and whether it existed before; this process prints to ``log.txt`` from now on."""
    job.folder.mkdir(parents=True, exist_ok=True)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print(text, flush=True)

    with (job.folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        return job.run(say), FINISHED in said
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
