"""The HTTP edge: turns requests into records, and answers that verify into HTTP; never imports signer_service.

``__main__ app``  composition root
``routes``        thin: parse, ask the gateway, answer
``gateway``       futures on one side, Kafka on the other
``correlation``   sans-IO: pending requests; reply, duplicate, late, foreign, tick
``problems``      the one table from errors to status
``client cli``    a typed client of our own API, and the command line
``demo``          the whole system on one machine
``web``           templates and static files of /sign
"""
