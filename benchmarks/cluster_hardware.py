"""GPUs and networks of benchmarks.cluster_model: what data sheets say. Nothing here was measured by us.

Sources, all NVIDIA: "H100 Tensor Core GPU" data sheet (SXM: 989 TFLOP/s dense bfloat16, 80 GB, 3.35 TB/s, NVLink 900
GB/s); "A100 80GB" data sheet, 1758950-r4 (SXM: 312 TFLOP/s, 80 GB, 2.039 TB/s, NVLink 600 GB/s); "L4 Tensor Core GPU"
data sheet (121 TFLOP/s dense, which is half of the figure with sparsity, 24 GB, 300 GB/s, PCIe 4.0 x16, 64 GB/s both
ways); "DGX H100 User Guide" (eight ConnectX-7 of 400 Gb/s) and "DGX A100 User Guide" (eight ConnectX-6 of 200 Gb/s).
Links are given for both directions together; a collective is limited by one of them, which is half.
"""

from dataclasses import dataclass

GIGA, TERA = 1e9, 1e12
BITS = 8
GPUS_A_MACHINE = 8


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    flops_per_second: float  # peak, dense, bfloat16
    memory_bytes: float
    memory_bytes_per_second: float


@dataclass(frozen=True)
class Network:
    """What connects GPUs.

    Attributes:
        machine_bytes_per_second: that a GPU can send to others in its machine.
        network_bytes_per_second: that a machine can send to others. A ring passes through all GPUs of a machine and
            leaves it once, and the rings of a collective leave by different adapters, so that it is the sum of them.
    """

    machine_bytes_per_second: float
    network_bytes_per_second: float

    def ring_bytes_per_second(self, gpus: int) -> float:
        """Return the peak of a collective over so many GPUs, machine by machine filled up."""
        if gpus <= GPUS_A_MACHINE:
            return self.machine_bytes_per_second
        return min(self.machine_bytes_per_second, self.network_bytes_per_second)


@dataclass(frozen=True)
class Cluster:
    """Machines of GPUS_A_MACHINE GPUs."""

    name: str
    label: str
    gpu: Gpu
    network: Network


H100 = Gpu("H100 80 GB SXM", 989 * TERA, 80 * GIGA, 3350 * GIGA)
A100 = Gpu("A100 80 GB SXM", 312 * TERA, 80 * GIGA, 2039 * GIGA)
L4 = Gpu("L4 24 GB", 121 * TERA, 24 * GIGA, 300 * GIGA)
NVLINK_4, NVLINK_3, PCIE_4_X16 = 900 * GIGA / 2, 600 * GIGA / 2, 64 * GIGA / 2
INFINIBAND_8_X_400, INFINIBAND_8_X_200, ETHERNET_100 = (
    8 * 400 * GIGA / BITS,
    8 * 200 * GIGA / BITS,
    100 * GIGA / BITS,
)

CLUSTERS = (
    Cluster("h100", "8 x H100, NVLink, 8 x 400 Gb/s InfiniBand", H100, Network(NVLINK_4, INFINIBAND_8_X_400)),
    Cluster("a100", "8 x A100, NVLink, 8 x 200 Gb/s InfiniBand", A100, Network(NVLINK_3, INFINIBAND_8_X_200)),
    Cluster("a100-ethernet", "8 x A100, NVLink, 100 Gb/s Ethernet", A100, Network(NVLINK_3, ETHERNET_100)),
    Cluster("l4", "8 x L4, PCIe, 100 Gb/s Ethernet", L4, Network(PCIE_4_X16, ETHERNET_100)),
)
