"""FROST(Ed25519, SHA-512) of RFC 9591, and the arithmetic of sharing: pure functions of their arguments.

    group     the one door to libsodium's group operations; Element, Scalar, decoding with every check
    hashing   H1 to H5
    keys      what a participant holds, what everybody knows
    nonces    round one: nonces and commitments
    signing   round two and aggregation: binding factors, shares, who lied
    sharing   polynomials, commitments to them, combining what dealers gave
    proofs    Schnorr and DLEQ proofs, bound to a context
    sealing   sub-shares sealed under a Diffie-Hellman value
    errors    what can be wrong, sorted by what to do next

No clock, randomness, disk or network: entropy is an argument, without a default. Whatever checks something returns
nothing and raises if it is wrong, so that no caller can overlook a ``False``. Secrets are in ``common.secret.Secret``.
PyNaCl is imported by ``group`` (group operations) and ``sealing`` (AEAD) only.
"""
