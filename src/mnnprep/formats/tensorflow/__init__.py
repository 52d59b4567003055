"""TensorFlow and Keras.

SavedModels, Keras files, graphs, checkpoints and factories, to a frozen graph, TFLite or ONNX.
"""
