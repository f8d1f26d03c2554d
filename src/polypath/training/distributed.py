"""Run training in several processes: their ranks and their communication.

``torchrun`` starts the ranks. Each rank trains on its part of each batch, usually with the same path as the others.
After the backward pass, the gradients of the weights that were used are summed over the ranks, in buckets. PyTorch
DDP's search for unused weights is not needed. If all ranks train the same path, each rank knows which weights the path
uses. If each rank draws a path for itself, one small exchange determines the used weights (:func:`reduce_gradients`).

The running statistics of batch-norm are those of rank 0, as in PyTorch's DDP. Training does not read these statistics,
so rank 0 sends them to all ranks only before a network is evaluated. Every checkpoint contains them. With synchronised
batch-norm, all ranks have the same statistics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

BUCKET_BYTES = 25 * 2**20
T = TypeVar("T")


@dataclass
class World:
    """A process of a run, and its connection to the other processes. A single process exchanges nothing.

    Attributes:
        rank, size: the number of this process (counted from 0), and the number of processes.
        local_rank: the number of this process on its machine, which is also the number of its device.
        control: the process group for small exchanges on the CPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes the files and the log."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Return the ``value`` of each rank, in order of rank. Every rank gets the complete list."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def any(self, flag: int) -> int:
        """Return the largest ``flag`` of all ranks."""
        if self.size == 1:
            return flag
        shared = torch.tensor([flag])
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.control)
        return int(shared)

    def on_first(self, act: Callable[[], None]) -> None:
        """Call ``act`` on rank 0 while the other ranks wait.

        Raises:
            ValueError, OSError: the exception of ``act`` on rank 0. Every rank raises it, so that no rank waits for
                rank 0 forever.
        """
        error: ValueError | OSError | None = None
        if self.first:
            try:
                act()
            except (ValueError, OSError) as failure:
                error = failure
        if (told := self.gather(error)[0]) is not None:
            raise error or told

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join_world(device: str = "cpu", timeout_s: float = 1800.0) -> World:
    """Connect to the other processes that ``torchrun`` started. Without ``torchrun``'s environment variables, return a
    ``World`` of one process. CUDA devices communicate with NCCL, other devices with gloo.

    Raises:
        ValueError: only some of ``torchrun``'s variables are set.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return World()
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is set, but {missing[0]} is not: start several processes with torchrun")
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    nccl = device == "cuda"
    if nccl:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if nccl else "gloo", timeout=timedelta(seconds=timeout_s))
    control = dist.new_group(backend="gloo") if nccl else dist.group.WORLD
    return World(rank, size, local, control)


def reduce_gradients(
    parameters: Sequence[nn.Parameter], world: World, *, same_paths: bool = True, sharded: bool = False, flag: int = 0
) -> int:
    """Sum gradients over all ranks, in buckets of 25 MiB.

    First each rank sends to the others, on the CPU, which parameters have a gradient, and its ``flag``. The largest
    flag is returned. Without ``same_paths``, each rank has drawn a path for itself. A rank then contributes zeros for
    parameters that only other ranks used. A parameter that no rank used still has no gradient. ``sharded`` gradients
    (FSDP2) are already summed.

    Raises:
        RuntimeError: with ``same_paths``, the ranks did not use the same parameters.
    """
    if world.size == 1:
        return flag
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    told = torch.cat([torch.tensor([flag], dtype=torch.uint8), used, 1 - used])
    dist.all_reduce(told, dist.ReduceOp.MAX, group=world.control)
    somewhere, nowhere = told[1 : 1 + len(used)], told[1 + len(used) :]
    if (somewhere & nowhere).any():
        if same_paths:
            raise RuntimeError(
                "the ranks ran different paths, but must run the same path, so their gradients cannot be summed"
            )
        for p, alive in zip(parameters, somewhere.tolist(), strict=True):
            if alive and p.grad is None:
                p.grad = torch.zeros_like(p)
    if not sharded:
        _sum([p.grad for p in parameters if p.grad is not None])
    return int(told[0])


def _sum(tensors: list[Tensor]) -> None:
    waiting = []
    for row in buckets(tensors):
        flat = torch.cat([t.reshape(-1) for t in row])
        waiting.append((row, flat, dist.all_reduce(flat, async_op=True)))
    for row, flat, work in waiting:
        work.wait()
        for t, part in zip(row, flat.split([t.numel() for t in row]), strict=True):
            t.copy_(part.view(t.shape))


def buckets(tensors: Iterable[Tensor], limit: int = BUCKET_BYTES) -> list[list[Tensor]]:
    """Split tensors into lists. The tensors of a list have the same dtype and at most ``limit`` bytes in total. A
    larger tensor is alone in its list."""
    rows: list[list[Tensor]] = []
    held = 0
    for t in tensors:
        size = t.numel() * t.element_size()
        if not rows or held + size > limit or rows[-1][0].dtype != t.dtype:
            rows.append([])
            held = 0
        rows[-1].append(t)
        held += size
    return rows


def share(tensors: Iterable[Tensor], world: World) -> None:
    """Broadcast rank 0's values to all ranks, in place."""
    if world.size > 1:
        for t in tensors:
            dist.broadcast(t, 0)


def part_of(batch: int, part: int, parts: int) -> slice:
    """Return the slice of part ``part`` (counted from 0), if ``batch`` images are split into ``parts`` parts as evenly
    as possible."""
    small, more = divmod(batch, parts)
    begin = part * small + min(part, more)
    return slice(begin, begin + small + (part < more))


def sharded(t: Tensor) -> TypeGuard[DTensor]:
    """Return whether FSDP2 has sharded this tensor. Only the name of its class is checked, to avoid a slow import."""
    return type(t).__name__ == "DTensor"


def full(t: Tensor) -> Tensor:
    """Return a complete copy on the CPU of a tensor that FSDP2 may have sharded. All ranks must call this together."""
    t = t.detach()
    return (t.full_tensor() if sharded(t) else t).to("cpu", copy=True)


def put(into: Tensor, whole: Tensor) -> Tensor:
    """Copy the tensor ``whole``, which is complete on every rank, into ``into``, which may be sharded by FSDP2."""
    if sharded(into):
        from torch.distributed.tensor import distribute_tensor

        whole = distribute_tensor(whole.to(into.device), into.device_mesh, into.placements)
    with torch.no_grad():
        return into.copy_(whole)
