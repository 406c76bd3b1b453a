"""Count what a function asks of a device: operations, waits of the host, and messages between processes.

The functions run with CPU tensors, and the neighbour search as on a GPU. What NumPy does is not counted. Only
whole training steps need more than torch, so that the checks of a GPU can count without solo-learn.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from solo_dimreg import distributed
from solo_dimreg.functional import neighbours
from solo_dimreg.metrics.registry import METRICS, ROWS, TOKENS
from solo_dimreg.nn import AdaDim, DirectCLR, LeJEPA, ShuffledDBN
from solo_dimreg.nn.adadim import due
from solo_dimreg.quiet import without_logs
from solo_dimreg.studies.bench import TERMS
from solo_dimreg.studies.bench_cases import cases, features

SHAPE = (256, 256)
STEPS = ("simclr", "byol")  # methods of which a training step is counted
COUNTED, BATCH = 1, 16  # the step that is counted, after the one that makes the optimizer's state
# Operations that only make or describe a tensor, or whose scalar stays on the CPU.
FREE = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "resize_"),
    *("detach", "promote_types", "scalar_tensor"),
}
# Operations whose shape or result the host waits for on a GPU; decompositions read an error code there. What
# our own operators do inside is not seen, so that those that wait are named.
WAITS = {
    *("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "bincount"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
    *("_linalg_eigh", "_linalg_svd", "linalg_cholesky", "linalg_eig", "linalg_inv"),
    "spanning_tree",
}
TO_THE_HOST = {Tensor.cpu, Tensor.tolist}  # a tensor of the CPU is not copied, so that no operation is seen


@dataclass(frozen=True)
class Launches:
    """The numbers of operations, waits and messages of a forward and a backward pass of one function.

    Attributes:
        on: The shape of the input.
        who: Whether the function is ``ours`` or the ``textbook``'s.
        forward, backward: The device operations of each pass; views are none.
        waits: The operations that the host waits for.
    """

    name: str
    on: str
    who: str
    forward: int
    backward: int
    waits: int
    collectives: int


class Counter(TorchDispatchMode):
    """Counts waits and messages while it is entered; ``names`` lists the device operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.waits = self.collectives = 0
        self._copies = _Copies(self)

    def __enter__(self) -> Any:
        self._copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace == "c10d":
            self.collectives += 1
            return func(*args, **(kwargs or {}))
        masked = name in ("index", "index_put", "index_put_") and any(
            getattr(each, "dtype", None) == torch.bool for each in args[1]
        )
        self.waits += name in WAITS or masked or (name == "alternate_ranks" and due(*args[3:5]))
        if name not in FREE and not func.is_view:
            self.names.append(name)
        # The waits of an operator of ours are named above.
        before = self.waits
        result = func(*args, **(kwargs or {}))
        self.waits = before
        return result


