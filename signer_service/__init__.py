"""One threshold signer: holds one share of each key, and signs only together with others.

``__main__ app settings``  command line, composition root, environment -> one frozen Settings
``frost``                  RFC 9591 arithmetic; pure: no clock, no randomness of its own, no IO
``protocol``               sans-IO machines: step(state, event) -> Transition
``shell``                  the only asyncio, threads, clock, randomness and disk
"""
