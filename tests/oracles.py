"""Slow, obvious twins of the fast code."""

import numpy as np


def heatmap(strengths, rows):
    """Count wins with three loops."""
    c = strengths.shape[1]
    wins = np.zeros((c, c), int)
    for i in rows:
        for a in range(c):
            for b in range(c):
                wins[a, b] += bool(strengths[i, a] > strengths[i, b])
    return wins


def ridge(z, v, ridge_):
    """Solve the ridge regression from the stacked data, by least squares on augmented rows."""
    mean_z, mean_v = z.mean(axis=0), v.mean(axis=0)
    zc, vc = z - mean_z, v - mean_v
    scale = (zc**2).sum() / z.shape[1]
    rows = np.vstack([zc, np.sqrt(ridge_ * scale) * np.eye(z.shape[1])])
    targets = np.vstack([vc, np.zeros((z.shape[1], v.shape[1]))])
    w = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    return w, mean_v - w @ mean_z


def auroc(scores, positive):
    """Compare every positive with every negative."""
    pairs = [(p > q) + 0.5 * (p == q) for p in scores[positive] for q in scores[~positive]]
    return float(np.mean(pairs))


def fisher(s1, n1, s2, n2):
    """Enumerate every table with the same margins; double the smaller tail."""
    from math import comb

    total, hits = n1 + n2, s1 + s2
    p = {
        a: comb(n1, a) * comb(n2, hits - a) / comb(total, hits)
        for a in range(max(0, hits - n2), min(n1, hits) + 1)
    }
    less = sum(q for a, q in p.items() if a <= s1)
    more = sum(q for a, q in p.items() if a >= s1)
    return min(1.0, 2 * min(less, more))
