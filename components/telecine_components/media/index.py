"""The index of a dataset: one row a sample, naming its clip and where its frames lie in a shard."""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("clip_id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("source_digest", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("consent", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("split", pa.string()),  # "train" or "val"; all samples of a shot are on one side
        pa.field("shard", pa.string()),  # path in the store
        pa.field("shard_digest", pa.string()),  # SHA-256 of the tar
        pa.field("offset", pa.int64()),  # of the .npy member's bytes in the tar
        pa.field("length", pa.int64()),
        pa.field("num_frames", pa.int64()),
        pa.field("height_px", pa.int64()),
        pa.field("width_px", pa.int64()),
        pa.field("fps", pa.float64()),
        pa.field("motion", pa.float64()),
    ]
)
