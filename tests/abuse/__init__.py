"""Clients that are slow, silent, endless or rude, against a running system, and what it costs everybody else.

    attacks.py    what such clients do, each on many connections; a process of its own
    measure.py    meanwhile: honest requests, probes of the admin port, memory and descriptors of the pod
    __main__.py   one attack after another on a demo, and a table of what was seen

`make abuse` runs all of it (ARGS="--connections 5000 --seconds 40"); `test_abuse.py` a few seconds of each.
"""
