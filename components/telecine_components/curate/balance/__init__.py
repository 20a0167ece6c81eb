"""Give up clips of what there is most of."""
