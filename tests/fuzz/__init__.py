"""Hostile bytes for everything that reads bytes of others.

    decoders.py   every decoder by name: what it is given, what it may raise, where its inputs begin
    formats.py    decoders of files, settings, JSON, CSV and headers
    machines.py   the ceremony fold and the signing machines, given records of whoever holds a seat's key
    edge.py       the HTTP layer: the real application behind the real parsers, on a connection in memory
    changes.py    inputs out of inputs: seeded changes of bytes, and of the values that a record holds
    running.py    one input, bounded and watched: what came out, how long it took
    guided.py     one decoder under libFuzzer (atheris), which follows what the code does with its inputs
    corpus/       what was found once, by decoder: each file is a regression test, and a place to begin

`make test` plays the corpus and a short, seeded round of each decoder; `make fuzz SECONDS=60` looks for more
(`python -m tests.fuzz --help`). What it finds is written to `.fuzz/found/`: mend it, and move the input to `corpus/`.
"""
