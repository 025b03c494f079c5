"""How much memory a training step needs beyond its inputs and parameters.

Two numbers in bytes, since each hides something: what autograd keeps from the forward to the
backward pass, and the highest sum of live tensors on the way, short-lived ones included.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.autograd.profiler import profile


def saved_bytes(forward: Callable[[], Tensor], parameters: Iterable[Tensor] = ()) -> int:
    """Bytes that a forward pass keeps for its backward pass.

    A storage counts once however many views of it are kept, and whole: a kept slice keeps it all.

    Args:
        forward: Runs it and returns an output with a graph.
        parameters: Tensors that live anyway and do not count.
    """
    alive = {_storage(parameter)[0] for parameter in parameters}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        pointer, size = _storage(tensor)
        if pointer not in alive:
            kept[pointer] = size
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    with saved_tensors_hooks(pack, unpack):
        output = forward()
    del output  # The graph lived until here, so that no address was given out twice.
    return sum(kept.values())


def peak_bytes(step: Callable[[], object], device: str = "cpu") -> int:
    """Highest number of live tensor bytes during a step, above what lived before.

    On the CPU every request to torch's allocator is counted, inside operators too. Scratch that a
    kernel takes elsewhere (the stack, numpy) is not seen.

    Args:
        step: Forward and backward pass. Run it once before, so that nothing lazy is counted.
        device: Where it computes.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with profile(profile_memory=True) as recorded:
        step()
    assert recorded.kineto_results is not None
    events = recorded.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    live = highest = 0
    for _, change in sorted(changes, key=lambda item: item[0]):
        live += change
        highest = max(highest, live)
    return highest


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
