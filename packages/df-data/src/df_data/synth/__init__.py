"""Synthetic talking heads with every truth known: :mod:`~df_data.synth.clip` makes one, :mod:`~df_data.synth.corpus`
a dataset of them, :mod:`~df_data.synth.reader` measures images."""
