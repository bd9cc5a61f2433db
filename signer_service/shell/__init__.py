"""Everything that the machines may not do: asyncio, threads, the clock, randomness, disk, Kafka.

``runner``      one replica: all ``parts`` on one event loop, from the first connection to the last commit
``readers``     what is read besides requests, and from where on (``unread``: does the log's reader stand still?)
``signing``     participant and coordinator on the loop; ``outbox`` sends what they say, merged per seat and record
``ceremonies``  the ceremony machine: durable first, then sent, then the next event
``requests``    the request topic: room, backpressure, offsets (``records``, ``offsets``)
``peers``       records and beats of other replicas, believed only in a good envelope (``presence``: who is live)
``beats``       our own beats; ``health`` whether we live and can serve; ``notes`` facts to metrics and lines
``poison``      what cannot be used: kept, counted, answered where it can be
``journal``     the state directory, old or new after a crash; ``disk`` durable files; ``keystore`` keys and sealing
``roster_file`` the roster as a file; ``names`` topics; ``sources`` clock and randomness; ``hardening`` no core dumps
"""
