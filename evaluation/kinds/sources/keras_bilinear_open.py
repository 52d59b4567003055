"""Writes upbil.keras: bilinear upsampling of open sizes."""

import keras

i = keras.layers.Input((None, None, 3))
keras.Model(i, keras.layers.UpSampling2D(2, interpolation="bilinear")(i)).save("upbil.keras")
