"""Words that make the demo configuration tiny: a second or two of training."""

from tests.conftest import ROOT

DEMO = str(ROOT / "configs" / "demo" / "vision.yaml")
NETWORK = "--model.init_args.network.init_args"
TINY = (
    *("--config", DEMO),
    *(f"{NETWORK}.depth", "1", f"{NETWORK}.dim", "16", f"{NETWORK}.d_state", "2"),
    *(f"{NETWORK}.img_size", "16", "--data.init_args.img_size", "16"),
    *("--trainer.limit_train_batches", "3", "--trainer.max_epochs", "2"),
    *("--trainer.limit_val_batches", "2"),
)
