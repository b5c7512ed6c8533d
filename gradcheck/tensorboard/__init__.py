"""Gradients, check reports and trips as TensorBoard shows them."""

from gradcheck.tensorboard import v1 as v1
from gradcheck.tensorboard._reading import Events as Events
from gradcheck.tensorboard._reading import assert_scalar_logged as assert_scalar_logged
from gradcheck.tensorboard._reading import read_events as read_events
from gradcheck.tensorboard._writer import SummaryWriter as SummaryWriter

__all__ = ["Events", "SummaryWriter", "assert_scalar_logged", "read_events", "v1"]
