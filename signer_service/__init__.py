"""One threshold signer: holds one share of each key, and signs only together with others.

``__main__``   command line: run | provision | inspect | audit
``app``        composition root: reads and checks every file, chooses the broker, runs one replica
``provision``  makes the keys and the roster that a system starts from
``inspection`` what a state directory holds, never a secret
``audit``      every epoch re-checked from the ceremony log, with the operator's public key alone
``settings``   environment -> one frozen Settings
``frost``      RFC 9591 arithmetic; pure: no clock, no randomness of its own, no IO
``protocol``   sans-IO machines: step(state, event) -> Transition
``shell``      the only asyncio, threads, clock, randomness and disk

    Kafka -> shell -> event -> machine -> Transition -> shell: state durable, then sent, then the next event
"""
