"""What everything that touches video shares: decode, planes, encode, shards. Imports no area."""
