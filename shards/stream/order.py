"""The order in which samples are visited, as a pure function of seed, epoch and position.

Nothing here keeps a state, so any number of ranks, stopped anywhere, sees one global sequence. The
integers are our own and not NumPy's shuffles, whose streams may change between versions (NEP 19).
"""

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Below this size the Feistel network is measurably biased; sorting hashes is exact and cheap.
SMALLEST_FEISTEL = 4096
ROUNDS = 6
_MASK = (1 << 64) - 1


def permute(index: int, n: int, key: int) -> int:
    """Permute `index` of 0..n-1 by the pseudo-random permutation of n numbers named by `key`.

    Six-round balanced Feistel network with cycle walking (Black and Rogaway, "Ciphers with
    Arbitrary Finite Domains", 2002): constant memory, any index in about the same time.

    Raises:
        IndexError: `index` is outside 0..n-1.
    """
    if not 0 <= index < n:
        raise IndexError(f"index must be in 0..{n - 1}, got {index}")
    if n < SMALLEST_FEISTEL:
        return _sorted_hashes(n, key)[index]
    half_bits = ((n - 1).bit_length() + 1) // 2
    index = _feistel(index, half_bits, key)
    while index >= n:
        index = _feistel(index, half_bits, key)
    return index


def permute_all(indices: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
    """Permute each of `indices`, all of them at once.

    Raises:
        IndexError: an index is outside 0..n-1.
    """
    if len(indices) and not 0 <= indices.min() <= indices.max() < n:
        raise IndexError(f"indices must be in 0..{n - 1}")
    if n < SMALLEST_FEISTEL:
        return _table(n, key)[indices]
    half_bits = ((n - 1).bit_length() + 1) // 2
    values = _feistel_all(indices.astype(np.uint64), half_bits, key)
    while (outside := np.flatnonzero(values >= n)).size:
        values[outside] = _feistel_all(values[outside], half_bits, key)
    return values.astype(np.int64)


def permutation(n: int, key: int) -> NDArray[np.int64]:
    """Return the whole permutation, [n]."""
    return permute_all(np.arange(n), n, key)


def key(seed: int, epoch: int) -> int:
    """Return the 64-bit name of the permutation of one epoch."""
    return draw(seed, epoch, "order")


def draw(seed: int, position: int, purpose: str) -> int:
    """Draw a 64-bit number that depends on nothing but its arguments."""
    return int.from_bytes(_digest(seed, position, purpose, 8), "little")


def generator(seed: int, position: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of a visited position for one purpose ("caption", "masking", ...).

    Counter-based (Philox), so a position draws the same numbers in any rank, after any resume.
    """
    philox_key = int.from_bytes(_digest(seed, position, purpose, 16), "little")
    return np.random.Generator(np.random.Philox(key=philox_key))


class Generators:
    """`generator` for one use at a time, in a fraction of its time: a call ends the one before."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._random = np.random.Generator(self._philox)
        self._fresh = self._philox.state

    def __call__(self, seed: int, position: int, purpose: str) -> np.random.Generator:
        """Return the same numbers as `generator(seed, position, purpose)`."""
        key = np.frombuffer(_digest(seed, position, purpose, 16), "<u8")
        counter = self._fresh["state"]["counter"]
        self._philox.state = {**self._fresh, "state": {"counter": counter, "key": key}}
        return self._random


def _digest(seed: int, position: int, purpose: str, size: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{position}/{purpose}".encode(), digest_size=size).digest()


def _feistel(value: int, half_bits: int, key: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for number in range(ROUNDS):
        # The round number stands above every bit of `right`, so no two rounds hash alike.
        hashed = _splitmix64(key ^ (right | (number + 1) << 56))
        left, right = right, left ^ (hashed & mask)
    return left << half_bits | right


def _feistel_all(values: NDArray[np.uint64], half_bits: int, key: int) -> NDArray[np.uint64]:
    bits, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> bits, values & mask
    for number in range(ROUNDS):
        hashed = _splitmix64_all(np.uint64(key) ^ (right | np.uint64((number + 1) << 56)))
        left, right = right, left ^ (hashed & mask)
    return left << bits | right


@lru_cache(maxsize=8)
def _sorted_hashes(n: int, key: int) -> tuple[int, ...]:
    # `sorted` is stable: equal hashes keep their order everywhere.
    return tuple(sorted(range(n), key=lambda index: _splitmix64(key ^ index)))


@lru_cache(maxsize=8)
def _table(n: int, key: int) -> NDArray[np.int64]:
    return np.array(_sorted_hashes(n, key), np.int64)


def _splitmix64(value: int) -> int:
    """Mix by the finaliser of Steele, Lea and Flood's SplitMix64 generator (2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


def _splitmix64_all(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix arrays, which wrap around at 64 bits by themselves."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
