"""The routes, thin: parse, ask the gateway, answer.

``sign``       POST /v1/sign, /v1/sign/batch, /v1/verify
``sign_ws``    WS /sign/ws: many messages under way on one connection
``keys``       GET /v1/keys, /v1/keys/{id}, /.well-known/jwks.json; POST /v1/keys/{id}/refresh
``cluster``    GET /v1/cluster
``health``     GET /healthz, /readyz
``page``       GET and POST /sign, GET /docs
``answers``    what they share: JSON answers, and outcomes as answers or problems
``committee``  what live seats say of a key: its ceremony, its refreshes, who is missing
"""