class _Copies(TorchFunctionMode):
    """Counts the copies to the host as waits of a counter."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counter.waits += func in TO_THE_HOST
        return func(*args, **(kwargs or {}))


def count(name: str, who: str, function: Callable[..., Any], inputs: list[Tensor]) -> Launches:
    """Return what a forward and, if the result has a gradient, a backward pass of a function ask for.

    Operations and waits are those of a single process, and the messages those of one of two processes.
    """
    inputs = [each.clone().requires_grad_() for each in inputs]
    with _search_as_on_a_gpu():
        function(*inputs)  # what is made once, such as directions, is there at the second call
    forward, backward = _passes(function, inputs)
    waits = forward.waits + backward.waits
    with two_processes():
        collectives = sum(each.collectives for each in _passes(function, inputs))
    on = "x".join(map(str, inputs[0].shape)) or "a number"
    return Launches(name, on, who, len(forward.names), len(backward.names), waits, collectives)


def _passes(function: Callable[..., Any], inputs: list[Tensor]) -> tuple[Counter, Counter]:
    with _search_as_on_a_gpu():
        with Counter() as forward:
            value = function(*inputs)
        backward = Counter()
        if isinstance(value, Tensor) and value.requires_grad:
            value = value.sum()
            with backward:
                torch.autograd.grad(value, inputs, allow_unused=True)
    return forward, backward


@contextmanager
def two_processes() -> Iterator[None]:
    """Pretend that there are two processes that hold the same, unless there is a process group."""
    if dist.is_initialized():
        yield
        return
    given = dist.all_gather, dist.all_reduce, dist.broadcast

    def all_gather(outputs: list[Tensor], x: Tensor) -> None:
        given[0](outputs, x)
        for output in outputs:
            output.copy_(x)

    def all_reduce(x: Tensor, op: Any = dist.ReduceOp.SUM) -> None:
        given[1](x, op)
        if op == dist.ReduceOp.SUM:
            x.mul_(2)

    def broadcast(x: Tensor, src: int) -> None:
        given[2](x, src)
        if src:
            x.zero_()

    def agree(counts: Tensor) -> int:
        distributed._agreed = dist.group.WORLD, round(counts.max().item())
        return distributed._agreed[1]

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    # The group sends nothing, so what is received is filled in.
    filled = patch.multiple(dist, all_gather=all_gather, all_reduce=all_reduce, broadcast=broadcast)
    try:
        with filled, patch.object(distributed, "_agree", agree):
            yield
    finally:
        dist.destroy_process_group()


def _search_as_on_a_gpu() -> Any:
    return patch.object(neighbours, "SHAPED_FOR_CUDA", True)


def run() -> Iterator[Launches]:
    """Yield the counts of each loss beside its textbook, and of each regularizer, metric and callback.

    Where solo-learn is installed, the counts of whole training steps follow.
    """
    from solo_dimreg.config.blocks import MonitorSettings
    from solo_dimreg.monitor.buffer import measure
    from solo_dimreg.solo_learn.registration import generation

    for case in cases():
        for who, loss in (("ours", case.ours), ("textbook", case.textbook)):
            yield count(case.name, who, loss, [features(case.shape)])
    views = [features(SHAPE, seed) for seed in (0, 1)]
    terms: dict[str, nn.Module] = {name: term() for name, (term, _) in TERMS.items()}
    terms["lejepa"] = LeJEPA()
    for name, module in terms.items():
        yield count(f"term {name}", "ours", lambda *views, term=module: term([*views]), views)
    adadim, whitening = AdaDim(), ShuffledDBN(SHAPE[1], 8)
    yield count("AdaDim", "ours", lambda x, y: adadim([x, y], [x, y]), views)
    yield count("DirectCLR", "ours", DirectCLR(dim=90), views)
    yield count("ShuffledDBN", "ours", whitening, views[:1])
    tokens = features(SHAPE).unflatten(0, (4, -1))
    for name, record in METRICS.items():
        if record.function is not None:
            inputs = {ROWS: views[:1], TOKENS: [tokens]}.get(record.inputs, views)
            with torch.no_grad():
                yield count(f"metric {name}", "ours", record.function, inputs)
    usual = MonitorSettings().metrics
    yield count("look of the monitor", "ours", lambda *views: measure(usual, list(views)), views)
    yield count("divergence callback", "ours", _divergence_check(), [torch.tensor(1.0)])

    for method in STEPS if generation() else ():
        yield count_step(method, "ours")
        yield count_step(method, "solo-learn")


def count_step(method: str, who: str) -> Launches:
    """Return what a training step of a method asks for, all of it as ``forward``.

    With LDReg, the monitor and the divergence callback it is ``ours``; the class of solo-learn alone is
    ``solo-learn``'s. The step is one between two looks of the monitor.
    """
    found = _one_step(method, who)
    with two_processes():
        collectives = _one_step(method, who).collectives
    name = f"step of {method}"
    return Launches(name, f"{BATCH}x3x32x32", who, len(found.names), 0, found.waits, collectives)


def _one_step(method: str, who: str) -> Counter:
    from solo_dimreg.config.composing import compose
    from solo_dimreg.solo_learn.registration import register

    host = register()
    ours = who == "ours"
    changes = ["backbone.name=resnet18", "~backbone.kwargs", "checkpoint.enabled=False", "accelerator=cpu"]
    changes += ["regularizers.ldreg.warmup_epochs=0"] if ours else ["~monitor"]
    settings = compose("pretrain", "digits", f"ldreg_{method}" if ours else method, changes, host)
    classes = host.methods.copy()
    if not ours:
        host.methods[method] = next(filter(_is_of_solo_learn, classes[method].__mro__))
    try:
        module = host.build_without_data(settings, classes=10)
    finally:
        host.methods[method] = classes[method]
    views = [torch.randn(BATCH, 3, 32, 32) for _ in range(2)]
    batches = [(torch.arange(BATCH), views, torch.arange(BATCH) % 10)] * (COUNTED + 2)
    counter, quiet = Counter(), redirect_stderr(io.StringIO())

    def count_one(trainer: Any, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        # With the step of number COUNTED, what other callbacks do after it is counted.
        if batch_idx == COUNTED:
            counter.__enter__()
        elif batch_idx == COUNTED + 1:
            counter.__exit__(None, None, None)

    with TemporaryDirectory() as folder, _search_as_on_a_gpu(), without_logs(), quiet:
        trainer = host.pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[host.pl.callbacks.LambdaCallback(on_train_batch_start=count_one)],
        )
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return counter


def _is_of_solo_learn(kind: type) -> bool:
    """Return whether a class is one that a module of solo-learn defines, not one with our hooks."""
    defined = getattr(sys.modules[kind.__module__], kind.__name__, None)
    return kind.__module__.startswith("solo.") and defined is kind


def _divergence_check() -> Callable[[Tensor], None]:
    from solo_dimreg.solo_learn.divergence import DivergenceCallback

    callback: Any = DivergenceCallback(None, 10)  # type: ignore[arg-type]
    trainer = SimpleNamespace(global_step=1, is_last_batch=False)
    module = SimpleNamespace(last_terms={})
    return lambda loss: callback.on_train_batch_end(trainer, module, {"loss": loss})
