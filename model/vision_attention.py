"""Which patches see which: the plan of one pack, and the kernels that follow it.

A "slab" is the patches of one visual that share one index along z (one slice, or ``patch_size[0]`` of them), behind
their own copy of the prefix tokens. Slabs lie one after another, so whatever a slab may see is one contiguous range:
the slabs of its own visual at most ``depth_window`` away. The plan states these ranges and nothing else; every kernel
reads it, so that one comparison with the eager one covers leaks in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k and v, each (heads, S, head_dim) -> (heads, S, head_dim)."""


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """R ranges of queries, which tile a sequence of S tokens, and for each the range of keys that it sees.

    Attributes:
        query_lengths: (R,) tokens in each range of queries.
        key_starts: (R,) first key that it sees.
        key_lengths: (R,) how many keys it sees.
    """

    query_lengths: tuple[int, ...]
    key_starts: tuple[int, ...]
    key_lengths: tuple[int, ...]

    @property
    def total(self) -> int:
        """S, the tokens of the sequence."""
        return sum(self.query_lengths)

    @property
    def pairs(self) -> int:
        """Query-key pairs that are computed: what attention costs."""
        return sum(q * k for q, k in zip(self.query_lengths, self.key_lengths, strict=True))

    @property
    def each_sees_itself(self) -> bool:
        """Whether every range sees exactly itself, so that no key is read twice."""
        start = 0
        for length, key_start, key_length in zip(self.query_lengths, self.key_starts, self.key_lengths, strict=True):
            if (start, length) != (key_start, key_length):
                return False
            start += length
        return True


def plan_attention(
    grids: Sequence[tuple[int, int, int]], prefix_tokens: int = 0, depth_window: int | None = None
) -> AttentionPlan:
    """The plan of visuals with ``grids`` (z, y, x), their slabs one after another in raster order along z.

    Neighbouring slabs that see the same keys become one range: without a window a visual is one range.
    """
    queries: list[int] = []
    starts: list[int] = []
    lengths: list[int] = []
    begin = 0
    for depth, rows, cols in grids:
        slab = prefix_tokens + rows * cols
        window = depth if depth_window is None else depth_window
        previous = None
        for z in range(depth):
            seen = (max(0, z - window), min(depth, z + window + 1))
            if seen == previous:
                queries[-1] += slab
                continue
            previous = seen
            queries.append(slab)
            starts.append(begin + seen[0] * slab)
            lengths.append((seen[1] - seen[0]) * slab)
        begin += depth * slab
    return AttentionPlan(query_lengths=tuple(queries), key_starts=tuple(starts), key_lengths=tuple(lengths))


def attention_kernel(implementation: str, plan: AttentionPlan, device: torch.device) -> Attend:
    """The function that all layers call; what depends on the plan alone (masks, indices) is made once, here.

    Raises:
        ValueError: an unknown implementation.
    """
    if implementation not in KERNELS:
        raise ValueError(
            f"the vision encoder has no attention {implementation!r}; set attn_implementation to one of "
            f"{', '.join(KERNELS)}"
        )
    return KERNELS[implementation](plan, device)


