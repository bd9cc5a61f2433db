"""Chaos with a witness: a whole system on a real Apache Kafka, faults from a seed, and a checker that reads it all.

``plan``       what is done to the system, drawn from the seed.
``run``        the order of a run: broker, demo, witness, clients, faults, the end.
``clients``    callers over HTTP (single, batch, WebSocket) that write down each question and each answer.
``faults``     what a fault does to processes and broker, and how long until everybody is ready again.
``witness``    reads every topic while the system runs, and writes down every record.
``history``    what the run wrote down, as rows; one JSON object a line.
``evidence``   the records of the topics, decoded to what the checker asks.
``commits``    the consumer group's offsets, as its own topic tells them.
``checker``    pure: from history and evidence to findings; none means that the promise was kept.
``report``     the figures for a person.

``python -m tests.chaos`` (``make chaos``) runs it; ``python -m tests.chaos check FOLDER`` checks what a run left.
"""
