"""The three numbers of a committee, each with the attack or the loss that it answers.

``t`` shares sign. ``q`` seats vote and commit. ``r`` seats must have seen the commit before
old shares are erased.
"""


def commit_quorum(threshold: int, size: int) -> int:
    """q = max(n - t + 1, t + floor((n - t) / 2)): seats that must agree to close a phase or to commit an epoch.

    ``n - t + 1`` makes any q of them share a seat with any t; ``t + floor((n - t) / 2)`` leaves t honest holders even
    when floor((n - t) / 2) of those that said Ready turn out bad and go silent: with fewer, the key could be lost.
    2-of-3 gives 2, 3-of-5 gives 4, 5-of-7 gives 6, 7-of-10 gives 8.
    """
    return max(size - threshold + 1, threshold + (size - threshold) // 2)


def erase_quorum(threshold: int, size: int) -> int:
    """r = max(q, min(n, t + 1)): seats that hold the new share, and have seen the commit, before anybody
    destroys an old one.

    With exactly t holders of the new epoch one broken disk would lose the key for good.
    """
    return max(commit_quorum(threshold, size), min(size, threshold + 1))
