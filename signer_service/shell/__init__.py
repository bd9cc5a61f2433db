"""The only place of the signer with asyncio, threads, clock, randomness and disk.

It feeds machines their events and does what their transitions say, in their order: durable, then sent.
"""
