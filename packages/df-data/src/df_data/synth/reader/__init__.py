"""Read pose, mouth, blink and identity of a synthetic person from pixels."""

from df_data.synth.reader.reader import Readings, SynthReader, identity_distance, load_reader

__all__ = ["Readings", "SynthReader", "identity_distance", "load_reader"]
