"""Every bound in the product, each with its reason. Sizes in bytes, times in milliseconds.

A number that is nowhere else explained belongs here; a number without a reason says
`Chosen arbitrarily`, which is an honest reason.
"""

from typing import Final

# --- log -------------------------------------------------------------------------------
# A header holds at most 16 causes of 64 hex digits and a stream name; 4 KiB leaves room for all.
HEADER_BYTES_MAX: Final = 4 * 1024
# Larger bodies become blobs, so that one entry never dominates a segment.
BODY_BYTES_MAX: Final = 64 * 1024
# Deep nesting is only ever an attack on a recursive reader.
JSON_DEPTH_MAX: Final = 16
# Chosen arbitrarily; no action has more than a handful of direct causes.
CAUSES_MAX: Final = 16
# 128 bits: nobody guesses a low-entropy body from its hash.
SALT_BYTES: Final = 16
# JSON readers in other languages keep integers exact only below 2^53.
INT_ABS_MAX: Final = 2**53 - 1
