"""The commands of ``signer-flow``; ``rest_api.cli`` imports the one that is run.

``options``    what several share: options, exit codes, the client, files and base64 on the command line
``signing``    sign, verify
``batch``      batch: a CSV through the API
``csv_input``  rows of the input, and what is wrong with one
``results``    where results go: whole rows or none, and where a run before stopped
``pipeline``   batches in flight, in order, in constant memory
``interrupts`` Ctrl-C where it does no harm
``cluster``    status, refresh
``token`` ``topics`` ``demo``: one each
"""
