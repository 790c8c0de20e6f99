"""The rank arithmetic, for any number of ranks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.algorithms._shapes import (
    binomial_children,
    binomial_parent,
    farthest_first,
    folded,
    inorder_children,
    inorder_parent,
    knomial_children,
    knomial_parent,
    log2_ceil,
    two_trees,
    unfolded,
)

sizes = st.integers(1, 2000)
steady = settings(derandomize=True, deadline=None, max_examples=60)


@steady
@given(sizes)
def test_log2_ceil(size):
    k = log2_ceil(size)
    assert 1 << k >= size and (not k or 1 << (k - 1) < size)


@steady
@given(sizes)
def test_farthest_first_reaches_every_offset_once_in_the_fewest_rounds(size):
    held, rounds = {0}, list(farthest_first(size))
    for distance, offsets in rounds:
        assert held >= set(offsets)
        new = {offset + distance for offset in offsets}
        assert len(new) == len(offsets) and not new & held
        held |= new
    assert held == set(range(size))
    assert len(rounds) == log2_ceil(size)


@steady
@given(sizes)
def test_binomial_tree(size):
    spans = {0: size}
    for node in range(size):
        children = binomial_children(node, size)
        for child, span in children:
            assert binomial_parent(child) == node
            spans[child] = span
        assert spans[node] == 1 + sum(span for _, span in children)
        assert children == sorted(children, reverse=True)
        covered = sorted(x for child, span in children for x in range(child, child + span))
        assert covered == list(range(node + 1, node + spans[node]))
    assert sorted(spans) == list(range(size))


@steady
@given(sizes, st.integers(2, 9))
def test_knomial_tree(size, k):
    met = [0]
    for node in range(size):
        levels = knomial_children(node, size, k)
        assert all(0 < len(level) < k for level in levels)
        children = [child for level in levels for child in level]
        assert all(knomial_parent(child, k) == node for child in children)
        met += children
    assert sorted(met) == list(range(size))
    digits = 1
    while k**digits < size:
        digits += 1
    assert max(depth(lambda node: knomial_parent(node, k), node) for node in range(size)) <= digits


def depth(parent, node):
    steps = 0
    while node > 0:
        node, steps = parent(node), steps + 1
    return steps


@steady
@given(st.integers(1, 600))
def test_inorder_tree(size):
    for node in range(1, size + 1):
        children = inorder_children(node, size)
        assert (not children) == (node % 2 == 1)
        assert all(inorder_parent(child, size) == node for child in children)
        assert len(children) <= 2 and children == sorted(children)
    tops = [node for node in range(1, size + 1) if not inorder_parent(node, size)]
    assert tops == [1 << size.bit_length() - 1]
    assert max(depth(lambda x: inorder_parent(x, size), node) for node in range(1, size + 1)) <= log2_ceil(size) + 1


@steady
@given(st.integers(1, 600))
def test_two_trees(size):
    both = [two_trees(node, size) for node in range(size)]
    assert both[0] == [] if size == 1 else all(len(trees) == 2 for trees in both)
    for which in range(2 if size > 1 else 0):
        for node in range(size):
            parent, children = both[node][which]
            assert (parent == -1) == (node == 0)
            assert all(both[child][which][0] == node for child in children)
            if node:
                assert node in both[parent][which][1]
        assert max(depth(lambda x, t=which: both[x][t][0], node) for node in range(size)) <= log2_ceil(size) + 2
    for trees in both[1:]:
        assert not (trees[0][1] and trees[1][1]), "a node has children in both trees"


@steady
@given(sizes)
def test_folding(size):
    core = 1 << size.bit_length() - 1
    numbers = {}
    for rank in range(size):
        partner, number = folded(rank, size)
        if partner >= 0:
            assert folded(partner, size)[0] == rank
            assert (number < 0) != (folded(partner, size)[1] < 0)
        if number >= 0:
            numbers[number] = rank
            assert unfolded(number, size) == rank
    assert sorted(numbers) == list(range(core))
    assert [numbers[k] for k in range(core)] == sorted(numbers.values())
