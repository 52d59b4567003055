"""Quantized nets, made by the frameworks' own quantizers, through ``prepare``; and faults planted in them."""
