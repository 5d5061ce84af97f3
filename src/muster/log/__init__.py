"""What happened: signed entries in single-writer streams, and the proofs about them.

Rule 1: everything here is pure. Time, randomness and storage are arguments.
Rule 2: exact bytes are hashed, signed and sent; nothing is re-serialised to be checked.
Rule 3: acceptance depends on bytes alone, never on a clock or on policy.

An entry is a header line and a body. The header is the leaf of its stream's RFC 6962 tree
(`entry`, `tree`); a seal is the writer's signed checkpoint of that tree, a cosign another
machine's signature over the same checkpoint (`note`, `seal`); a segment carries entries
with the seal that covers them (`segment`). docs/spec/log.md is the normative description.
"""
