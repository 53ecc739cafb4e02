"""The feature store: decoded clips in shards, with random access from any number of processes."""

from evacap_cli.data.store.members import FRAMES_FORMATS, Sample, StoreItem
from evacap_cli.data.store.reading import Store
from evacap_cli.data.store.writing import Progress, StoreReport, write_store

__all__ = ["FRAMES_FORMATS", "Progress", "Sample", "Store", "StoreItem", "StoreReport", "write_store"]
