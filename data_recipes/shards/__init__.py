"""Shards: manifests and their visuals as tar files that can be streamed and read at random (docs/shards.md).

``resolution`` and ``arrays`` say what is stored, ``members`` encodes one sample, ``tar_file`` writes, ``layout`` deals
rows to shards, ``build`` makes one shard, ``engines`` and ``ray_engine`` make all, ``shard`` is the command; ``reader``
reads them back through ``byte_ranges`` and ``cache``, in an ``order`` that is a pure function.
"""
