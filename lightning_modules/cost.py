"""What a sample costs: the MACs of one call of the network, on an input it was really given.

The network's first call in training is remembered, and repeated for a single sample after the step.
So nobody writes down the shapes of example inputs, and what is counted is what is trained.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from blocks.macs import count_macs


class ForwardCost:
    """Counts once, in the first training batch after `watch`; never breaks the training.

    `macs` is the number for one sample, or None; `counter` is how it was counted, or why not.
    """

    def __init__(self) -> None:
        self.macs: int | None = None
        self.counter = "not counted: nothing was trained"
        self._network: nn.Module | None = None
        self._call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._stop: Callable[[], None] | None = None

    def watch(self, network: nn.Module) -> None:
        """Remembers the inputs of the next call of a network.

        Args:
            network: The network of a workload.
        """
        self._network = network
        compiled = getattr(network, "_compiled_call_impl", None)
        if compiled is None:
            handle = network.register_forward_pre_hook(
                lambda _, args, options: self._remember(args, options), with_kwargs=True
            )
            self._stop = handle.remove
            self._watch_features(network)
            return

        # A hook would be compiled in, and its removal compile everything once more.
        def call(*args: Any, **options: Any) -> Any:
            self._remember(args, options)
            return compiled(*args, **options)

        network._compiled_call_impl = call
        self._stop = lambda: setattr(network, "_compiled_call_impl", compiled)

    def _watch_features(self, network: nn.Module) -> None:
        """A backbone may be asked for features alone; the whole of it takes the same input."""
        features: Callable[..., Any] | None = getattr(network, "forward_features", None)
        if features is None:
            return

        def call(*args: Any, **options: Any) -> Any:
            self._remember(args, options)
            return features(*args, **options)

        remove_hook = self._stop
        network.__dict__["forward_features"] = call

        def stop() -> None:
            del network.__dict__["forward_features"]
            if remove_hook is not None:
                remove_hook()

        self._stop = stop

    def count(self, batch_size: int, context: AbstractContextManager[Any]) -> None:
        """Counts what was remembered; does nothing a second time.

        Args:
            batch_size: Samples of the batch that the call belongs to.
            context: Autocast as in the training step.
        """
        if self._network is None:
            return
        network, call = self._network, self._call
        self._stop_watching()
        self._network = self._call = None
        try:
            self.macs, self.counter = _count(network, call, batch_size, context)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            self.counter = f"not counted: {type(error).__name__}: {first}"

    def _remember(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._stop_watching()
        self._call = (args, options)

    def _stop_watching(self) -> None:
        if self._stop is not None:
            self._stop()
        self._stop = None


def _count(
    network: nn.Module,
    call: tuple[tuple[Any, ...], dict[str, Any]] | None,
    batch_size: int,
    context: AbstractContextManager[Any],
) -> tuple[int | None, str]:
    if call is None:
        return None, "not counted: the first training batch did not call the network as a whole"
    if any(hasattr(parameter, "device_mesh") for parameter in network.parameters()):
        return None, "not counted: the parameters are sharded over processes"
    tensors: list[Tensor] = []
    apply_to_collection(call, Tensor, tensors.append)
    divisor = batch_size
    if all(len(x) == batch_size for x in tensors if x.dim()):
        call = apply_to_collection(call, Tensor, lambda x: x[:1] if x.dim() else x)
        divisor = 1
    # Otherwise samples are packed, as points of clouds are, or share an input: the batch is
    # counted as it is, and a sample is its mean.
    args, options = call
    with torch.no_grad(), context:
        found = count_macs(network, *args, **options)
    return round(found.total / divisor), found.counter
