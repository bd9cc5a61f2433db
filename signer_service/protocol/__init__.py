"""Sans-IO machines: what a replica does next, as a plain function of its state and one event.

``machine``      the contract: Transition, events, notes
``view``         what a machine may know of the committee
``participant``  checks a request itself, then gives one share of a signature
``coordinator``  leads one signing session
``fold``         the ceremony log, folded: the same state at every replica
``ceremony``     what this seat adds to that log: key generation and resharing (``ceremony_*``: one concern each)
"""
