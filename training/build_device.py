"""From constants to the device that this process computes on, and whether it can be relied on."""

from config import Config
from training.compiled import check_compiler
from training.device import ComputeDevice, choose_device
from training.process_group import Place
from training.self_check import check_kernels


def build_device(config: Config, place: Place) -> ComputeDevice:
    """Choose the device of this process and try out what may be missing or wrong on it.

    Raises:
        UserError: it is not there, computes wrongly, or cannot compile what is to be compiled.
    """
    compute = choose_device(config.DEVICE, config.MIXED_PRECISION, place.local_rank, place.processes_here)
    if compute.device.type == "mps":
        check_kernels(compute.device)
    if config.COMPILE_MODEL:
        check_compiler(compute.device)
    return compute
