"""Caffe: a network as text (prototxt) and its weights (caffemodel), with no Caffe installed.

Format facts, here and in the modules below: BVLC's caffe.proto (messages, field numbers, defaults), the SSD
branch's additions to it (Permute, PriorBox, DetectionOutput, Normalize), protobuf's text format
specification.
"""
