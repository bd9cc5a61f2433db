"""``signer-flow demo``: the whole system on one machine, every process real and separate.

``plan``       what was asked for, and the settings of each child
``children``   child processes: started, watched, restarted, never left behind
``supervisor`` the order of it all: keys, broker, topics, children, one real signature, and a clean end
"""

from rest_api.demo.plan import Plan
from rest_api.demo.supervisor import run

__all__ = ["Plan", "run"]
