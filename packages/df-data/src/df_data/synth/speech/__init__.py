"""The speech synthesiser: sentences, phonemes, coarticulation, voices, formants."""
