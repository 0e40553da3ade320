"""Values and differences with their intervals over people and seeds: the one rule that training and evaluation share.

It needs scipy, which the extra ``intervals`` brings.
"""
