"""Writes a TF1 checkpoint with a keep_prob."""

import os

import tensorflow as tf

os.makedirs("t1", exist_ok=True)

v = tf.compat.v1
with tf.Graph().as_default():
    x = v.placeholder(tf.float32, (None, 4), name="x")
    w = v.get_variable("w", (4, 3))
    kp = v.placeholder_with_default(1.0, (), name="keep_prob")
    tf.identity(tf.nn.dropout(tf.matmul(x, w), rate=1 - kp), name="y")
    with v.Session() as s:
        s.run(v.global_variables_initializer())
        v.train.Saver().save(s, "t1/m.ckpt")
