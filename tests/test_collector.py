"""Cycles that a process makes while it serves are still freed; what it is made of is not looked at."""

import subprocess
import sys

PROGRAM = """
import gc, weakref
from common import collector

class Node:
    pass

collector.hold()
assert not gc.isenabled()
old = Node()
collector.settle()
assert gc.isenabled()
assert gc.get_freeze_count() > 1_000
assert not any(each is old for each in gc.get_objects())
node = Node()
node.itself, gone = node, weakref.ref(node)
del node
made = []
while gone() is not None and len(made) < 10 * collector.YOUNG_OBJECTS:
    made.append([])
assert gone() is None, "a cycle stayed"
"""


def test_a_settled_process_frees_cycles_and_leaves_what_it_is_made_of_alone() -> None:
    # A process of its own: it is for good.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