def key_ranges(plan: AttentionPlan, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and last + 1 key of every token, each (S,)."""
    times = torch.tensor(plan.query_lengths, device=device)
    starts = torch.tensor(plan.key_starts, device=device)
    stops = starts + torch.tensor(plan.key_lengths, device=device)
    return starts.repeat_interleave(times), stops.repeat_interleave(times)


def eager_attention(plan: AttentionPlan, device: torch.device) -> Attend:
    """Softmax attention with a mask (S, S) for all heads: what the other kernels must equal."""
    starts, stops = key_ranges(plan, device)
    position = torch.arange(plan.total, device=device)
    hidden = (position < starts[:, None]) | (position >= stops[:, None])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(hidden, float("-inf"))
        return scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v

    return attend


def sdpa_attention(plan: AttentionPlan, device: torch.device) -> Attend:
    """torch's fused attention; ranges of equal shape share one call, and no mask is ever made.

    The keys of a sliding window are views that overlap (unfold), so the window costs no memory.
    """
    runs = list(_runs(plan))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads, _, dim = q.shape
        out = []
        for start, count, length, key_start, key_length in runs:
            stop = start + count * length
            # (heads, count * length, dim) -> (count, heads, length, dim)
            query = q[:, start:stop].reshape(heads, count, length, dim).transpose(0, 1)
            key, value = (_windows(x, count, length, key_start, key_length) for x in (k, v))
            mixed = F.scaled_dot_product_attention(query, key, value)
            out.append(mixed.transpose(0, 1).reshape(heads, stop - start, dim))
        return torch.cat(out, dim=1)

    return attend


def _windows(x: Tensor, count: int, step: int, start: int, length: int) -> Tensor:
    """(heads, S, dim) -> (count, heads, length, dim): ``count`` ranges of ``length``, each ``step`` after the last."""
    heads, _, dim = x.shape
    x = x[:, start : start + (count - 1) * step + length]
    if length == step or count == 1:
        return x.reshape(heads, count, length, dim).transpose(0, 1)
    # unfold puts the range last: (heads, count, dim, length)
    return x.unfold(1, length, step).permute(1, 0, 3, 2)


def _runs(plan: AttentionPlan) -> Iterator[tuple[int, int, int, int, int]]:
    """(query start, ranges, queries of each, first key, keys of each) of neighbours with the same shape and offset."""
    start, index, total = 0, 0, len(plan.query_lengths)
    while index < total:
        length, key_start, key_length = plan.query_lengths[index], plan.key_starts[index], plan.key_lengths[index]
        count = 1
        while (
            index + count < total
            and plan.query_lengths[index + count] == length
            and plan.key_lengths[index + count] == key_length
            and plan.key_starts[index + count] == key_start + count * length
        ):
            count += 1
        yield start, count, length, key_start, key_length
        start += count * length
        index += count


def flash_attention(plan: AttentionPlan, device: torch.device) -> Attend:
    """flash-attn's variable-length kernel; CUDA and half precision only. NOT TESTED: no GPU was at hand.

    The kernel wants the keys of one range after those of another, so a sliding window copies them (2 * window + 1
    times); ``sdpa`` does not.
    """
    from flash_attn import flash_attn_varlen_func

    def ends(lengths: tuple[int, ...]) -> Tensor:
        return torch.tensor([0, *lengths], device=device, dtype=torch.int32).cumsum(0, dtype=torch.int32)

    query_ends, key_ends = ends(plan.query_lengths), ends(plan.key_lengths)
    gather = None
    if not plan.each_sees_itself:
        pieces = [
            torch.arange(start, start + length) for start, length in zip(plan.key_starts, plan.key_lengths, strict=True)
        ]
        gather = torch.cat(pieces).to(device)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if gather is not None:
            k, v = k.index_select(1, gather), v.index_select(1, gather)
        q, k, v = (x.transpose(0, 1).contiguous() for x in (q, k, v))  # (tokens, heads, head_dim)
        mixed = flash_attn_varlen_func(
            q, k, v, query_ends, key_ends, max(plan.query_lengths), max(plan.key_lengths)
        )  # fmt: skip
        return mixed.transpose(0, 1)

    return attend


def flex_attention(plan: AttentionPlan, device: torch.device) -> Attend:
    """torch's flex_attention with a block mask made of the plan; blocks that nobody sees are skipped.

    On a CPU it runs forward only (torch has no CPU backward; use sdpa to train there), uncompiled. On CUDA it is
    compiled; that path, and with it the backward, is NOT TESTED: no GPU was at hand.
    """
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as kernel

    starts, stops = key_ranges(plan, device)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= starts[query]) & (key < stops[query])

    mask = create_block_mask(sees, None, None, plan.total, plan.total, device=str(device))
    run = torch.compile(kernel, dynamic=True) if device.type == "cuda" else kernel

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if device.type == "cpu" and torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            raise ValueError("flex_attention has no backward pass on a CPU; train with attn_implementation: sdpa there")
        return run(q[None], k[None], v[None], block_mask=mask)[0]

    return attend


KERNELS: dict[str, Callable[[AttentionPlan, torch.device], Attend]] = {
    "eager": eager_attention,
    "sdpa": sdpa_attention,
    "flash_attention_2": flash_attention,
    "flex_attention": flex_attention,
}
