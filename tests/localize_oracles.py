"""Slow, obvious twins of causal confirmation, minimal sets and counterfactual edits."""

from itertools import combinations

import numpy as np
from scipy import linalg


def project_out(z, mean, directions):
    """Orthogonal erasure by Gram-Schmidt, one direction after the other."""
    basis = []
    for direction in directions:
        rest = direction.astype(float)
        for u in basis:
            rest = rest - (rest @ u) * u
        length = np.linalg.norm(rest)
        if length > 1e-9 * np.linalg.norm(direction):
            basis.append(rest / length)
    out = z - mean
    for u in basis:
        out = out - np.outer(out @ u, u)
    return out + mean


def leace(z, scores):
    """LEACE as the theorem reads: whiten, project, unwhiten, with matrix roots."""
    x, s = z - z.mean(axis=0), scores - scores.mean(axis=0)
    root = np.real(linalg.sqrtm(x.T @ x / len(z)))
    whiten = np.linalg.pinv(root, rcond=1e-7)
    columns = whiten @ (x.T @ s / len(z))
    projection = columns @ np.linalg.pinv(columns, rcond=1e-10)
    return z - x @ (np.linalg.pinv(whiten, rcond=1e-7) @ projection @ whiten).T


def random_erasures(z, mean, change, frames):
    """Each image moved against its part in each random subspace, as far as `change` moves it."""
    out = np.empty((len(frames), *z.shape))
    for r, frame in enumerate(frames):
        for i in range(len(z)):
            part = sum(((z[i] - mean) @ u) * u for u in frame)
            out[r, i] = z[i] - part / np.linalg.norm(part) * np.linalg.norm(change[i])
    return out


def served(z, labels, head, erase, goal):
    """How many errors of a group reach the goal under an erasure of all of z."""
    before, after = head(z).argmax(axis=1), head(erase(z)).argmax(axis=1)
    wrong = before != labels
    reached = {"truth": after == labels, "away": after != before, "keep": after == before}
    return int((wrong & reached[goal]).sum())


def smallest(part, head, mean, directions, goal, needed):
    """All sets by size; the counts of the first size at which one serves enough."""
    everything = range(len(directions))
    for size in range(len(directions) + 1):
        counts = {}
        for chosen in combinations(everything, size):
            out = directions[[c for c in everything if (c in chosen) != (goal == "keep")]]
            counts[chosen] = served(
                part.embeddings, part.labels, head, lambda x, o=out: project_out(x, mean, o), goal
            )
        if max(counts.values()) >= needed:
            return counts
    return {}


def least_squares(gains, needed, price):
    """Try every set of binding constraints; keep the cheapest point that satisfies all."""
    best = None
    for size in range(min(gains.shape) + 1):
        for binding in combinations(range(len(needed)), size):
            g = gains[list(binding)] / np.sqrt(price)
            point = (
                np.linalg.pinv(g) @ needed[list(binding)] / np.sqrt(price) if size else 0 * price
            )
            if (gains @ point >= needed - 1e-7).all():
                cost = np.sqrt((price * point**2).sum())
                best = cost if best is None else min(best, cost)
    return best


def least_sum(gains, needed, price):
    """Try every square system of concepts and constraints, as vertices of the programme."""
    best = 0.0 if (needed <= 0).all() else None
    for size in range(1, min(gains.shape) + 1):
        for concepts in combinations(range(gains.shape[1]), size):
            for binding in combinations(range(len(needed)), size):
                system = gains[np.ix_(binding, concepts)]
                if abs(np.linalg.det(system)) < 1e-9:
                    continue
                point = np.zeros(gains.shape[1])
                point[list(concepts)] = np.linalg.solve(system, needed[list(binding)])
                if (gains @ point >= needed - 1e-7).all():
                    cost = (price * np.abs(point)).sum()
                    best = cost if best is None else min(best, cost)
    return best
