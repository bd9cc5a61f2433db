"""What an operator sees, and nothing that an operator must not see.

``logging``   structured lines: JSON in production, readable in the demo; secrets and raw bytes are refused at the door.
``metrics``   every metric in one typed table, with bounded labels, in a registry of its own.
``tracing``   W3C ``traceparent``, by hand: HTTP -> Kafka -> signer -> back.
``admin``     the second HTTP port with /healthz, /readyz and /metrics: a full front port cannot starve a probe.

Machines never come here: they return notes, and the shell turns notes into lines and counts.
"""
