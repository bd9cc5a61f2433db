"""The HTTP edge: what comes in as JSON or a form goes out as a record to a signer; the answer comes back verified.

``__main__``, ``server``  one pod as a process   ``app``           composition root, ``create_app(settings)``
``settings``       the environment, checked      ``trust_files``   operator.pub, roster.avro, edge.key
``routes/``        thin: parse, ask, answer      ``models``        bodies, strict, and the OpenAPI document
``callers``        tokens, keys, rates           ``token_file``    who may call, as a file
``dependencies``   callers, deadlines, keys      ``body``          read within a cap, parsed strictly
``capacity``       what batches may take         ``problems``      the one table from errors to statuses
``middleware``     ids, host, counts             ``health``        what a probe is told
``gateway/``       futures and Kafka             ``correlation``   sans-IO: what ends a request, and when to ask again
``sockets``        WebSockets under uvicorn      ``attendance``    how many there are, and which makes room
``web/``           templates, style sheet and scripts
``client``, ``cli``, ``commands/``, ``demo/``    users of the API: of the above they import ``token_file`` at most

This package never imports ``signer_service``: the image of a pod holds no code that touches a share.
"""
