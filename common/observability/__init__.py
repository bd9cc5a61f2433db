"""What an operator sees, and nothing that an operator must not see.

``logging``       structured lines: JSON in production, readable in the demo
``redaction``     what may stand in a line: secrets, raw bytes and quoted inputs are refused at the door
``metric_table``  every metric as one typed row: name, unit, labels and their bounds
``metrics``       their values, in a registry of their own
``lines``         a brake for lines that a stranger or an outage could cause by the thousand
``tracing``       W3C ``traceparent``, by hand: HTTP -> Kafka -> signer -> back
``spans``         the spans of whoever exports them, by OpenTelemetry's SDK
``kafka_statistics``  librdkafka's own figures, as metrics
``admin``         the second HTTP port with /healthz, /readyz and /metrics: a full front port cannot starve a probe

Machines never come here: they return notes, and the shell turns notes into lines and counts.
"""
