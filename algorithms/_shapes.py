"""Rank arithmetic as pure functions, under drawings of what they compute; nothing here knows steps or chunks."""

from __future__ import annotations

from collections.abc import Iterator


def log2_ceil(n: int) -> int:
    """Return the smallest k with 2**k >= n, for n >= 1."""
    return (n - 1).bit_length()


def farthest_first(size: int) -> Iterator[tuple[int, range]]:
    """Yield, round by round, how far to send and which offsets, so that offset 0 spreads over range(size).

    Once each offset in hand is sent on by `distance`, and all distances are halved down to 1, every offset is there
    once, whatever the size; the few first messages go far and the many last ones go near. For 6:

        distance 4   0 -------------> 4
        distance 2   0 -----> 2                      (4 + 2 is outside)
        distance 1   0 -> 1   2 -> 3  4 -> 5
    """
    for k in reversed(range(log2_ceil(size))):
        distance = 1 << k
        yield distance, range(0, size - distance, 2 * distance)


def binomial_parent(node: int) -> int:
    r"""Return the parent of a node other than 0 in the binomial tree: the node without its lowest set bit.

         0                     7 = 111 -> 110 = 6
       / | \                   6 = 110 -> 100 = 4
      4  2  1                  5 = 101 -> 100 = 4
     /|  |                     3 = 011 -> 010 = 2
    6 5  3
    |
    7
    """
    return node & (node - 1)


def binomial_children(node: int, size: int) -> list[tuple[int, int]]:
    """Return (child, size of the child's subtree) in the binomial tree over range(size), the largest first.

    The subtree of a node is the range of nodes that starts with it.
    """
    limit = (node & -node) if node else 1 << log2_ceil(size)
    spans = [1 << k for k in reversed(range(limit.bit_length() - 1))]
    return [(node + span, min(span, size - node - span)) for span in spans if node + span < size]


def knomial_parent(node: int, k: int) -> int:
    """Return the parent of a node other than 0 in the k-nomial tree: its lowest digit in base k that is not 0 is 0."""
    span = 1
    while node // span % k == 0:
        span *= k
    return node - node // span % k * span


def knomial_children(node: int, size: int, k: int) -> list[list[int]]:
    """Return the children of a node in the k-nomial tree over range(size), those of each level, the largest first.

    A node's children differ from it in one digit in base k below its lowest that is not 0. For 12 and k = 4:

                  0
          /    |    |  |  \\
          4     8    1  2  3
        / | \\  / | \\
       5  6  7 9 10 11
    """
    span = 1
    while span < size and node // span % k == 0:
        span *= k
    levels = []
    while span > 1:
        span //= k
        levels.append([child for child in (node + digit * span for digit in range(1, k)) if child < size])
    return [level for level in levels if level]


def inorder_parent(node: int, size: int) -> int:
    r"""Return the parent of `node` in the in-order tree over 1..size, or 0 for its top.

    The height of a node is the number of zeros at its end, so that every odd node is a leaf; where the right half
    is cut short, its top moves down to a node that exists. For 7 and for 6:

            4                     4
          /   \                 /   \
         2     6               2     6
        / \   / \             / \   /
        1  3  5  7            1  3  5
    """
    bit = node & -node
    below = node & ~bit
    up = below | bit << 1
    return up if up <= size else below


def inorder_children(node: int, size: int) -> list[int]:
    """Return the children of `node` in the in-order tree over 1..size, the lower first."""
    bit = (node & -node) >> 1
    children = [node - bit] if bit else []
    while bit and node + bit > size:
        bit >>= 1
    return [*children, node + bit] if bit else children


def two_trees(node: int, size: int) -> list[tuple[int, list[int]]]:
    r"""Return (parent, children) of `node` in each of two trees over range(size) under node 0; 0's own parent is -1.

    Both are in-order trees over the other nodes. The second is the first mirrored, or, when their number is odd,
    shifted by one: no node other than 0 has children in both, so that all can send with all of their bandwidth
    (Sanders, Speck, Traeff 2009). For 7:

            0                 0
            |                 |
            4                 3
          /   \             /   \
         2     6           5     1
        / \   /           / \   /
       1   3 5           6   4 2
    """
    others = size - 1
    if not others:
        return []
    turn = others + 1 if others % 2 == 0 else 0  # node -> turn - node, or the shift

    def there(x: int) -> int:
        return turn - x if turn else (x - 2) % others + 1

    def back(x: int) -> int:
        return turn - x if turn else x % others + 1

    top = 1 << others.bit_length() - 1
    if not node:
        return [(-1, [top]), (-1, [back(top)])]
    place = there(node)
    up = inorder_parent(place, others)
    return [
        (inorder_parent(node, others), inorder_children(node, others)),
        (back(up) if up else 0, [back(child) for child in inorder_children(place, others)]),
    ]


def folded(rank: int, size: int) -> tuple[int, int]:
    """Return (partner, number in the core) of a rank, when `size` is folded to the power of two below it.

    Of the first 2 (size - core) ranks each even one hands its part to its odd neighbour and leaves (number -1);
    those who stay are numbered 0, 1, ... A rank that has no neighbour to fold with has partner -1. For 6:

        rank      0 -> 1   2 -> 3   4   5
        number         0        1   2   3
    """
    rest = size - (1 << size.bit_length() - 1)
    if rank >= 2 * rest:
        return -1, rank - rest
    return rank ^ 1, rank // 2 if rank % 2 else -1


def unfolded(number: int, size: int) -> int:
    """Return the rank that has this number in the core: the inverse of `folded`."""
    rest = size - (1 << size.bit_length() - 1)
    return 2 * number + 1 if number < rest else number + rest
