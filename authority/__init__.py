"""The key authority: holds the homomorphic secret key and releases only sums.

No code of another party imports this package, and no other package can reach a secret key.
"""
