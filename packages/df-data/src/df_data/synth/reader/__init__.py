"""Read pose, mouth, blink and identity of a synthetic person from pixels."""

from df_data.synth.reader.reader import SynthReadings, SynthReader, identity_distance, load_reader

__all__ = ["SynthReadings", "SynthReader", "identity_distance", "load_reader"]
