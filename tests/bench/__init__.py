"""``make bench``: how fast the system signs on Apache Kafka, and what a signature costs.

``__main__``    the order of a run: broker, systems, phases, report; everything bounded in time
``plan``        which committees are measured, for how long, and what is asked of them
``system``      the processes that are measured: Apache Kafka, ``signer-flow demo``, the service one would pick instead
``baseline``    that service: FastAPI with the private key in its memory
``load``        the load client, a process of its own; verifies every answer
``http1``       its keep-alive HTTP/1.1 connections
``floor``       CPU time of the bare group operations, in a process of its own, during the load
``ceremonies``  refreshes of a running committee: wall time, CPU, and what callers see of them
``refresh_floor``  the operations that a refresh cannot do without, counted and timed
``overload``    three times what can be signed: what is signed, refused and late, and what is owed of it
``dip``         answers in the seconds of refreshes beside all others
``accounting``  CPU time and memory per process, from /proc
``stats``       percentiles, spread, histograms
``refresh_report``  the tables of the refreshes
``report``      a table for people, Markdown for FIGURES.md, both from the JSON

Nothing here is a timed test: ``test_bench`` checks the arithmetic of the helpers only.
"""
