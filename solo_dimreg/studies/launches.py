"""Count what a function asks of a device: operations, waits of the host, and messages between processes.

The functions run with CPU tensors. What they do for a GPU alone is not counted, nor what they do in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from solo_dimreg.metrics.registry import METRICS, ROWS, TOKENS
from solo_dimreg.studies.bench import TERMS
from solo_dimreg.studies.bench_cases import cases, features

SHAPE = (256, 256)
# Operations that only make or describe a tensor.
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "resize_"}
# Operations whose shape or result the host waits for on a GPU; decompositions read an error code there.
WAITS = {
    *("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim"),
    *("_linalg_eigh", "_linalg_svd", "linalg_cholesky", "linalg_eig", "linalg_inv"),
}


@dataclass(frozen=True)
class Launches:
    """The numbers of operations, waits and messages of a forward and a backward pass of one function.

    Attributes:
        name: The name of the function.
        on: The shape of its input.
        who: Whether it is ``ours`` or the ``textbook``'s.
        forward, backward: The device operations of each pass; views are none.
        waits: The operations that the host waits for.
        collectives: The messages between processes.
    """

    name: str
    on: str
    who: str
    forward: int
    backward: int
    waits: int
    collectives: int


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = self.waits = self.collectives = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace == "c10d":
            self.collectives += 1
        elif name in WAITS or (name == "index" and any(map(_is_mask, args[1]))):
            self.waits += 1
        if func.namespace != "c10d" and name not in FREE and not func.is_view:
            self.operations += 1
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def count(name: str, who: str, function: Callable[..., Any], inputs: list[Tensor]) -> Launches:
    """Return what a forward and, if the result has a gradient, a backward pass of a function ask for."""
    inputs = [each.clone().requires_grad_() for each in inputs]
    function(*inputs)  # what is made once, such as directions, is there at the second call
    with _Counter() as forward:
        value = function(*inputs)
    backward = _Counter()
    if isinstance(value, Tensor) and value.requires_grad:
        value = value.sum()
        with backward:
            torch.autograd.grad(value, inputs, allow_unused=True)
    waits, collectives = forward.waits + backward.waits, forward.collectives + backward.collectives
    on = "x".join(map(str, inputs[0].shape)) or "a number"
    return Launches(name, on, who, forward.operations, backward.operations, waits, collectives)


def run() -> Iterator[Launches]:
    """Yield the counts of each loss beside its textbook, and of each regularizer, metric and callback."""
    for case in cases():
        for who, loss in (("ours", case.ours), ("textbook", case.textbook)):
            yield count(case.name, who, loss, [features(case.shape)])
    views = [features(SHAPE, seed) for seed in (0, 1)]
    for name, (term, _) in TERMS.items():
        yield count(f"term {name}", "ours", _of_views(term()), views)
    for name, record in METRICS.items():
        if record.function is not None and record.inputs != TOKENS:
            inputs = views[:1] if record.inputs == ROWS else views
            with torch.no_grad():
                yield count(f"metric {name}", "ours", record.function, inputs)
    yield count("divergence callback", "ours", _divergence_check(), [torch.tensor(1.0)])


def _of_views(term: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda first, second: term([first, second])


def _divergence_check() -> Callable[[Tensor], None]:
    """Return what the callback does with the loss of a step."""
    from solo_dimreg.solo_learn.divergence import DivergenceCallback

    callback: Any = DivergenceCallback(None, 10)  # type: ignore[arg-type]
    trainer = SimpleNamespace(global_step=1, is_last_batch=False)
    module = SimpleNamespace(last_terms={})
    return lambda loss: callback.on_train_batch_end(trainer, module, {"loss": loss})
