"""Residual vector quantisation with moving averages; names of lucidrains' older versions."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

_LEAST_SHARE = 0.05  # of the mean count per code


class Codebook(nn.Module):
    """``codes`` vectors, moving averages of the inputs that are mapped to them.

    Args:
        threshold: a code whose averaged count per batch is below it is replaced by a vector of the
            batch; except if the count is at least 5 % of the mean count, since in small batches all
            counts are small.
        legacy_expiry: as in the released code, where the replacement has no effect.
    """

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(
        self, width: int, codes: int, decay: float, threshold: float, legacy_expiry: bool = False
    ) -> None:
        super().__init__()
        self.decay, self.threshold, self.legacy_expiry = decay, threshold, legacy_expiry
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.register_buffer("embed", torch.zeros(codes, width))
        self.register_buffer("embed_avg", torch.zeros(codes, width))

    @torch.no_grad()
    def start(self, vectors: Tensor, rounds: int) -> None:
        """k-means of (N,width); with fewer vectors than codes some initial means are equal."""
        codes = len(self.embed)
        enough = len(vectors) >= codes
        order = torch.randperm(len(vectors)) if enough else torch.randint(len(vectors), (codes,))
        means = vectors[order[:codes].to(vectors.device)].clone()
        for _ in range(rounds):
            chosen = self._nearest(vectors, means)
            counts, sums = self._sums(vectors, chosen)
            means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), means)
        counts, _ = self._sums(vectors, self._nearest(vectors, means))
        self.embed.copy_(means)
        self.embed_avg.copy_(means * counts[:, None])
        self.cluster_size.copy_(counts)
        self.inited.fill_(1.0)

    @staticmethod
    def _nearest(vectors: Tensor, means: Tensor) -> Tensor:
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(vectors[None], means[None], compute_mode=exact)[0].argmin(dim=-1)

    def _sums(self, vectors: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(chosen, minlength=len(self.embed)).to(vectors)
        sums = torch.zeros_like(self.embed).index_add_(0, chosen, vectors)
        return counts, sums

    def codes(self, vectors: Tensor) -> Tensor:
        """(N,width) -> (N,) int64."""
        return self._nearest(vectors.float(), self.embed)

    @torch.no_grad()
    def follow(self, vectors: Tensor, chosen: Tensor) -> None:
        """Update the moving averages with a batch, and replace codes that are hardly used."""
        vectors = vectors.detach().float()
        counts, sums = self._sums(vectors, chosen)
        if dist.is_available() and dist.is_initialized():  # one codebook for all processes
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.embed_avg.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smooth = (self.cluster_size + 1e-5) / (total + 1e-5 * len(counts)) * total
        self.embed.copy_(self.embed_avg / smooth[:, None].clamp(min=1e-12))
        least = min(self.threshold, _LEAST_SHARE * float(counts.sum()) / len(counts))
        dead = self.cluster_size < least
        if self.legacy_expiry or not dead.any():
            return
        fresh = vectors[torch.randint(len(vectors), (int(dead.sum()),)).to(vectors.device)]
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(fresh, 0)
        self.embed[dead] = fresh
        # The mean count, so that a new code is not replaced before it can be used.
        share = float(counts.sum()) / len(counts)
        self.cluster_size[dead] = share
        self.embed_avg[dead] = fresh * share


class _Stage(nn.Module):
    def __init__(self, *args: object) -> None:
        super().__init__()
        self._codebook = Codebook(*args)


class ResidualVQ(nn.Module):
    """``depth`` codebooks (:class:`Codebook`), each for the residual of the previous ones."""

    def __init__(
        self,
        width: int,
        codes: int,
        depth: int,
        decay: float = 0.99,
        threshold: float = 2.0,
        legacy_expiry: bool = False,
    ) -> None:
        super().__init__()
        settings = (width, codes, decay, threshold, legacy_expiry)
        self.layers = nn.ModuleList(_Stage(*settings) for _ in range(depth))

    @property
    def codebooks(self) -> list[Codebook]:
        return [layer._codebook for layer in self.layers]

    @torch.no_grad()
    def start(self, vectors: Tensor, rounds: int = 10) -> None:
        """k-means of (N,width), stage by stage."""
        rest = vectors.detach().float()
        for book in self.codebooks:
            book.start(rest, rounds)
            rest = rest - book.embed[book.codes(rest)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B,T,width) -> quantised (B,T,width), codes (B,T,depth), commitment loss.

        Gradients pass straight through to ``x``; in training mode the codebooks are updated.
        """
        flat = x.reshape(-1, x.shape[-1])
        rest, total = flat, torch.zeros_like(flat)
        chosen, commit = [], []
        for book in self.codebooks:
            codes = book.codes(rest.detach())
            quantised = book.embed[codes].to(flat.dtype)
            commit.append(F.mse_loss(quantised, rest))
            if self.training:
                book.follow(rest, codes)
            rest = rest - quantised
            total = total + quantised
            chosen.append(codes)
        straight_through = flat + (total - flat).detach()
        codes = torch.stack(chosen, dim=-1).view(*x.shape[:-1], -1)
        return straight_through.view_as(x), codes, torch.stack(commit).mean()

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (...,depth) int64 -> vectors (...,width)."""
        return sum(book.embed[codes[..., i]] for i, book in enumerate(self.codebooks))


def nucleus_sample(
    logits: Tensor, top_p: float, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one token (B,) per row of (B,N) by nucleus sampling (Holtzman et al. 2020).

    Args:
        top_p: a token is a candidate if all more probable ones together are below it; with 0 only
            the most probable token is.
    """
    probability, order = logits.float().softmax(dim=-1).sort(dim=-1, descending=True)
    before = probability.cumsum(dim=-1) - probability
    kept = probability * (before < top_p)
    kept[:, 0] = probability[:, 0]
    place = torch.multinomial(kept, 1, generator=generator)
    return order.gather(1, place)[:, 0]
