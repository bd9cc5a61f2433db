"""Records and their bytes: what travels over Kafka, and who said it.

``messages``    one frozen dataclass per record; no bytes, no IO
``transcript``  length-prefixed hashing of what is signed or proved
``codec``       dataclass <-> Avro bytes, strict in every bound (``shapes``)
``envelope``    who said it: sign, check, domain separation
``topics``      the one typed table of topics
"""
