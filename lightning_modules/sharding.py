"""FSDP2 over all processes: what `configs/trainer/fsdp2.yaml` names."""

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


class FullySharded(ModelParallelStrategy):
    """Shards every parameter over all processes of all nodes (torch's `fully_shard`).

    Lightning's own default shards within pairs of its choosing; here the number of processes is all
    one needs to say. Works on CPU with gloo. Checkpoints are whole files, as of any other strategy.
    """

    def __init__(self) -> None:
        super().__init__(
            data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def setup_environment(self) -> None:
        """Takes all processes for data parallelism."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shards a network's repeated blocks one by one, then what is left.

    Args:
        network: Its `nn.ModuleList`s are taken for stacks of blocks.
        mesh: Processes that share the parameters.
    """
    for part in network.children():
        if isinstance(part, nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
