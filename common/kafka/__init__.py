"""Kafka, behind protocols of our own.

``port``         what may be asked of it: values and protocols; everybody else imports only this.
``settings``     where the cluster is, and who we are there.
``client``       the factory of the real thing, for composition roots.
``producer`` ``tail`` ``group`` ``admin``   the real clients; ``owner`` is the thread that a Consumer belongs to.
``security``     passwords and certificates, out of a private file.
``options``      librdkafka's settings, each with its reason.
``state``        is the broker there, and do the client threads still turn?
``hearing``      do our own beats come back? If not, the readers are made anew.
``standstill``   does a member of the group read what it holds? If not, it joins anew.
``embedded``     the in-process broker, for the demo and for fast tests.
``dead_letter``  what could not be understood is kept, with the reason.
"""
