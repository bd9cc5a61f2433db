"""Futures on one side, Kafka on the other: how a message gets to a signer and its answer back.

``core``           the Gateway: starts and stops the clients, registers, sends, completes futures.
``routing``        the routing table from beats: who is live, who reads which partition, where to send next.
``outbox``         what a turn of the loop collected, signed and sent.
``inbox``          what comes in from Kafka, opened and sorted.
``records``        requests cut into records of at most 64 items and 512 KiB.
``key_directory``  the key records that this pod believes, and the committee that they name.
``room``           how much may be outstanding on the embedded broker.
``readers``        what is read, and from where on.
``standing``       whether a request can be taken now, and what we say of ourselves to probes and in metrics.
``beats``          our own beat, and whether another live pod claims our N.

The outcome of a request is decided in ``rest_api.correlation``, which knows none of these.
"""
