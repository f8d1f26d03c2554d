"""Limit the size of a network that is built from a config of unknown origin, by the size of its weights file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # torch has no public name for it
from torch.utils._pytree import tree_leaves

SPARE_OPERATIONS, SPARE_BYTES = 10_000, 2**28
"""Operations and bytes allowed in addition to the weights, for initialisations and position tables."""


@dataclass(frozen=True)
class Held:
    """The number of ``tensors`` in a weights file, and their total size in ``bytes``."""

    tensors: int
    bytes: int

    @contextlib.contextmanager
    def bounds(self) -> Iterator[None]:
        """Raise ``ValueError`` as soon as the code of the ``with`` block allocates far more memory than the file could
        fill. Memory on the meta device counts too."""
        with _Counted(40 * self.tensors + SPARE_OPERATIONS, 4 * self.bytes + SPARE_BYTES) as counted:
            try:
                yield
            except Exception as error:
                if counted.over is not None:  # other packages may have replaced the original exception
                    raise ValueError(counted.over) from error
                raise


class _Counted(TorchDispatchMode):
    """A dispatch mode that counts operations and the bytes of their outputs, without views and in-place results."""

    def __init__(self, operations: int, bytes: int) -> None:
        super().__init__()
        self.operations, self.bytes = operations, bytes
        self.over: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.operations -= 1
        if any(returned.alias_info is None for returned in func._schema.returns):
            found = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
            self.bytes -= sum(tensor.numel() * tensor.element_size() for tensor in found)
        if self.operations < 0 or self.bytes < 0:
            self.over = "the network would be far larger than its weights file"
            raise ValueError(self.over)
        return made
