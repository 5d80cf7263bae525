"""Multi-LoRA linear layers: one slot per adapter, several adapters in one batch.

Each layer keeps its adapters' matrices stacked: A [slots, in, rank] and B [slots, rank, out], B scaled.
Slot 0 is all zeros: the base itself. Stacks grow on demand, in slots and in rank, so a small
base with a few small adapters stays small.
"""

import threading
from collections.abc import Sequence

import torch
from torch import nn

BASE_SLOT = 0
SLOTS_AT_FIRST = 4


class Selection:
    """The slot of each row of one batch, and the rows' matrices gathered from the stacks.

    Gathered once per selection, on first use, not once per step: a new selection is made
    only when the rows change.
    """

    def __init__(self, slots: Sequence[int]) -> None:
        self.slots = tuple(slots)
        self.only = self.slots[0] if len(set(self.slots)) == 1 else None
        self._index = torch.tensor(self.slots)
        self._gathered: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def gather(
        self, layer: int, a: torch.Tensor, b: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows' A [rows, in, rank] and B [rows, rank, out] of one layer."""
        found = self._gathered.get(layer)
        if found is None:
            found = self._gathered[layer] = (a[self._index], b[self._index])
        return found

    def erase(self) -> None:
        """Overwrite the gathered copies with zeros. The selection must not be used after."""
        for a, b in self._gathered.values():
            a.zero_()
            b.zero_()
        self._gathered.clear()


class Interrupted(Exception):
    """A forward pass was abandoned for an urgent operation."""


class Current:
    """State of the current forward pass, shared by a model's layers: its selection, and the event that interrupts it."""

    selection: Selection | None = None
    urgent: threading.Event | None = None


class LoraLinear(nn.Module):
    """A linear layer and the stacked adapters on it."""

    def __init__(self, base: nn.Linear, current: Current, number: int) -> None:
        super().__init__()
        self.base = base
        self._current = current
        self._number = number
        self._a: torch.Tensor | None = None
        self._b: torch.Tensor | None = None

    @property
    def bytes_held(self) -> int:
        """Return the size of the stacks in bytes."""
        return sum(t.nbytes for t in (self._a, self._b) if t is not None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for x [rows, tokens, in], each row through its own adapter.

        Raises Interrupted if an urgent operation waits.
        """
        current = self._current
        if current.urgent is not None and current.urgent.is_set():
            raise Interrupted
        y: torch.Tensor = self.base(x)
        selection = current.selection
        if selection is None or self._a is None or self._b is None or selection.only == BASE_SLOT:
            return y
        if selection.only is None:
            a, b = selection.gather(self._number, self._a, self._b)
            return torch.baddbmm(y, torch.bmm(x, a), b)
        a, b = self._a[selection.only], self._b[selection.only]
        flat = torch.addmm(y.flatten(0, -2), x.flatten(0, -2) @ a, b)
        return flat.view_as(y)

    def write(self, slot: int, a: torch.Tensor, b: torch.Tensor) -> None:
        """Write one adapter's A [rank, in] and scaled B [out, rank] into a slot, growing the stacks to fit."""
        rank = a.shape[0]
        stack_a, stack_b = self.fit(slot, rank)
        stack_a[slot].zero_()
        stack_b[slot].zero_()
        stack_a[slot, :, :rank] = a.T
        stack_b[slot, :rank] = b.T

    def fit(self, slot: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return stacks with room for the slot and the rank; replaced ones are overwritten with zeros."""
        old_a, old_b = self._a, self._b
        slots, ranks = (0, 0) if old_a is None else (old_a.shape[0], old_a.shape[2])
        if old_a is not None and old_b is not None and slot < slots and rank <= ranks:
            return old_a, old_b
        slots = max(slots, SLOTS_AT_FIRST)
        while slots <= slot:
            slots *= 2
        ranks = max(ranks, rank)
        weight = self.base.weight
        a = weight.new_zeros(slots, weight.shape[1], ranks)
        b = weight.new_zeros(slots, ranks, weight.shape[0])
        if old_a is not None and old_b is not None:
            a[: old_a.shape[0], :, : old_a.shape[2]] = old_a
            b[: old_b.shape[0], : old_b.shape[1]] = old_b
            old_a.zero_()
            old_b.zero_()
        self._a, self._b = a, b
        return a, b

    def erase(self, slot: int) -> None:
        """Overwrite a slot's matrices with zeros."""
        if self._a is not None and self._b is not None and slot < self._a.shape[0]:
            self._a[slot].zero_()
            self._b[slot].zero_()

    def residue(self, slot: int) -> float:
        """Return the sum of absolute weights left in a slot: 0.0 after `erase`."""
        if self._a is None or self._b is None or slot >= self._a.shape[0]:
            return 0.0
        return float(self._a[slot].abs().sum() + self._b[slot].abs().sum())


def wrap_linears(model: nn.Module, *, leave: nn.Module | None) -> dict[str, LoraLinear]:
    """Put a LoraLinear around every linear layer but `leave`; return them by their full names."""
    current = Current()
    layers: dict[str, LoraLinear] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not leave and "." in name:
            parent, child = name.rsplit(".", 1)
            layers[name] = LoraLinear(module, current, len(layers))
            setattr(model.get_submodule(parent), child, layers[name])
    return layers


def use(
    layers: dict[str, LoraLinear], selection: Selection, urgent: threading.Event | None
) -> None:
    """Make the next forward pass use this selection, and end as soon as `urgent` is set."""
    for layer in layers.values():
        # One object, shared by all layers.
        current = layer._current  # noqa: SLF001  of this module
        current.selection, current.urgent = selection, urgent
        return
