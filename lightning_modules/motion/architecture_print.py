"""The table of layers that afford-motion's fork prints at the start of a training."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_modules.motion.networks.cmdm import CMDM


class CMDMArchitecture(Callback):
    """Prints `CMDM.architecture()` once, from the first process; nothing for other networks."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table."""
        network = getattr(pl_module, "network", None)
        if isinstance(network, CMDM):
            print(network.architecture(), flush=True)
