"""Shuffled batches of anything: TensorDataset and DataLoader, under PyTorch's names.

In: a dataset, which is what has a length and gives a sample for a number. Out: batches of Tensors,
an epoch for each loop. Called by users' training loops; text has Batches of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import shown
from ..creation import get_default_device, stack, tensor
from ..dtypes import int64
from ..errors import ShapeError, UserError
from ..random import generator as random_source
from ..rules import whole
from ..spelling import refuse
from ..tensor import Tensor
from .epochs import shuffled


class TensorDataset:
    """Tensors whose first axis counts the same samples; a sample is a tuple of their i-th rows."""

    def __init__(self, *tensors: Tensor) -> None:
        for t in tensors:
            if not isinstance(t, Tensor):
                raise TypeError(f"TensorDataset is made of Tensors, not of {shown(t)}")
        if not tensors or not all(t.ndim for t in tensors):
            raise ShapeError(
                "TensorDataset wants Tensors of at least one axis, whose rows it gives"
            )
        if len({len(t) for t in tensors}) > 1:
            sizes = ", ".join(str(t.shape) for t in tensors)
            raise ShapeError(f"TensorDataset: {sizes} differ in their first axis, the samples")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class DataLoader:
    """Batches of a dataset: each loop over it is an epoch.

    dataset: has a length and gives dataset[i], as a TensorDataset, a list or an array do.
    batch_size: samples in a batch; None: the samples, one by one.
    shuffle: another order in every epoch, which follows from the seed and `epoch`, the number of
        the epoch that comes next; a run that goes on sets it.
    seed: by default that of tx.manual_seed; no other random numbers depend on the order.
    sampler, batch_sampler: numbers of samples, or lists of them, in their order; not with shuffle.
    collate_fn: makes a batch of a list of samples; by default Tensors, arrays and numbers are
        stacked, and tuples, lists and dicts kept around them.
    drop_last: no smaller batch at the end, for which a compiled step is traced again.
    num_workers, pin_memory, ...: how PyTorch runs it; no batch depends on them, and they do
        nothing here.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: None = None,
        multiprocessing_context: Any = None,
        generator: None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
    ) -> None:
        refuse("DataLoader", "give seed=, an int", generator=generator)
        refuse("DataLoader", "there are no workers", worker_init_fn=worker_init_fn)
        if not hasattr(type(dataset), "__getitem__") or not hasattr(type(dataset), "__len__"):
            raise TypeError(
                f"DataLoader: a dataset has a length and gives dataset[i], unlike "
                f"{shown(dataset)}; a list(...) of it does"
            )
        if batch_size is not None and whole("DataLoader: batch_size", batch_size) < 1:
            raise UserError(
                f"DataLoader: batch_size is {batch_size}; it must be 1 or more, or None"
            )
        if shuffle and (sampler is not None or batch_sampler is not None):
            raise UserError("DataLoader: shuffle goes without a sampler, which gives the order")
        if batch_sampler is not None and (sampler is not None or drop_last or batch_size != 1):
            raise UserError(
                "DataLoader: batch_sampler gives the batches; leave batch_size, sampler and "
                "drop_last out"
            )
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, bool(shuffle)
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.drop_last, self.collate_fn = drop_last, collate_fn
        self.seed = None if seed is None else whole("DataLoader: seed", seed)
        self.epoch = 0

    def __len__(self) -> int:
        """The batches of an epoch."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]
        samples = len(self.dataset if self.sampler is None else self.sampler)  # type: ignore[arg-type]
        if self.batch_size is None:
            return samples
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        order, self.epoch = self._order(), self.epoch + 1
        if self.batch_sampler is None and self.batch_size is None:
            samples = (self.dataset[i] for i in order)
            return samples if self.collate_fn is None else map(self.collate_fn, samples)
        return map(self._batch, self._batches(order))

    def _order(self) -> Iterable[int]:
        if self.sampler is not None:
            return self.sampler
        if not self.shuffle:
            return range(len(self.dataset))
        seed = self.seed
        if seed is None:
            seed = random_source(get_default_device()).key.item()
        bits = np.random.Philox(np.random.SeedSequence([seed, self.epoch]))
        return [int(i) for i in shuffled(len(self.dataset), bits)]

    def _batches(self, order: Iterable[int]) -> Iterator[Sequence[int]]:
        if self.batch_sampler is not None:
            yield from self.batch_sampler
            return
        assert self.batch_size is not None
        batch: list[int] = []
        for i in order:
            batch.append(i)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def _batch(self, indices: Sequence[int]) -> Any:
        if self.collate_fn is not None:
            return self.collate_fn([self.dataset[i] for i in indices])
        if type(self.dataset) is TensorDataset:  # all rows at once
            return [
                t.index_select(0, tensor(indices, dtype=int64, device=t.device))
                for t in self.dataset.tensors
            ]
        return collated([self.dataset[i] for i in indices])


def collated(samples: Sequence[Any]) -> Any:
    """Samples of one kind as a batch: Tensors, arrays and numbers stacked, what holds them kept (a
    tuple becomes a list, as in PyTorch), anything else as a list."""
    first = samples[0]
    if isinstance(first, Tensor):
        return stack(list(samples))
    if isinstance(first, (np.ndarray, np.generic)):
        return tensor(np.stack(samples))
    if isinstance(first, (bool, int, float)):
        return tensor(np.array(samples))
    if isinstance(first, Mapping):
        return {key: collated([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(sample) != len(first) for sample in samples):
            sizes = ", ".join(str(len(sample)) for sample in samples[:9])
            raise ShapeError(f"DataLoader: samples of {sizes} parts make no batch: give collate_fn")
        parts = [collated(part) for part in zip(*samples, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else parts
    return list(samples)
