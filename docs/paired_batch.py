"""Draws paired_batch.png: where the parts of a paired batch come from.

Run from the root: python docs/paired_batch.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

EPISODES = [14, 20, 9, 17, 12]
COLORS = ["#9ecae1", "#a1d99b", "#fdae6b", "#bcbddc", "#fa9fb5"]
TRANSITIONS, SUBSEQUENCES, SAMPLE_SIZE = 8, (1, 3), 4


def cell(axes, x, y, color, edge="white", width=1.0):
    axes.add_patch(Rectangle((x, y), 1, 0.8, facecolor=color, edgecolor=edge, linewidth=width))


def main():
    rng = np.random.default_rng(3)
    figure = Figure(figsize=(10, 5.4))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-7, 33), ylim=(-7.4, 6.6))
    axes.axis("off")
    axes.text(-6.5, 5.9, "replay: finished episodes only", weight="bold")
    where = []
    for row, length in enumerate(EPISODES):
        y = 4.6 - row
        axes.text(-6.5, y + 0.25, f"episode {row + 1}, return $R_{row + 1}$", fontsize=9)
        for step in range(length):
            cell(axes, step, y, COLORS[row])
            where.append((row, step))
    # Transitions: any step of any episode.
    axes.text(-6.5, -2.1, "transitions", weight="bold")
    axes.text(-6.5, -2.7, "batch_size = 8", fontsize=9, family="monospace")
    for slot, index in enumerate(rng.choice(len(where), TRANSITIONS)):
        row, step = where[index]
        cell(axes, step, 4.6 - row, COLORS[row], edge="black", width=1.6)
        cell(axes, slot, -2.7, COLORS[row], edge="black", width=1.6)
    axes.text(9, -2.45, "→ critic and actor: single steps from anywhere", fontsize=9)
    # Subsequences: each from one episode.
    axes.text(-6.5, -4.1, "subsequences", weight="bold")
    axes.text(-6.5, -4.7, "rrd_batch_size = 8", fontsize=9, family="monospace")
    axes.text(-6.5, -5.3, "rrd_sample_size = 4", fontsize=9, family="monospace")
    for line, row in enumerate(SUBSEQUENCES):
        y = -4.9 - 1.1 * line
        for slot, step in enumerate(rng.choice(EPISODES[row], SAMPLE_SIZE)):
            axes.plot(step + 0.5, 5.0 - row, marker="o", color="#b30000", markersize=5)
            cell(axes, slot, y, COLORS[row], edge="#b30000", width=1.6)
        text = f"→ reward model: the mean prediction should be $R_{row + 1} / T_{row + 1}$"
        axes.text(SAMPLE_SIZE + 0.6, y + 0.25, text, fontsize=9)
    axes.text(-6.5, -6.9, "num_subsequences = 8 // 4 = 2, each of another episode", fontsize=9)
    note = "one paired batch, one update;\ntrain_batches of these per iteration"
    axes.text(32.5, -6.4, note, ha="right", fontsize=9, style="italic")
    axes.add_patch(FancyArrowPatch((26, 3), (26, -1.6), arrowstyle="-|>", mutation_scale=16, color="0.4"))
    axes.text(26.4, 0.6, "sampled at\nthe same moment", fontsize=9, color="0.3")
    axes.text(8.2, -1.6, "black frame: drawn as a transition    red dot: drawn for a subsequence", fontsize=8)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
