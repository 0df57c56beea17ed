"""What a device can do, by its vendor's datasheet; and what is assumed of it until it is measured."""

from __future__ import annotations

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, or the CPU of a machine.

    flops: peak dense FLOP/s of the precision that training uses (bf16, or fp16 where there is no bf16), None when it
    has to be measured; memory: bytes, None when unknown; bandwidth: bytes/s of its memory, None when unknown; tf32,
    fp32: peak FLOP/s of fp32 numbers with TensorFloat-32 products and without, None when unknown.
    """

    name: str
    memory: int | None
    flops: float | None = None
    bandwidth: float | None = None
    bf16: bool = False
    gpu: bool = True
    tf32: float | None = None
    fp32: float | None = None

    def peak(self, precision: str, tf32: bool) -> float | None:
        """Peak FLOP/s of a precision (bf16, fp16, fp32); None when unknown. tf32: whether fp32 may use it.

        A CPU is measured in the precision that it trains in.
        """
        if not self.gpu or precision != "fp32":
            return self.flops
        return self.tf32 if tf32 and self.tf32 is not None else self.fp32


# Peak is dense (datasheets print sparse figures, twice as high, with a footnote). Memory is what the datasheet sells in
# units of 10^9 bytes, which is a few per cent less than what torch sees on most of them.
DEVICES: dict[str, Device] = {
    # NVIDIA H100 Tensor Core GPU datasheet, SXM column: 1,979 TFLOP/s bf16 and 989 TF32 with sparsity, 67 fp32, 80 GB,
    # 3.35 TB/s.
    "H100": Device("H100", 80 * GB, 989.4e12, 3.35e12, bf16=True, tf32=494.7e12, fp32=67e12),
    # NVIDIA H200 Tensor Core GPU datasheet, SXM column: 1,979 TFLOP/s bf16 and 989 TF32 with sparsity, 67 fp32, 141 GB,
    # 4.8 TB/s.
    "H200": Device("H200", 141 * GB, 989.4e12, 4.8e12, bf16=True, tf32=494.7e12, fp32=67e12),
    # NVIDIA A100 Tensor Core GPU datasheet, SXM4 80GB column: 312 TFLOP/s bf16, 156 TF32, 19.5 fp32, 80 GB, 2,039 GB/s.
    "A100-80": Device("A100-80", 80 * GB, 312e12, 2.039e12, bf16=True, tf32=156e12, fp32=19.5e12),
    # NVIDIA A100 Tensor Core GPU datasheet, 40GB column: 312 TFLOP/s bf16, 156 TF32, 19.5 fp32, 40 GB, 1,555 GB/s.
    "A100-40": Device("A100-40", 40 * GB, 312e12, 1.555e12, bf16=True, tf32=156e12, fp32=19.5e12),
    # NVIDIA L40S GPU datasheet: 362.05 TFLOP/s bf16 dense, 183 TF32 dense, 91.6 fp32, 48 GB, 864 GB/s.
    "L40S": Device("L40S", 48 * GB, 362.05e12, 0.864e12, bf16=True, tf32=183e12, fp32=91.6e12),
    # NVIDIA L4 Tensor Core GPU datasheet: 242 TFLOP/s bf16 and 120 TF32 with sparsity, 30.3 fp32, 24 GB, 300 GB/s.
    "L4": Device("L4", 24 * GB, 121e12, 0.3e12, bf16=True, tf32=60e12, fp32=30.3e12),
    # NVIDIA T4 Tensor Core GPU datasheet: 65 TFLOP/s fp16 (mixed), 8.1 fp32, 16 GB, 320 GB/s; no bf16 or TF32.
    "T4": Device("T4", 16 * GB, 65e12, 0.32e12, bf16=False, fp32=8.1e12),
}

# Marks in the name that a driver gives ("NVIDIA H100 80GB HBM3"), the most telling first.
_MARKS = (("H200", "H200"), ("H100", "H100"), ("L40S", "L40S"), ("L4", "L4"), ("T4", "T4"))


def known(name: str, memory: int | None, bf16: bool) -> Device:
    """The device that a driver calls `name`; of an unknown one only memory (bytes) and bf16 are known.

    A slice of a GPU (MIG) has less memory than its table row: then the peak of the whole one says nothing about it.
    """
    upper = name.upper()
    key = next((row for mark, row in _MARKS if mark in upper.replace("-", " ").split()), None)
    if key is None and "A100" in upper:
        key = "A100-40" if memory is not None and memory < 50 * GB else "A100-80"
    if key is None:
        return Device(name, memory, bf16=bf16)
    row = DEVICES[key]
    assert row.memory is not None
    if "MIG" in upper or (memory is not None and memory < 0.9 * row.memory):
        return Device(name, memory, bf16=bf16)
    return row


def cpu(memory: int | None, flops: float | None = None) -> Device:
    """The CPU of this machine. memory: bytes that a process may use; flops: measured FLOP/s in fp32."""
    return Device("cpu", memory, flops, bf16=False, gpu=False)


def smaller_to_larger() -> tuple[Device, ...]:
    """The table by memory, for "the nearest that would fit"."""
    return tuple(sorted(DEVICES.values(), key=lambda d: (d.memory or 0, d.flops or 0)))


@dataclass(frozen=True, slots=True)
class Interval:
    """A number that is only known to lie between `low` and `high`."""

    low: float
    high: float


def utilisation(gpu: bool, parameters: int, adapter: bool, nodes: int) -> Interval:
    """Model FLOP utilisation that is *assumed* until steps are measured: the share of the peak that training reaches.

    From published fine-tuning and pre-training figures (PaLM 46 %, Llama 3 38 to 43 % on 16,000 GPUs, small models on
    one GPU well below), kept wide on purpose. It is an assumption, and every plan calls it one.
    """
    if not gpu:
        # Of a CPU's own measured matrix product; small models spend most of a step between the products.
        return Interval(0.03, 0.5) if parameters < 5_000_000 else Interval(0.25, 0.9)
    if parameters < 1_000_000_000:
        low, high = 0.05, 0.35
    elif adapter:
        low, high = 0.20, 0.50
    else:
        low, high = 0.25, 0.50
    return Interval(low * (0.8 if nodes > 1 else 1.0), high)
