"""The vocabulary and the wire that both services share; it knows neither of them.

``ids errors secret``  names; errors sorted by what the caller does next; a box for secrets
``ed25519 quorum``     sign and verify in one place; the numbers q and r of a committee
``private_file``       files that only their owner may read
``kubernetes``         the few things that Jobs in a cluster ask of its API
``wire``               records as frozen dataclasses, their canonical Avro bytes, envelopes, the topic table
``trust``              what anybody believes about a roster or a key record
``kafka``              what the program may ask of a broker, the real client, the embedded broker, dead letters
``observability``      log lines, metrics, traces, the admin port
``health``             what a container's health check runs
"""
