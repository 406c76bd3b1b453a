"""Execute the runs of a study one after the other, or side by side in processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, get_start_method, parent_process, set_start_method
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

from solo_dimreg.errors import DimregError

Say = Callable[[str], None]
# A row or an experiment, and a seed.
Task = tuple[str, int]
# A function of a row and a seed that returns the result; it can be pickled.
RunOne = Callable[[str, int], dict[str, Any]]
#: Executes tasks in any order. Its arguments are the function, the tasks, the folder of the study, the number
#: of runs at a time, and what prints the progress.
Launcher = Callable[[RunOne, Sequence[Task], Path, int, Say], "Results"]
Results = Iterator[tuple[Task, dict[str, Any]]]
# The file in the folder of a run that says when it was started last.
STARTED = "started.json"


def folder_of(out: Path, row: str, seed: int) -> Path:
    """Return the folder of a run."""
    return out / "runs" / row / f"seed{seed}"


def default_jobs() -> int:
    """Return the number of runs at a time: one on each GPU, or else on each core.

    Networks as small as those of ``quick`` gain little from a second thread. They lose much if another
    program uses the core, because threads then wait for each other.
    """
    import torch

    return torch.cuda.device_count() or _cores()


def threads_of(jobs: int) -> int:
    """Return the number of threads of each of several runs at a time."""
    return max(1, _cores() // jobs)


def _cores() -> int:
    # Only Linux tells those that this process may use from those of the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local(run: RunOne, tasks: Sequence[Task], out: Path, jobs: int, say: Say) -> Results:
    """Yield each task with its result as it ends, on this machine.

    Several runs at a time are processes. Each has its share of the cores, or a GPU of its own, and prints to
    ``log.txt`` in its folder.
    """
    if (jobs := min(jobs, len(tasks))) > 1:
        yield from _side_by_side(run, tasks, out, jobs, say)
        return
    for number, (row, seed) in enumerate(tasks, 1):
        say(f"[{number}/{len(tasks)}] {row}, seed {seed}")
        yield (row, seed), run(row, seed)


def _side_by_side(run: RunOne, tasks: Sequence[Task], out: Path, jobs: int, say: Say) -> Results:
    import torch

    cards, threads = torch.cuda.device_count(), threads_of(jobs)
    share = f"on {cards} GPUs" if cards else f"with {threads} thread{'s' if threads > 1 else ''} each"
    say(f"{len(tasks)} runs, {jobs} at a time {share}")
    start = time.perf_counter()
    others, spawn = set(active_children()), get_context("spawn")
    free = spawn.SimpleQueue()
    for worker in range(jobs if cards else 0):
        free.put(worker % cards)
    arguments = (threads, free if cards else None, get_start_method())
    with ProcessPoolExecutor(jobs, spawn, _start_worker, arguments) as pool:
        futures = {pool.submit(_run_quietly, run, out, *task): task for task in tasks}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                task, result = futures[future], future.result()
                say(progress(task, result, done, len(tasks), start))
                yield task, result
        except BrokenProcessPool as error:
            raise DimregError(
                "A process ended before its run did: it was killed or ran out of memory. Finished runs are "
                f"kept; run again, for example with --jobs {max(1, jobs - 1)}. The last lines of log.txt "
                "in the run's folder may say more."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(active_children()) - others:
                child.terminate()  # an interruption of this process may not reach them
            raise


def progress(task: Task, result: dict[str, Any], done: int, count: int, start: float) -> str:
    """Return a line on a run that has ended and the time for the rest; the first one began at ``start``."""
    ended = f"linear top-1 {result['linear_acc1']:.1f} %" if "linear_acc1" in result else "done"
    ended = f"failed: {result['failed']}" if "failed" in result else ended
    minutes = (time.perf_counter() - start) / done * (count - done) / 60
    rest = f"; about {minutes:.0f} min left" if done < count else ""
    return f"[{done}/{count}] {task[0]}, seed {task[1]}: {ended}{rest}"


def _start_worker(threads: int, free: Any, start_method: str) -> None:
    """Take a free GPU or this worker's share of the cores, and end with the parent, however that ends."""
    set_start_method(start_method, force=True)  # solo-learn's data sets cannot be sent to a spawned loader
    if free is not None:
        # One of the GPUs that the user lets us see.
        seen, number = os.environ.get("CUDA_VISIBLE_DEVICES"), free.get()
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number] if seen else str(number)
    import torch

    torch.set_num_threads(threads)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


def _run_quietly(run: RunOne, out: Path, row: str, seed: int) -> dict[str, Any]:
    """Return the result of a run, or an error that says whose it is; this process prints to the run's log."""
    folder = folder_of(out, row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        return run(row, seed)
    except DimregError as error:
        error.args = (f"{row}, seed {seed}: {error}",)
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
