"""Where arrays lie: on one device, or on a mesh of several, by axes that XLA's partitioner (GSPMD) goes by.

The mesh has two axes. A batch's rows are spread over both. Over `fsdp` the parameters and the optimizer's moments are
spread as well (fully sharded data parallelism; Rajbhandari et al., 2020), over `data` they are repeated. What is
computed is what one device computes: losses and gradients are sums over the whole batch, and so are AWP's norms, but
for the order of those sums. Dropout stays the same too: JAX draws each number from its place in the whole batch
(`jax_threefry_partitionable`, on by default).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scanner_jax.pipeline import Batch
from scanner_jax.processes import several

Tree = TypeVar("Tree")

AXES = ("data", "fsdp")


class PlacementError(ValueError):
    """A mesh that the devices at hand cannot make."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """On a mesh; without one, on JAX's default device, which needs no word about where anything is."""

    mesh: Mesh | None = None

    @property
    def devices(self) -> int:
        """Over how many devices a batch's rows are spread."""
        return self.mesh.size if self.mesh else 1

    @property
    def everywhere(self) -> NamedSharding | None:
        """The sharding of what each device has whole."""
        return NamedSharding(self.mesh, PartitionSpec()) if self.mesh else None

    def shardings(self, tree: Tree) -> Tree | None:
        """Those of a tree of parameters, or of an optimizer's moments, which have the parameters' shapes.

        A tensor with two or more axes is cut along its longest one that `fsdp` divides; any other is repeated.
        """
        if self.mesh is None:
            return None
        return jax.tree.map(functools.partial(_sharding, self.mesh), tree)

    def abstract(self, tree: Tree) -> Tree:
        """Shapes, types and shardings of such a tree."""
        if self.mesh is None:
            return tree
        return jax.tree.map(_abstract, tree, self.shardings(tree))

    def abstract_batch(self, batch: Batch, *, stacked: bool = False) -> Batch:
        """The same of a batch that `spread` has padded, or of several stacked in a new first axis."""
        if self.mesh is None:
            return batch
        abstract = functools.partial(_abstract_rows, sharding=self._rows(stacked), axis=int(stacked))
        return jax.tree.map(abstract, batch)

    def put(self, tree: Tree) -> Tree:
        """Put such a tree on the devices, from the host or from where it is; each process has it whole."""
        if self.mesh is None:
            there = all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree))
            return tree if there else jax.device_put(tree)  # which takes milliseconds, even where it moves nothing
        if several():
            return jax.tree.map(_put_part, tree, self.shardings(tree))
        return jax.device_put(tree, self.shardings(tree))

    def copied(self, tree: Tree) -> Tree:
        """Put a copy of such a tree on the devices, which may be donated."""
        if self.mesh is None:
            return jax.tree.map(jnp.array, tree)
        return self.put(jax.tree.map(np.array, tree))  # on a CPU, an array may share the host's memory

    def put_batch(self, batch: Batch, *, stacked: bool = False) -> Batch:
        """Put a batch that `spread` has padded on the devices, or several stacked in a new first axis."""
        if self.mesh is None:
            return batch
        if several():
            return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, self._rows(stacked)), batch)
        return jax.device_put(batch, self._rows(stacked))

    def spread(self, collate: Callable[..., Batch]) -> Callable[..., Batch]:
        """Make batches whose rows divide among the devices: with empty rows at the end, which no mask counts.

        Of several processes, each has the rows of its own devices. All find the same place for each of the whole
        batch's sequences (`packing.lay_out`), so that shapes are the same without a word.
        """
        return collate if self.mesh is None else functools.partial(_own_rows, self.devices, collate)

    def _rows(self, stacked: bool) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(None, AXES) if stacked else PartitionSpec(AXES))


ONE_DEVICE = Placement()


def place(*, data: int, fsdp: int) -> Placement:
    """Lay a mesh over the devices at hand; none for one device.

    Args:
        data: devices along the axis `data`; -1 takes as many as there are.
        fsdp: devices along the axis `fsdp`.

    Raises:
        PlacementError: there are fewer devices, or a number is not accepted.
    """
    there = jax.device_count()
    if fsdp < 1 or (data < 1 and data != -1):
        raise PlacementError(
            f"mesh.data={data}, mesh.fsdp={fsdp}: expected 1 or more; data may be -1, for all there are"
        )
    wanted = fsdp * (max(1, there // fsdp) if data == -1 else data)
    if wanted > there:
        raise PlacementError(
            f"mesh.data={data}, mesh.fsdp={fsdp}: {wanted} devices, but there are {there} "
            f"({jax.devices()[0].device_kind}); data times fsdp is at most that"
        )
    if several() and wanted != there:
        raise PlacementError(
            f"mesh.data={data}, mesh.fsdp={fsdp}: {wanted} devices, but these {jax.process_count()} processes have "
            f"{there}, and each of them must take part; mesh.data=-1 takes all"
        )
    if wanted == 1:
        return ONE_DEVICE
    return Placement(Mesh(np.array(jax.devices()[:wanted]).reshape(-1, fsdp), AXES))


def _sharding(mesh: Mesh, leaf: Any) -> NamedSharding:
    parts = mesh.shape["fsdp"]
    shape = np.shape(leaf)
    cut = [axis for axis, length in enumerate(shape) if len(shape) > 1 and length % parts == 0]
    spec: list[str | None] = [None] * len(shape)
    if cut and parts > 1:
        spec[max(cut, key=shape.__getitem__)] = "fsdp"
    return NamedSharding(mesh, PartitionSpec(*spec))


def _abstract(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _abstract_rows(leaf: Any, *, sharding: NamedSharding, axis: int) -> jax.ShapeDtypeStruct:
    """That of all processes' rows, given this one's."""
    shape = list(leaf.shape)
    shape[axis] *= jax.process_count()
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)


def _put_part(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Put on this process's devices what they hold of an array."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf  # it is there
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put_part(jax.random.key_data(leaf), sharding))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def _own_rows(devices: int, collate: Callable[..., Batch], *features: Any, **options: Any) -> Batch:
    """A batch with rows added until the devices divide them; of several processes, each one's own part of it."""
    batch = collate(*features, **options)
    padded = {name: _with_rows(array, -(-len(array) // devices) * devices) for name, array in batch.items()}
    if not several():
        return padded
    return {name: np.split(array, jax.process_count())[jax.process_index()] for name, array in padded.items()}


def _with_rows(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])
