"""One file per resource: each parses, asks the gateway and answers; no rule of the protocol lives here."""
