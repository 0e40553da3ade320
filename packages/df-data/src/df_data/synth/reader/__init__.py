"""Read pose, mouth, blink and identity of a synthetic person from pixels."""

from df_data.synth.reader.reader import SynthReader, SynthReadings, identity_distance, load_reader

__all__ = ["SynthReader", "SynthReadings", "identity_distance", "load_reader"]
