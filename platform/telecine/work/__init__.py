"""Work has an address; a run only points at it.

``<store>/work/<component>/<key>/`` holds ``attempts/<id>/`` (files being made), ``checkpoints/<step>/`` and one
``commit.json``; ``<store>/work/<component>/items/<item>/`` holds what every key shares. Readers trust commits only.
"""
