"""The choices that make a network, in words; known without loading torch, as settings need them."""

from typing import Literal

SizePreset = Literal["tiny", "small", "base", "large"]
PairHead = Literal["concatenation", "attention"]
CrossAttention = Literal["shared", "separate"]
CrossStart = Literal["fresh", "self-attention"]
BoxSize = Literal[4, 5, 7]
RegionEmbedding = Literal["mean-of-norms", "sum", "sum-of-norms"]
ImageToken = Literal["none", "mean"]
